"""`SDESystem`: stochastic (or ordinary) equations with neural terms, and data to learn them from.

In    equations in differentials; series; how a series starts and what is read off at its end.
Out   an immutable problem, validated when made; `.normal_form` is its `StochasticForm`.
Next  `ir.stochastic_form` does the validating, `pinnkit.driver.solve` the solving (imported late).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, final

import sympy as sp

from pinnkit.declare.noise import Calculus
from pinnkit.declare.printing import refusal, show
from pinnkit.declare.problem import AbstractProblem, check_unknown_numbers, read_equation
from pinnkit.declare.series import IrregularSeries
from pinnkit.errors import UnsupportedProblemError

if TYPE_CHECKING:
    from pinnkit.ir.stochastic_form import StochasticForm

__all__ = ["SDESystem"]

_KEEP: Any = object()


@final
class SDESystem(AbstractProblem):
    """dz = f dt + g dW, one equation per process, with unknown terms and data to learn them from.

    Args:
        equations: sp.Eq in differentials, such as sp.Eq(d(z), -z*d(t) + 0.1*d(W)).
        data: `IrregularSeries` with labels or targets.
        initial: {process: expression of controls at the first time, of parameters and of neural terms}.
            None: an affine map of the control there.
        readout: The network from the state to what is predicted, or its builder (inputs, outputs);
            None: an affine map.
        calculus: Calculus.ITO, or "stratonovich".

    >>> from pinnkit.declare import coords, d, process, wiener
    >>> t = coords("t")
    >>> z, W = process("z", t), wiener("W", t)
    >>> SDESystem([sp.Eq(d(z), -z * d(t) + 0.1 * d(W))])
    SDESystem (Ito, additive noise):
        d(z) = -z*d(t) + 0.1*d(W)
    """

    equations: tuple[Any, ...]
    data: IrregularSeries | None
    initial: Mapping[Any, sp.Expr] | None
    readout: Callable[..., Any] | None
    calculus: Calculus
    _normal_form: StochasticForm

    def __init__(
        self,
        equations: Any,
        data: IrregularSeries | None = None,
        initial: Mapping[Any, Any] | None = None,
        readout: Callable[..., Any] | None = None,
        *,
        calculus: Calculus | str = Calculus.ITO,
    ) -> None:
        from pinnkit.ir.stochastic_form import normalise_stochastic  # late: ir stands above declare

        put = vars(self).__setitem__  # the instance is closed to plain assignment
        put("equations", _read_equations(equations))
        put("data", _read_data(data))
        put("initial", None if initial is None else _read_initial(initial))
        if readout is not None and not callable(readout):
            raise refusal(
                f"SDESystem(readout={readout!r})", "it is no network", "give a module or a builder"
            )
        put("readout", readout)
        put("calculus", _read_calculus(calculus))
        put("_normal_form", normalise_stochastic(self))

    @property
    def system(self) -> SDESystem:
        """Itself."""
        return self

    @property
    def coords(self) -> tuple[sp.Symbol, ...]:
        """Time alone."""
        return (self._normal_form.time,)

    @property
    def fields(self) -> tuple[Any, ...]:
        """The processes, in the order of their equations."""
        return self._normal_form.processes

    @property
    def parameters(self) -> tuple[sp.Symbol, ...]:
        """The unknown numbers."""
        return self._normal_form.parameters

    @property
    def normal_form(self) -> StochasticForm:
        """Drift, diffusion and noise structure: what solvers read."""
        return self._normal_form

    def remake(
        self,
        *,
        equations: Any = _KEEP,
        data: Any = _KEEP,
        initial: Any = _KEEP,
        readout: Any = _KEEP,
        calculus: Any = _KEEP,
        parameters: Mapping[sp.Symbol, float] | None = None,
    ) -> SDESystem:
        """The same system with some parts exchanged; {k: 2.0} turns unknown numbers into known ones."""
        eqs = self.equations if equations is _KEEP else _read_equations(equations)
        start = self.initial if initial is _KEEP else initial
        values: dict[Any, Any] = dict(parameters or {})
        check_unknown_numbers(values, self, "system")
        if values:
            eqs = tuple(e.subs(values) for e in eqs)
            start = (
                None if start is None else {z: sp.sympify(e).subs(values) for z, e in start.items()}
            )
        return SDESystem(
            eqs,
            self.data if data is _KEEP else data,
            start,
            self.readout if readout is _KEEP else readout,
            calculus=self.calculus if calculus is _KEEP else calculus,
        )

    def residual(self, candidate: Any) -> Any:
        """There is none: a path of a stochastic equation is not differentiable."""
        raise UnsupportedProblemError(
            "a stochastic equation has no residual at a candidate; compare laws by simulation instead"
        )

    def diagnose(self) -> Any:
        """There is none yet for stochastic equations."""
        raise UnsupportedProblemError(
            "diagnose() looks at differential equations of fields; print(system) shows the noise's "
            "structure, and system.normal_form holds drift and diffusion"
        )

    def latex(self) -> str:
        """The equations for a paper."""
        sign = r" \circ" if self.calculus is Calculus.STRATONOVICH else ""
        from pinnkit.ir.stochastic_form import latex_of_stochastic

        return latex_of_stochastic(self._normal_form, sign)

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self.equations, self.data, self.initial, self.readout, self.calculus)
        return _rebuild, parts

    def __repr__(self) -> str:
        form = self._normal_form
        noise = f"{form.noise.name.lower()} noise" if form.diffusion else "no noise"
        lines = [
            f"    {show(e)}{'' if isinstance(e, sp.Equality) else ' = 0'}" for e in self.equations
        ]
        head = f"SDESystem ({self.calculus.value.capitalize()}, {noise}):"
        return "\n".join([head, *lines, *([f"  from {self.data!r}"] if self.data else [])])


def _rebuild(equations: Any, data: Any, initial: Any, readout: Any, calculus: Any) -> SDESystem:
    return SDESystem(equations, data, initial, readout, calculus=calculus)


def _read_equations(equations: Any) -> tuple[Any, ...]:
    parts = list(equations) if isinstance(equations, (list, tuple, sp.Tuple)) else [equations]
    if not parts:
        raise refusal("SDESystem([])", "there is no equation", "give one per process")
    return tuple(read_equation(e, i + 1) for i, e in enumerate(parts))


def _read_data(data: Any) -> IrregularSeries | None:
    if data is not None and not isinstance(data, IrregularSeries):
        raise refusal(
            f"SDESystem(data={type(data).__name__})",
            "that is no IrregularSeries",
            "write data=IrregularSeries(times, values, labels=...)",
        )
    return data


def _read_initial(initial: Any) -> Mapping[Any, sp.Expr]:
    if not isinstance(initial, Mapping):
        raise refusal(
            f"SDESystem(initial={initial!r})", "that is no dictionary", "write initial={z: 1.0}"
        )
    return {z: sp.sympify(value) for z, value in initial.items()}


def _read_calculus(calculus: Any) -> Calculus:
    try:
        return Calculus(calculus)
    except ValueError:
        raise refusal(
            f"SDESystem(calculus={calculus!r})", "there are two", 'write "ito" or "stratonovich"'
        ) from None
