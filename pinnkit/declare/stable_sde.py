"""Stable neural stochastic equations: Langevin, linear noise, geometric.

In    series, a number of components.
Out   problem classes that declare an `SDESystem`; each says what is known about its stability.
Next  `.solve()`; `sol.stability()` checks the conditions on the trained networks.

Two forms. "pure" is the equation of the theory. "bounded" is what the authors' benchmark code
integrates: sines and cosines of time, tanh around drift and diffusion. It carries no theorem: the linear
noise loses its infinite horizon, the geometric equation its positivity.

References: oh2024stable (arXiv:2402.14989).
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from pinnkit.declare.neural_equations import read_pace
from pinnkit.declare.printing import refusal
from pinnkit.declare.problem_class import ProblemClass, problem
from pinnkit.declare.sde_system import SDESystem
from pinnkit.declare.series import IrregularSeries
from pinnkit.declare.stochastic import control, d, neural, process, wiener
from pinnkit.declare.symbols import coords, parameter

__all__ = ["GeometricSDE", "LangevinSDE", "LinearNoiseSDE"]

_T = coords("t")
_W = wiener("W", _T)
_X = control("X", _T)
_SIGMA = neural("sigma", inputs=(_T,))
_CITATION = (
    "Y. Oh, D.-Y. Lim, S. Kim: Stable Neural Stochastic Differential Equations in Analyzing Irregular "
    "Time Series Data. ICLR 2024, arXiv:2402.14989."
)


@problem
class LangevinSDE(ProblemClass):
    """dz = gamma(z, X) dt + sigma(t) dW: additive noise.

    Stability: where the drift is dissipative, <z, f> <= -a |z|^2 + M |z| with a > 0, and X and sigma do
    not change, the equation has an invariant law. The paper's gamma is any network, for which this is
    not known; `restoring=a` makes the drift -a z + tanh(gamma), which is dissipative whatever the
    weights are.

    Args:
        data: Labelled series.
        dim: Components of the latent state.
        restoring: a, per unit of the model's time; None: the paper's drift.
        form: "pure", or "bounded" as in the authors' code.
        pace: Units of the model's time in the longest series; see `read_pace`.
    """

    data: IrregularSeries | None = None
    dim: int = 16
    restoring: float | None = None
    form: str = "pure"
    pace: float = 1.0
    citation = _CITATION

    def declare(self) -> SDESystem:
        """Drift of state and control, noise of time alone."""
        z, pace = _latent(self), read_pace(self)
        gamma = neural("gamma", inputs=(z, _X))
        if self.form == "bounded":
            return _bounded(self, z, gamma, sp.S.One)
        drift = _restored(self, gamma, z)
        sigma = sp.sqrt(pace) * _SIGMA
        return SDESystem([sp.Eq(d(z), drift * d(_T) + sigma * d(_W))], data=self.data)


@problem
class LinearNoiseSDE(ProblemClass):
    """dz = gamma(t, z, X) dt + sigma(t) z dW: noise in proportion to the state, Ito.

    Stability, in the mean square: if <z, f> <= -a |z|^2 and 2 a > max sigma^2, then E|z|^2 decays like
    exp(-(2 a - max sigma^2) t); with a bounded rest, <z, f> <= -a |z|^2 + M |z|, it stays bounded. The
    paper's gamma is any network; `restoring=a` makes the drift -a z + tanh(gamma).

    Args:
        data: Labelled series.
        dim: Components of the latent state.
        restoring: a, per unit of the model's time; None: the paper's drift.
        form: "pure", or "bounded" as in the authors' code.
        pace: Units of the model's time in the longest series; see `read_pace`.
    """

    data: IrregularSeries | None = None
    dim: int = 16
    restoring: float | None = None
    form: str = "pure"
    pace: float = 1.0
    citation = _CITATION

    def declare(self) -> SDESystem:
        """Noise times state."""
        z, pace = _latent(self), read_pace(self)
        if self.form == "bounded":
            gamma = neural("gamma", inputs=(sp.sin(_T), sp.cos(_T), z, _X))
            return _bounded(self, z, gamma, z)
        drift = _restored(self, neural("gamma", inputs=(_T, z, _X)), z)
        sigma = sp.sqrt(pace) * _SIGMA
        return SDESystem([sp.Eq(d(z), drift * d(_T) + sigma * z * d(_W))], data=self.data)


@problem
class GeometricSDE(ProblemClass):
    """dz / z = gamma(t, z, X) dt + sigma(t) dW, component by component, from positive values, Ito.

    Integrated as y = log z, dy = (gamma - sigma^2 / 2) dt + sigma dW: z = exp(y) is positive for every
    step size, and the noise is additive, so that Euler-Maruyama is of strong order 1. The readout sees
    y. The network of gamma sees (z - 1) / (z + 1) = tanh(y / 2), the paper's inner map zeta beginning
    with it: it is Lipschitz in z > 0 and between -1 and 1, where z itself ranges over powers of e.

    Stability: positivity always. Almost every path decays if gamma < sigma^2 / 2 for good, although
    moments may grow: E z grows like exp(gamma t).

    The theory asks for a bounded gamma; an unbounded network of z = exp(y) explodes in practice, too.

    Args:
        data: Labelled series.
        dim: Components of the latent state.
        bound: Largest |gamma| per unit of the model's time, bound tanh(gamma / bound); None: unbounded.
        form: "pure", or "bounded" as in the authors' code (in z, without positivity).
        pace: Units of the model's time in the longest series; see `read_pace`.
    """

    data: IrregularSeries | None = None
    dim: int = 16
    bound: float | None = 5.0
    form: str = "pure"
    pace: float = 1.0
    citation = _CITATION

    def declare(self) -> SDESystem:
        """In logarithmic coordinates."""
        pace = read_pace(self)
        if self.bound is not None and not self.bound > 0:
            raise refusal(
                f"GeometricSDE(bound={self.bound!r})", "a bound is positive", "write 5.0, or None"
            )
        start = neural("start", inputs=(_X,))
        positive = sp.log(1 + sp.exp(start)) + sp.Rational(1, 10000)
        if self.form == "bounded":
            z = _latent(self)
            gamma = neural("gamma", inputs=(sp.sin(_T), sp.cos(_T), z, _X)) * sp.tanh(z)
            return _bounded(self, z, gamma, z, initial={z: positive})
        y = _latent(self, "y")
        # (z - 1) / (z + 1), which neither saturates the network nor overflows.
        gamma = pace * neural("gamma", inputs=(_T, sp.tanh(y / 2), _X))
        if self.bound is not None:
            unit = _span(self.data) / pace
            gamma = self.bound / unit * sp.tanh(unit / self.bound * gamma)
        sigma = sp.sqrt(pace) * _SIGMA
        return SDESystem(
            [sp.Eq(d(y), (gamma - sigma**2 / 2) * d(_T) + sigma * d(_W))],
            data=self.data,
            initial={y: sp.log(positive)},
        )


def _latent(made: Any, name: str = "z") -> Any:
    if made.form not in ("pure", "bounded"):
        raise refusal(
            f"{type(made).__name__}(form={made.form!r})",
            "there are two",
            'write "pure" or "bounded"',
        )
    restoring = getattr(made, "restoring", None)
    if restoring is not None and not (restoring > 0 and made.form == "pure"):
        raise refusal(
            f"{type(made).__name__}(form={made.form!r}, restoring={restoring!r})",
            "a restoring force is positive, and belongs to the pure form",
            "write restoring=1.0, or leave it out",
        )
    return process(name, _T, dim=made.dim)


def _span(data: IrregularSeries | None) -> float:
    return 1.0 if data is None else data.normalisation().duration


def _restored(made: Any, gamma: Any, z: Any) -> Any:
    """gamma, or -a z + tanh(gamma), both per unit of the model's time."""
    pace = read_pace(made)
    if made.restoring is None:
        return pace * gamma
    span = _span(made.data)
    return pace * (-made.restoring * z + sp.tanh(span * gamma)) / span


def _bounded(made: Any, z: Any, gamma: Any, factor: Any, *, initial: Any = None) -> SDESystem:
    """tanh(gamma) dt + tanh(theta relu(n(t)) factor) dW, per unit of the model's time.

    theta in (0, 1) is learned, from sigmoid(1) on.
    """
    span, pace = _span(made.data), read_pace(made)
    root = sp.sqrt(span)
    theta = parameter("theta", initial=0.7310585786300049, bounds=(0, 1))
    n = neural("n", inputs=(sp.sin(_T), sp.cos(_T)))
    drift = pace * sp.tanh(span * gamma) / span
    diffusion = sp.sqrt(pace) * sp.tanh(theta * sp.Max(root * n, 0) * factor) / root
    return SDESystem(
        [sp.Eq(d(z), drift * d(_T) + diffusion * d(_W))], data=made.data, initial=initial
    )
