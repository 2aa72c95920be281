"""Neural equations without a claim of stability: what the stable classes are compared with.

In    series, a number of components.
Out   problem classes that declare an `SDESystem`.
Next  `.solve()`; benchmarks/stable_classification.py compares them on the same splits and masks.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from pinnkit.declare.printing import refusal
from pinnkit.declare.problem_class import ProblemClass, problem
from pinnkit.declare.sde_system import SDESystem
from pinnkit.declare.series import IrregularSeries
from pinnkit.declare.stochastic import control, d, neural, process, wiener
from pinnkit.declare.symbols import coords

__all__ = ["NeuralCDE", "UnconstrainedSDE", "read_pace"]

_T = coords("t")
_W = wiener("W", _T)
_X = control("X", _T)


@problem
class UnconstrainedSDE(ProblemClass):
    """dz = f(t, z, X) dt + g(t, z) dW, f and g any networks, Ito: the "naive" neural SDE.

    Each component has its own Wiener process, but g mixes components, so that the noise is general:
    Euler-Maruyama is right for it, Milstein is not. Nothing is known about its stability; a network of
    at most linear growth has a solution, and no more.

    Args:
        data: Labelled series.
        dim: Components of the latent state.
        pace: Units of the model's time in the longest series; see `read_pace`.
        controlled: False: dz = f(t, z) dt + g(t, z) dW, to which stable classes are compared in
            publications: of the data it sees X at the first time alone, through z(0).
    """

    data: IrregularSeries | None = None
    dim: int = 16
    pace: float = 1.0
    controlled: bool = True
    citation = (
        "X. Li, T.-K. L. Wong, R. T. Q. Chen, D. Duvenaud: Scalable Gradients for Stochastic "
        "Differential Equations. AISTATS 2020, arXiv:2001.01328."
    )

    def declare(self) -> SDESystem:
        """Drift of time, state and control, noise of time and state."""
        z = process("z", _T, dim=self.dim)
        pace = read_pace(self)
        seen = (_T, z, _X) if self.controlled else (_T, z)
        f, g = pace * neural("f", inputs=seen), sp.sqrt(pace) * neural("g", inputs=(_T, z))
        start = None if self.controlled else {z: neural("start", inputs=(_X,))}
        return SDESystem([sp.Eq(d(z), f * d(_T) + g * d(_W))], data=self.data, initial=start)


@problem
class NeuralCDE(ProblemClass):
    """dz = tanh(f(z)) dX + tanh(h(z)) dt: an equation driven by the data, time being a channel of them.

    f has one column per channel of the path X through the observations. There is no noise, and by
    default Euler's method takes the increments of X.

    Args:
        data: Labelled series.
        dim: Components of the latent state.
        pace: Units of the model's time in the longest series; see `read_pace`.
    """

    data: IrregularSeries | None = None
    dim: int = 16
    pace: float = 1.0
    citation = (
        "P. Kidger, J. Morrill, J. Foster, T. Lyons: Neural Controlled Differential Equations for "
        "Irregular Time Series. NeurIPS 2020, arXiv:2005.08926."
    )

    def declare(self) -> SDESystem:
        """A matrix for the channels, a vector for time."""
        z = process("z", _T, dim=self.dim)
        span = 1.0 if self.data is None else self.data.normalisation().duration
        f, h = neural("f", inputs=(z,)), neural("h", inputs=(z,))
        flow = read_pace(self) * sp.tanh(span * h) / span
        return SDESystem([sp.Eq(d(z), sp.tanh(f) * d(_X) + flow * d(_T))], data=self.data)


def read_pace(made: Any) -> sp.Expr:
    """How many units of the model's time the longest series lasts, exactly.

    A network of values about 1 changes the state by about 1 in such a unit, and noise of size 1 adds its
    square root. At pace 1 the state of a long series changes about once from its beginning to its end;
    to follow n events of a series it must change about n times, which a pace of n gives it from the start
    of training instead of by weights n times as large.
    """
    pace = made.pace
    if isinstance(pace, bool) or not isinstance(pace, (int, float)) or not 0 < pace < float("inf"):
        raise refusal(
            f"{type(made).__name__}(pace={pace!r})", "a pace is a positive number", "write pace=20"
        )
    return sp.Rational(pace)
