"""The solution: call it, ask how wrong it is, plot it, keep it.

In    what a solver found (an `Approximation`), the problem, the verdict, the figures.
Out   `Solution`: fields as functions of named coordinates.
Next  the user.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from pinnkit.declare.operators import NormalDerivative
from pinnkit.declare.printing import show
from pinnkit.errors import Evidence, Status, UnsupportedProblemError
from pinnkit.ir.normal_form import NormalForm
from pinnkit.solution import learned
from pinnkit.solution.answer import Approximation, Uncertain
from pinnkit.solution.arguments import broadcast_arguments, grid_axes
from pinnkit.solution.candidates import Candidate, make_candidate
from pinnkit.solution.derived import Evaluation
from pinnkit.solution.estimate import Estimate, Stats, solver_name
from pinnkit.solution.evaluate import (
    FieldExpressions,
    field_name,
    field_values,
    in_problem_symbols,
    residual_columns,
    user_fields,
)
from pinnkit.solution.metrics import Values, compare, error_at_instants, error_in_time
from pinnkit.solution.verification import JUDGING, Verification, judge
from pinnkit.train.callbacks import History

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.figure import Figure

__all__ = ["Evaluation", "FieldErrors", "Snapshot", "Solution", "as_candidate", "candidate_of"]


@dataclasses.dataclass(frozen=True, eq=False)
class Snapshot:
    """Where training stood, so that `resume=sol` goes on: the solver's state and the random generator's."""

    step: int
    state: dict[str, Any]
    generator: Tensor
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)


class FieldErrors(Mapping[str, float]):
    """Relative errors by field, as the solve's own check found them; call it with a reference for others."""

    def __init__(self, solution: Solution, errors: Mapping[str, float]) -> None:
        self._solution, self._errors = solution, dict(errors)

    def __getitem__(self, field: str | sp.Expr) -> float:
        return self._errors[field if isinstance(field, str) else field_name(field)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._errors)

    def __len__(self) -> int:
        return len(self._errors)

    def __call__(self, reference: Any) -> dict[str, float]:
        """Per field the relative L2 difference from `reference` (see `Solution.error`)."""
        return self._solution._compare(reference).errors

    def __repr__(self) -> str:
        return repr(self._errors)


class Solution:
    """An answer that can be called and that says how wrong it is.

    `sol(t=0.5, x=[0.1, 0.2])` gives one array for one field, a dict by name for several; numbers,
    lists and arrays broadcast, torch tensors give differentiable tensors. `sol[u.diff(x)]` is any
    expression in fields, derivatives and coordinates, to be called the same way.

    `status`, `ok`, `evidence`, `error_estimate` (E, relative; None where nothing bounds it),
    `errors` (per field), `verification` say how good it is; `stats`, `history`, `solver`,
    `problem`, `parameters` how it came about.
    """

    def __init__(
        self,
        *,
        problem: Any,
        normal_form: NormalForm,
        solver: Any,
        approximation: Approximation,
        status: Status,
        verification: Verification,
        parameters: Mapping[sp.Symbol, Estimate],
        history: History,
        stats: Stats,
        snapshot: Snapshot | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.problem, self.solver, self.normal_form = problem, solver, normal_form
        self.approximation, self.status, self.verification = approximation, status, verification
        self.parameters, self.history, self.stats = dict(parameters), history, stats
        self.snapshot = snapshot
        self.device, self.dtype = torch.device(device), dtype
        fields = normal_form.fields
        self._fields = (
            FieldExpressions(normal_form, user_fields(normal_form), {}) if fields else None
        )

    # --- how good it is -------------------------------------------------------------------------

    @property
    def ok(self) -> bool | None:
        """True exactly when an independent look found the error below the tolerance.

        None for a model of data alone, which nothing can judge.
        """
        return None if self.status is Status.NO_GROUND_TRUTH else self.status.ok

    @property
    def evidence(self) -> Evidence:
        """Where `error_estimate` comes from."""
        return self.verification.evidence

    @property
    def error_estimate(self) -> float | None:
        """E: relative L2 error plus the reference's own; None where only a residual is known."""
        judged = self.evidence in JUDGING and not math.isnan(self.verification.error)
        return self.verification.error if judged else None

    @property
    def errors(self) -> FieldErrors:
        """E per field; `sol.errors(reference)` against another reference."""
        return FieldErrors(self, self.verification.errors)

    def error(self, reference: Any) -> float:
        """Relative L2 difference in space and time from `reference`, the largest over the fields.

        Args:
            reference: sympy expression, {field: expression or callable}, callable(**coords),
                nn.Module, Solution, or xarray object (compared on its own grid).
        """
        return self._compare(reference).error

    def verify(self, *, tol: float | None = None, time_limit: float = 75.0) -> Verification:
        """Judge this solution independently (again, if the solve has already done it at this tol)."""
        done = self.verification
        if done.evidence in (Evidence.EXACT, Evidence.REFERENCE) and tol in (None, done.tol):
            return done
        return judge(
            self.normal_form,
            as_candidate(self),
            tol=self.verification.tol if tol is None else tol,
            time_limit=time_limit,
            parameters={p: e.value for p, e in self.parameters.items()},
        )

    def horizon(
        self, tol: float = 1e-3, *, reference: Any = None, time_limit: float = 75.0
    ) -> float:
        """The time up to which the error at each instant is below `tol` (for chaotic systems).

        What the reference itself may be wrong by at an instant is added to the difference from it
        (`error_at_instants`), so that a coarse reference shortens the claim.

        Args:
            tol: Relative to the field's rms over all times.
            reference: As in `error`; None takes the independent solve. Its own error is known where
                it is a Solution; anything else is taken as exact.
            time_limit: Seconds for that solve.
        """
        nf = self.normal_form
        if nf.time is None:
            raise ValueError("a steady problem has no horizon")
        if reference is None:
            judged = self.verification
            if judged.reference is None:
                judged = self.verify(time_limit=time_limit)
            if judged.reference is None:
                raise UnsupportedProblemError(
                    f"no independent solve is known ({self.verification.reason}); pass reference="
                )
            values, own = _values(nf, judged.reference), judged.reference_error
        else:
            values = make_candidate(nf, as_candidate(reference, nf)).values
            own = (reference.error_estimate or 0.0) if isinstance(reference, Solution) else 0.0
        times = np.linspace(*nf.bounds[nf.time], 201)
        errors = error_in_time(nf, as_candidate(self).values, values, times)
        errors += error_at_instants(own, times)
        above = np.flatnonzero(~(errors <= tol))
        return float(times[-1] if len(above) == 0 else times[max(above[0] - 1, 0)])

    def residual(self, points: Any) -> np.ndarray:
        """Left minus right side of every equation in the user's units: (n, e).

        Args:
            points: (n, d) in the order of `problem.coords`, or {coordinate or name: (n,)}.
        """
        nf = self.normal_form
        if isinstance(points, Mapping):
            named = {str(k): v for k, v in points.items()}
        else:
            array = np.asarray(points, dtype=float)
            if array.ndim != 2 or array.shape[1] != len(nf.coords):
                raise ValueError(
                    f"points have shape {array.shape}; expected (n, {len(nf.coords)}) in the order "
                    f"{', '.join(map(str, nf.coords))}"
                )
            named = {str(c): array[:, i] for i, c in enumerate(nf.coords)}
        placed = broadcast_arguments(
            nf, nf.coords, named, extrapolate=False, device=self.device, dtype=self.dtype
        )
        values = {p: e.value for p, e in self.parameters.items()}
        return residual_columns(nf, self.approximation, placed.points.detach(), values)

    # --- the fields as functions ----------------------------------------------------------------

    def __call__(self, /, *, extrapolate: bool = False, **coords: Any) -> Any:
        """All fields at the coordinates: an array for one field, a dict by name for several."""
        if self._fields is None:
            raise ValueError("the problem has no fields")
        values = self._evaluate(self._fields, coords, extrapolate)
        names = [field_name(f) for f in user_fields(self.normal_form)]
        return values[0] if len(names) == 1 else dict(zip(names, values, strict=True))

    def __getitem__(self, expr: Any) -> Evaluation:
        if isinstance(expr, str):
            raise TypeError(f"sol[...] takes a field or an expression, not the string {expr!r}")
        return Evaluation(self, _one_expression(expr))

    def grid(self, **sizes: Any) -> Any:
        """The fields on a tensor grid: `sol.grid(t=101, x=201)`.

        An xarray DataArray for one field, a Dataset for several. Coordinates are given as a number
        of equidistant values (ends included) or as the values themselves; those not named get a
        default number.
        """
        data = self.to_xarray(**sizes)
        names = [field_name(f) for f in user_fields(self.normal_form)]
        return data[names[0]] if len(names) == 1 else data

    def std(self, *, field: sp.Expr | None = None, extrapolate: bool = False, **coords: Any) -> Any:
        """Standard deviation of a field, where the method knows one."""
        uncertain, index = self._uncertain("std", field)
        placed = self._place(coords, extrapolate)
        return placed.back(uncertain.std(placed.points, index))

    def sample(
        self, n: int = 1, *, field: sp.Expr | None = None, seed: int = 0, **coords: Any
    ) -> Any:
        """`n` joint draws of a field, first axis n; without coordinates on a default grid."""
        uncertain, index = self._uncertain("sample", field)
        if not coords:
            axes = grid_axes(self.normal_form, {})
            grids = np.meshgrid(*axes.values(), indexing="ij")
            coords = dict(zip(axes, grids, strict=True))
        placed = self._place(coords, False)
        draws = uncertain.sample(placed.points, index, n, seed)
        return np.stack([placed.back(draw) for draw in draws])

    @property
    def module(self) -> torch.nn.Module:
        """The learned equation y' = F(t, y) as a torch module (`NeuralODE`)."""
        return learned.module_of(self)

    def run(self, index: int) -> Solution:
        """The same law along another observed run (`NeuralODE`); the solution itself is run 0."""
        return learned.along_run(self, index)

    def read(self, term: sp.Symbol, library: Sequence[sp.Expr], **knobs: Any) -> sp.Expr:
        """A learned term written down: see `pinnkit.sparse_reading`."""
        return learned.sparse_reading(self, term, library, **knobs)

    # --- pictures and files ---------------------------------------------------------------------

    def plot(self, *, reference: Any = None) -> Figure:
        """A matplotlib figure: the fields, slices, the residual, the error where it is known."""
        from pinnkit.solution import plots

        return plots.plot(self, reference=reference)

    def animate(self, *, frames: int = 60, seconds: float = 5.0) -> FuncAnimation:
        """A matplotlib animation over time."""
        from pinnkit.solution import plots

        return plots.animate(self, frames=frames, seconds=seconds)

    def to_xarray(self, **sizes: Any) -> Any:
        """An xarray Dataset on a tensor grid, with units where they were declared."""
        from pinnkit.solution import export

        return export.to_xarray(self, sizes)

    def to_vtk(self, path: str | PathLike[str], **sizes: Any) -> None:
        """Legacy VTK files of a 2-D or 3-D problem, one per time for evolution problems."""
        from pinnkit.solution import export

        export.to_vtk(self, path, sizes)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a `.pinn` file (JSON and tensors, nothing executable); `pk.load` reads it."""
        from pinnkit.solution import files

        files.save(self, path)

    def __str__(self) -> str:
        from pinnkit.solution import summary

        return summary.describe(self)

    def __repr__(self) -> str:
        known = "" if self.error_estimate is None else f", E={self.error_estimate:.2e}"
        names = ", ".join(map(str, user_fields(self.normal_form)))
        return f"<Solution of {names}: {self.status.name}, {self.evidence.name}{known}>"

    # --- within ---------------------------------------------------------------------------------

    def _compare(self, reference: Any) -> Any:
        mine = as_candidate(self)
        other = make_candidate(
            self.normal_form, as_candidate(reference, self.normal_form), partial=True
        )
        return compare(self.normal_form, mine.values, other.values, quadrature=other.quadrature)

    def _evaluate(
        self, compiled: FieldExpressions, coords: Mapping[str, Any], extrapolate: bool
    ) -> list[Any]:
        placed = broadcast_arguments(
            self.normal_form,
            compiled.coords,
            coords,
            extrapolate=extrapolate,
            device=self.device,
            dtype=self.dtype,
        )
        if placed.tensors:
            return [placed.back(v) for v in compiled(self.approximation, placed.points)]
        return [placed.back(v) for v in compiled.numpy(self.approximation, placed.points)]

    def _place(
        self,
        coords: Mapping[str, Any],
        extrapolate: bool,
        needed: Sequence[sp.Symbol] | None = None,
    ) -> Any:
        nf = self.normal_form
        return broadcast_arguments(
            nf,
            nf.coords if needed is None else needed,
            coords,
            extrapolate=extrapolate,
            device=self.device,
            dtype=self.dtype,
        )

    def _distribution(self, what: str) -> Uncertain:
        if not isinstance(self.approximation, Uncertain):
            raise UnsupportedProblemError(
                f"{solver_name(self.solver)} gives one answer without a distribution, so sol.{what} "
                "has nothing to say; sol.error_estimate tells how wrong the answer is"
            )
        return self.approximation

    def _uncertain(self, what: str, field: sp.Expr | None) -> tuple[Uncertain, int]:
        uncertain, nf = self._distribution(what), self.normal_form
        if field is None:
            if len(nf.fields) != 1:
                raise TypeError(f"sol.{what} needs field=, one of {', '.join(map(str, nf.fields))}")
            return uncertain, 0
        return uncertain, nf.fields.index(in_problem_symbols(nf, field))


def _one_expression(expr: Any) -> Any:
    """What may stand in `sol[...]`: one expression, or a relation between two."""
    several = (list, tuple, dict, set, sp.Tuple, sp.MatrixBase, np.ndarray)
    if isinstance(expr, several):
        raise TypeError("sol[...] takes one expression; write sol[u] and sol[u.diff(x)] apart")
    try:
        found = sp.sympify(expr)
    except sp.SympifyError:
        found = None
    if not isinstance(found, (sp.Expr, sp.logic.boolalg.Boolean)):
        raise TypeError(f"sol[...] takes a field or an expression, not {expr!r}")
    if found.has(NormalDerivative):
        raise ValueError(
            f"{show(found)} is a derivative along the outward normal, which only a boundary has; "
            "write a derivative such as u.diff(x)"
        )
    if found.has(sp.Integral, sp.Sum):
        raise ValueError(
            f"{show(found)} is an integral or sum; take values on a grid, sol.grid(...), and sum "
            "them with weights"
        )
    return found


def candidate_of(
    nf: NormalForm, approximation: Approximation, device: torch.device, dtype: torch.dtype
) -> Candidate:
    """A solver's answer as something to be judged, whatever device it lives on."""
    here = approximation
    if device.type != "cpu" or dtype != torch.float64:
        here = _Moved(approximation, device, dtype)
    return Candidate(
        lambda points: field_values(nf, here, points),
        here,
        classical=approximation.kind == "grid",
        names=tuple(field_name(f) for f in user_fields(nf)),
    )


def as_candidate(thing: Any, nf: NormalForm | None = None) -> Any:
    """A `Solution` as a `Candidate`, at points of the problem `nf` (None: its own); else as it is."""
    if not isinstance(thing, Solution):
        return thing
    own = thing.normal_form
    candidate = candidate_of(own, thing.approximation, thing.device, thing.dtype)
    if nf is None or nf is own:
        return candidate
    return _at_points_of(nf, own, candidate)


def _at_points_of(nf: NormalForm, own: NormalForm, candidate: Candidate) -> Candidate:
    """The candidate of another problem with columns by name: coordinates may be in another order."""
    names = [str(c) for c in nf.coords]
    for c in own.coords:
        if str(c) not in names:
            raise ValueError(
                f"the solution depends on {c}, which is no coordinate of this problem; "
                f"its coordinates are {', '.join(names)}"
            )
        lower, upper = nf.bounds[nf.coords[names.index(str(c))]]
        low, high = own.bounds[c]
        slack = 1e-9 * (upper - lower)
        if c not in own.periodic and (low > lower + slack or high < upper - slack):
            raise ValueError(
                f"the solution is known for {low:g} <= {c} <= {high:g}, the problem asks for "
                f"{lower:g} <= {c} <= {upper:g}: nothing could be said about the rest"
            )
    columns = [names.index(str(c)) for c in own.coords]

    def values(points: np.ndarray) -> Mapping[str, np.ndarray]:
        theirs = np.array(points[:, columns])
        for i, c in enumerate(own.coords):
            if c in own.periodic:
                lower, upper = own.bounds[c]
                theirs[:, i] = lower + np.mod(theirs[:, i] - lower, upper - lower)
        return candidate.values(theirs)

    # Derivatives are asked for by the place of field and coordinate: only if these agree.
    same = own.coords == nf.coords and own.fields == nf.fields and own.bounds == nf.bounds
    return dataclasses.replace(
        candidate,
        values=candidate.values if same else values,
        approximation=candidate.approximation if same else None,
    )


class _Moved:
    """An approximation on another device or in another precision, asked in float64 on the CPU."""

    def __init__(
        self, approximation: Approximation, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._there, self._device, self._dtype = approximation, device, dtype
        self.kind = approximation.kind

    def derivatives(self, points: Tensor, wanted: Any) -> list[Tensor]:
        """See `Approximation`."""
        there = points.to(self._device, self._dtype)
        return [v.to(points) for v in self._there.derivatives(there, wanted)]

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """See `Approximation`."""
        return self._there.to_state()

    @classmethod
    def from_state(cls, spec: dict[str, Any], tensors: dict[str, Tensor], nf: NormalForm) -> _Moved:
        """Never saved under its own name."""
        raise NotImplementedError


def _values(nf: NormalForm, approximation: Approximation) -> Values:
    return lambda points: field_values(nf, approximation, points)
