"""Anyone's answer as something that can be judged: sympy, callable, nn.Module, Solution, xarray.

In    what a user passes to `pk.verify(problem, candidate)` or `sol.error(reference)`.
Out   a `Candidate`: values at points, and an `Approximation` where derivatives are known.
Next  `solution.verification` judges it, `solution.metrics` compares it.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp
import torch
from sympy.core.function import AppliedUndef
from torch import Tensor, nn

from pinnkit.errors import UnsupportedProblemError
from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.expressions import compile_expressions
from pinnkit.solution.answer import Approximation
from pinnkit.solution.evaluate import field_name, field_values, in_problem_symbols, user_fields
from pinnkit.solution.metrics import Quadrature, Values

__all__ = ["Candidate", "ExpressionApproximation", "ModuleApproximation", "make_candidate"]


@dataclass(frozen=True, eq=False)
class Candidate:
    """`values` at any points; `approximation` where derivatives are known too.

    `quadrature` is set where the candidate is known on a grid only; `classical` where it came from
    our own reference, which must then be judged by another one.
    """

    values: Values
    approximation: Approximation | None = None
    quadrature: Quadrature | None = None
    classical: bool = False
    names: tuple[str, ...] = ()


class ExpressionApproximation:
    """Fields given by expressions in the coordinates; derivatives by sympy."""

    kind: str = "expression"

    def __init__(self, nf: NormalForm, exprs: Mapping[sp.Expr, sp.Expr]) -> None:
        self.nf = nf
        self.exprs = _real_expressions(nf, exprs)
        self._compiled: dict[
            tuple[tuple[int, tuple[int, ...]], ...], Callable[..., list[Tensor]]
        ] = {}

    def derivatives(
        self, points: Tensor, wanted: Sequence[tuple[int, tuple[int, ...]]]
    ) -> list[Tensor]:
        """See `Approximation`."""
        key = tuple((i, tuple(a)) for i, a in wanted)
        if key not in self._compiled:
            self._compiled[key] = compile_expressions(
                [self._derivative(i, a) for i, a in key], self.nf.coords
            )
        columns = self._compiled[key](points.unbind(1))
        return [c.to(points.dtype).expand(len(points)) for c in columns]

    def _derivative(self, index: int, orders: tuple[int, ...]) -> sp.Expr:
        expr = self.exprs[index]
        for coord, order in zip(self.nf.coords, orders, strict=True):
            expr = expr.diff(coord, order) if order else expr
        return expr

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Not saved: an expression is its own file."""
        raise NotImplementedError("an expression is not saved as a solution; keep the expression")

    @classmethod
    def from_state(
        cls, spec: dict[str, Any], tensors: dict[str, Tensor], nf: NormalForm
    ) -> ExpressionApproximation:
        """See `to_state`."""
        raise NotImplementedError("an expression is not saved as a solution; keep the expression")


class ModuleApproximation:
    """A module (n, d) -> (n, m), columns in the order of the problem's real fields; by autograd."""

    kind: str = "module"

    def __init__(self, nf: NormalForm, module: nn.Module) -> None:
        self.nf, self.module = nf, module
        first = next(module.parameters(), None)
        self._like = torch.empty(0, dtype=torch.float64) if first is None else first

    def derivatives(
        self, points: Tensor, wanted: Sequence[tuple[int, tuple[int, ...]]]
    ) -> list[Tensor]:
        """See `Approximation`."""
        keep = torch.is_grad_enabled() and points.requires_grad
        deepest = max((sum(a) for _, a in wanted), default=0)
        with torch.enable_grad() if deepest or keep else torch.no_grad():
            inputs = points.to(self._like)
            inputs = inputs if inputs.requires_grad else inputs.detach().requires_grad_(deepest > 0)
            output = self._call(inputs)
            output = output[:, None] if output.ndim == 1 else output
            if output.shape != (len(points), len(self.nf.fields)):
                raise ValueError(
                    f"the module maps {tuple(points.shape)} to {tuple(output.shape)}; expected "
                    f"{(len(points), len(self.nf.fields))}: one column each for {_listed(self.nf.fields)}"
                )
            columns = [self._derivative(output[:, i], inputs, a) for i, a in wanted]
        return [(c if keep else c.detach()).to(points) for c in columns]

    def _call(self, inputs: Tensor) -> Tensor:
        takes = f"(n, {len(self.nf.coords)}), the coordinates {_listed(self.nf.coords)} as columns"
        try:
            output = self.module(inputs)
        except RuntimeError as fault:
            raise ValueError(f"the module fails on points of the shape {takes}: {fault}") from fault
        if not isinstance(output, Tensor):
            raise TypeError(
                f"the module gives a {type(output).__name__} for points of the shape {takes}; "
                "expected one tensor, a column per field"
            )
        return output

    def _derivative(self, column: Tensor, inputs: Tensor, orders: Sequence[int]) -> Tensor:
        for axis, order in enumerate(orders):
            for _ in range(order):
                if not column.requires_grad:  # constant in the inputs
                    return torch.zeros_like(column)
                (gradient,) = torch.autograd.grad(
                    column.sum(), inputs, create_graph=True, materialize_grads=True
                )
                column = gradient[:, axis]
        return column

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Not saved: the module is the user's."""
        raise NotImplementedError("a user's module is not saved here; use torch.save")

    @classmethod
    def from_state(
        cls, spec: dict[str, Any], tensors: dict[str, Tensor], nf: NormalForm
    ) -> ModuleApproximation:
        """See `to_state`."""
        raise NotImplementedError("a user's module is not saved here; use torch.save")


def make_candidate(nf: NormalForm, thing: Any, *, partial: bool = False) -> Candidate:
    """Whatever the user passed as a `Candidate`.

    Args:
        nf: The problem it claims to solve.
        thing: sympy expression or number, {field: expression or callable}, callable(**coords),
            nn.Module, xarray object, or a `Candidate` (what a `Solution` turns itself into).
        partial: Whether some fields may be missing (a reference may know only some).
    """
    if isinstance(thing, Candidate):
        candidate = thing
    elif isinstance(thing, nn.Module):
        candidate = _from_approximation(nf, ModuleApproximation(nf, thing))
    elif _is_xarray(thing):
        candidate = _from_xarray(nf, thing)
    elif isinstance(thing, Mapping):
        candidate = _from_mapping(nf, thing)
    elif isinstance(thing, (sp.Basic, int, float, complex)):
        (only,) = _single(nf, "one expression")
        candidate = _from_mapping(nf, {only: thing})
    elif callable(thing):
        candidate = _from_callable(nf, thing)
    else:
        raise TypeError(
            f"cannot judge a {type(thing).__name__}; pass a sympy expression, {{field: expression}}, "
            "a callable of the coordinates, a torch module, a Solution or an xarray object"
        )
    names = {field_name(f) for f in user_fields(nf)}
    missing = names - set(candidate.names)
    if (missing and not partial) or missing == names:
        raise ValueError(f"nothing is given for {', '.join(sorted(missing))}")
    return candidate


def _from_approximation(nf: NormalForm, approximation: Approximation) -> Candidate:
    return Candidate(
        lambda points: field_values(nf, approximation, points),
        approximation,
        names=tuple(field_name(f) for f in user_fields(nf)),
    )


def _from_mapping(nf: NormalForm, given: Mapping[Any, Any]) -> Candidate:
    """{field or its name: expression or callable}."""
    by_name = {field_name(f): f for f in user_fields(nf)}
    entries: dict[str, Any] = {}
    for key, value in given.items():
        name = key if isinstance(key, str) else field_name(key)
        if name not in by_name:
            raise ValueError(
                f"{key} is no field of the problem; its fields are {', '.join(by_name)}"
            )
        entries[name] = value
    symbolic: dict[str, Any] = {
        name: sp.sympify(value)
        for name, value in entries.items()
        if isinstance(value, (sp.Basic, int, float, complex))
    }
    if len(symbolic) == len(by_name):
        try:
            return _from_approximation(
                nf, ExpressionApproximation(nf, {by_name[n]: e for n, e in symbolic.items()})
            )
        except (NotImplementedError, UnsupportedProblemError):
            pass  # a function torch lacks (Airy, ...): values by scipy, no derivatives
    functions = {
        name: _numeric(nf, symbolic[name]) if name in symbolic else entries[name]
        for name in entries
    }

    for n, function in functions.items():
        _check_callable(nf, function, f"the value for {n}")

    def values(points: np.ndarray) -> dict[str, np.ndarray]:
        keywords = _keywords(nf, points)
        return {n: _column(f(**keywords), len(points), n) for n, f in functions.items()}

    return Candidate(values, names=tuple(entries))


def _from_callable(nf: NormalForm, function: Callable[..., Any]) -> Candidate:
    names = tuple(field_name(f) for f in user_fields(nf))
    _check_callable(nf, function, "the callable")

    def values(points: np.ndarray) -> dict[str, np.ndarray]:
        result = function(**_keywords(nf, points))
        if isinstance(result, Mapping):
            given = {k if isinstance(k, str) else field_name(k): v for k, v in result.items()}
        elif len(names) == 1:
            given = {names[0]: result}
        elif isinstance(result, (tuple, list)) and len(result) == len(names):
            given = dict(zip(names, result, strict=True))
        else:
            raise ValueError(
                f"the callable gives one array, but the problem has the fields {', '.join(names)}; "
                "return a dict by name"
            )
        missing = set(names) - set(given)
        if missing:
            raise ValueError(f"the callable gives nothing for {', '.join(sorted(missing))}")
        return {n: _column(given[n], len(points), n) for n in names}

    return Candidate(values, names=names)


def _from_xarray(nf: NormalForm, data: Any) -> Candidate:
    """Known on its own grid only: compared there, with trapezoidal weights."""
    by_name = {field_name(f): f for f in user_fields(nf)}
    if hasattr(data, "data_vars"):
        arrays = {str(n): data[n] for n in data.data_vars if str(n) in by_name}
    else:
        only = str(data.name) if data.name in by_name else field_name(_single(nf, "one array")[0])
        arrays = {only: data}
    if not arrays:
        raise ValueError(f"the data hold none of the fields {', '.join(by_name)}")
    axes, weights = [], []
    for c in nf.coords:
        holder = next((a for a in arrays.values() if str(c) in a.dims), None)
        if holder is None:
            if any(c in by_name[n].args for n in arrays):
                raise ValueError(
                    f"the data have no dimension {c}: they hold one place or instant, and nothing "
                    f"could be said about the rest; their dimensions must be named "
                    f"{_listed(nf.coords)}"
                )
            axes.append(np.array([0.5 * sum(nf.bounds[c])]))
            weights.append(np.ones(1))
            continue
        nodes = np.asarray(holder[str(c)].values, dtype=float)
        if (np.diff(nodes) <= 0).any():
            raise ValueError(f"the data's coordinate {c} must increase")
        _check_cover(nf, c, nodes)
        axes.append(nodes)
        weights.append(_trapezoid(nodes))
    rule = Quadrature.tensor(axes, weights, given=True)

    def values(points: np.ndarray) -> dict[str, np.ndarray]:
        index = tuple(
            np.searchsorted(nodes, points[:, i] - 1e-12 * (np.ptp(nodes) or 1.0))
            for i, nodes in enumerate(axes)
        )
        result = {}
        for name, array in arrays.items():
            present = [c for c in nf.coords if str(c) in array.dims]
            block = array.transpose(*map(str, present)).values
            result[name] = block[tuple(index[nf.coords.index(c)] for c in present)]
        return result

    return Candidate(values, quadrature=rule, names=tuple(arrays))


def _check_cover(nf: NormalForm, c: sp.Symbol, nodes: np.ndarray) -> None:
    lower, upper = nf.bounds[c]
    slack = 1.001 * float(np.diff(nodes).max()) if len(nodes) > 1 else 0.0
    if nodes[0] > lower + slack or nodes[-1] < upper - slack:
        raise ValueError(
            f"the data cover {nodes[0]:g} <= {c} <= {nodes[-1]:g}, the problem {lower:g} <= {c} <= "
            f"{upper:g}: nothing could be said about the rest"
        )
    if nodes[0] < lower - 1e-9 * (upper - lower) or nodes[-1] > upper + 1e-9 * (upper - lower):
        raise ValueError(
            f"the data cover {nodes[0]:g} <= {c} <= {nodes[-1]:g}, beyond the problem's "
            f"{lower:g} <= {c} <= {upper:g}; select the part inside first"
        )


def _trapezoid(nodes: np.ndarray) -> np.ndarray:
    if len(nodes) == 1:
        return np.ones(1)
    gaps = np.diff(nodes)
    return 0.5 * (np.append(gaps, 0.0) + np.insert(gaps, 0, 0.0))


def _numeric(nf: NormalForm, expr: sp.Expr) -> Callable[..., Any]:
    expr = in_problem_symbols(nf, expr)
    _check_symbols(nf, expr)
    function = sp.lambdify(nf.coords, expr, modules=["scipy", "numpy"])
    return lambda **coords: function(*(coords[str(c)] for c in nf.coords))


def _real_expressions(nf: NormalForm, exprs: Mapping[sp.Expr, sp.Expr]) -> list[sp.Expr]:
    """One expression per real field of `nf`."""
    result: dict[sp.Expr, sp.Expr] = {}
    for f, value in exprs.items():
        expr = in_problem_symbols(nf, value).doit()
        _check_symbols(nf, expr)
        if f in nf.complex_fields:
            parts = expr.as_real_imag()
            result.update(zip(nf.complex_fields[f], parts, strict=True))
        else:
            if expr.has(sp.I) and sp.simplify(sp.im(expr)) != 0:
                raise ValueError(f"{f} is a real field, but {expr} is complex")
            result[f] = sp.re(expr) if expr.has(sp.I) else expr
    return [result[f] for f in nf.fields]


def _check_symbols(nf: NormalForm, expr: sp.Expr) -> None:
    unknown = (expr.free_symbols - set(nf.coords)) | expr.atoms(AppliedUndef)
    if unknown:
        raise ValueError(
            f"{expr} contains {', '.join(sorted(map(str, unknown)))}; a candidate may contain only "
            f"the coordinates {', '.join(map(str, nf.coords))}"
        )


def _keywords(nf: NormalForm, points: np.ndarray) -> dict[str, np.ndarray]:
    return {str(c): points[:, i] for i, c in enumerate(nf.coords)}


def _check_callable(nf: NormalForm, function: Any, what: str) -> None:
    """It is called with every coordinate by name: a fault is found here, not deep in a check."""
    if not callable(function):
        raise TypeError(
            f"{what} is a {type(function).__name__}; pass a sympy expression or a callable"
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins do not tell
        return
    names = [str(c) for c in nf.coords]
    try:
        signature.bind(**dict.fromkeys(names))
    except TypeError as fault:
        raise TypeError(
            f"{what} is called with the coordinates by name, f({', '.join(f'{n}=...' for n in names)})"
            f", but takes {signature}: {fault}"
        ) from None


def _column(value: Any, n: int, name: str) -> np.ndarray:
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    # sympy numbers, say; numpy would turn None into nan.
    if array.dtype == object and all(v is not None for v in array.flat):
        with contextlib.suppress(TypeError, ValueError):
            array = array.astype(complex)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"the values for {name} are no numbers, but {value!r:.60}")
    try:
        return np.broadcast_to(array, (n,))
    except ValueError:
        raise ValueError(
            f"the values for {name} have shape {array.shape}; expected ({n},) for {n} points"
        ) from None


def _listed(things: Sequence[sp.Basic]) -> str:
    return ", ".join(map(str, things))


def _single(nf: NormalForm, what: str) -> tuple[sp.Expr]:
    fields = user_fields(nf)
    if len(fields) != 1:
        listed = ", ".join(map(str, fields))
        raise ValueError(f"{what} is given, but the problem has the fields {listed}; pass a dict")
    return (fields[0],)


def _is_xarray(thing: Any) -> bool:
    xarray = sys.modules.get("xarray")  # if it was never imported, `thing` is none of its objects
    return xarray is not None and isinstance(thing, (xarray.DataArray, xarray.Dataset))
