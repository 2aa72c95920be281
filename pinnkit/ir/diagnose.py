"""What can be said about a problem before it is solved.

In    a validated `PDESystem`.
Out   `Diagnosis`: classification, orders, dimensionless groups, layers, corners, conserved
      quantities, and what will be hard; str() prints it.
Next  users read it; nothing depends on it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp

from pinnkit.declare.operators import Div
from pinnkit.declare.printing import show, show_number
from pinnkit.declare.symbols import Parameter
from pinnkit.ir.classify import linear_coefficients
from pinnkit.ir.leaves import derivative_count, field_of, freeze, leaves, steps_of
from pinnkit.ir.normal_form import Equation, NormalForm
from pinnkit.ir.sampling import evaluate, sample_box

if TYPE_CHECKING:
    from pinnkit.declare.problem import PDESystem

__all__ = ["Diagnosis", "diagnose"]


@dataclass(frozen=True)
class Diagnosis:
    """Findings about a problem, each a list of sentences or numbers."""

    kind: str
    orders: Mapping[str, str]
    groups: Mapping[str, float]  # "u*u.diff(x) against u.diff(x, 2) (equation 1)" -> ratio
    layers: tuple[str, ...]
    corners: tuple[str, ...]
    conserved: tuple[str, ...]
    jumps: tuple[str, ...]
    hard: tuple[str, ...]

    def __str__(self) -> str:
        lines = [self.kind]
        lines += [f"  {name}: {what}" for name, what in self.orders.items()]
        if self.groups:
            lines.append("dimensionless groups (ratio of the sizes of two terms)")
            lines += [f"  {name}: {show_number(v)}" for name, v in self.groups.items()]
        for title, found in (
            ("layers", self.layers),
            ("jumps", self.jumps),
            ("corners", self.corners),
            ("conserved", self.conserved),
            ("hard", self.hard),
        ):
            if found:
                lines.append(title)
                lines += [f"  {f}" for f in found]
        if not self.hard:
            lines.append("nothing looks hard")
        return "\n".join(lines)


def diagnose(system: PDESystem) -> Diagnosis:
    """Look at a problem before solving it; takes a fraction of a second, solves nothing."""
    nf = system.normal_form
    sizes = _leaf_sizes(nf)
    groups: dict[str, float] = {}
    layers: list[str] = []
    for e in nf.equations:
        _compare_terms(e, nf, sizes, groups, layers)
    orders = {show(u): _orders_of(u, nf) for u in nf.fields}
    corners = tuple(
        f"{label}: derivative {order} differs by {show_number(size)}"
        for label, order, size in nf.corners
    )
    jumps = tuple(f"a coefficient jumps where {show(g)} = 0" for g in nf.jumps)
    conserved = tuple(_conserved(nf))
    return Diagnosis(
        kind=_kind(nf),
        orders=orders,
        groups=groups,
        layers=tuple(layers),
        corners=corners,
        conserved=conserved,
        jumps=jumps,
        hard=tuple(_hard(nf, groups, layers)),
    )


def _kind(nf: NormalForm) -> str:
    p = nf.predicates
    words = ["linear" if p.linear else "semilinear" if p.semilinear else "quasi-linear"]
    if not nf.space:
        words.append("ordinary differential equation" + ("s" if len(nf.fields) > 1 else ""))
    else:
        words.append(_type(nf))
        words.append("equation" if len(nf.equations) == 1 else f"system of {len(nf.equations)}")
    where = f"in {len(nf.space)} space dimension(s)" if nf.space else "in time"
    if p.evolution and nf.space:
        where += " and time"
    if nf.periodic:
        where += f", periodic along {', '.join(map(str, nf.periodic))}"
    extra = ", constant coefficients" if p.constant_coefficients else ", variable coefficients"
    return f"{' '.join(words)} {where}{extra}"


def _type(nf: NormalForm) -> str:
    """Rough type from the orders: the words physicists use."""
    p = nf.predicates
    time_order = max(p.time_order.values(), default=0)
    space_order = max(p.space_order.values(), default=0)
    if not p.evolution:
        return "elliptic" if space_order % 2 == 0 else "first-order steady"
    if nf.complex_fields:
        return "dispersive (Schroedinger type)"
    if time_order >= 2:
        return "hyperbolic (waves)" if space_order <= 2 else "dispersive (beam type)"
    if space_order == 0:
        return "reaction"
    if space_order == 1:
        return "hyperbolic (transport)"
    return "parabolic (diffusion)" if space_order % 2 == 0 else "dispersive"


def _orders_of(u: sp.Expr, nf: NormalForm) -> str:
    p = nf.predicates
    parts = []
    if nf.time is not None and nf.time in u.args:
        k = p.time_order[u]
        parts.append(f"order {k} in {nf.time}" if k else f"no derivative in {nf.time} (algebraic)")
    parts += [f"order {p.space_order[u, c]} in {c}" for c in nf.space if (u, c) in p.space_order]
    return ", ".join(parts)


def _field_size(u: sp.Expr, nf: NormalForm) -> float:
    """From the data: the user's scale, else the largest prescribed value, else 1."""
    if u in nf.scales:
        return nf.scales[u]
    points = sample_box(nf.coords, nf.bounds, 200, seed=9)
    found = []
    for c in nf.conditions:
        if c.target == u and c.value is not None:
            found.append(_largest(c.value, points))
    return max(found, default=0.0) or 1.0


def _largest(expr: sp.Expr, points: Mapping[sp.Symbol, np.ndarray]) -> float:
    guesses = {p: p.guess for p in expr.free_symbols if isinstance(p, Parameter)}
    numbers = np.abs(evaluate(expr, {**points, **guesses}))
    numbers = numbers[np.isfinite(numbers)]
    return float(numbers.max(initial=0.0))


def _length(c: sp.Symbol, nf: NormalForm) -> float:
    """A natural length: half the extent, or 1/(2 pi) of a period."""
    low, high = nf.bounds[c]
    return (high - low) / (2 * np.pi) if c in nf.periodic else 0.5 * (high - low)


def _leaf_sizes(nf: NormalForm) -> dict[sp.Expr, float]:
    sizes: dict[sp.Expr, float] = {}
    for lf in leaves(*(e.residual for e in nf.equations)):
        size = _field_size(field_of(lf), nf)
        for c in nf.coords:
            size /= _length(c, nf) ** derivative_count(lf, c)
        sizes[lf] = size
    return sizes


def _compare_terms(
    equation: Equation,
    nf: NormalForm,
    sizes: Mapping[sp.Expr, float],
    groups: dict[str, float],
    layers: list[str],
) -> None:
    """Sizes of all terms; the smallest highest derivative against the others shows layers."""
    frozen = freeze([sp.expand(equation.residual)])
    points = sample_box(nf.coords, nf.bounds, 50, seed=10)
    values = {s: np.full(50, sizes[lf]) for lf, s in frozen.symbols.items()}
    terms: list[tuple[float, int, sp.Expr, sp.Expr]] = []
    for term in sp.Add.make_args(frozen.exprs[0]):
        size = _largest(term, {**points, **values})
        thawed = frozen.thaw(term)
        space_order = max(
            (sum(derivative_count(lf, c) for c in nf.space) for lf in leaves(thawed)), default=0
        )
        if leaves(thawed) and size > 0:
            terms.append((size, space_order, thawed, _bare(thawed)))
    moving = [t for t in terms if t[1] > 0 or nf.time is None or not t[2].has(sp.Derivative)]
    for a, b in itertools.combinations(moving, 2):
        if a[3] == b[3] or a[1] == b[1]:
            continue
        high, low = (a, b) if a[1] > b[1] else (b, a)
        name = f"{show(low[3])} against {show(high[3])} ({equation.label})"
        if name not in groups or low[0] / high[0] > groups[name]:
            groups[name] = low[0] / high[0]
    _find_layers(equation, terms, nf, layers)


def _bare(term: sp.Expr) -> sp.Expr:
    """The term without its coefficient."""
    return sp.Mul(*(f for f in sp.Mul.make_args(term) if leaves(f)))


def _find_layers(
    equation: Equation,
    terms: list[tuple[float, int, sp.Expr, sp.Expr]],
    nf: NormalForm,
    layers: list[str],
) -> None:
    if not nf.space or not terms:
        return
    top = max(t[1] for t in terms)
    if top < 2:
        return
    highest = max((t for t in terms if t[1] == top), key=lambda t: t[0])
    lower = [t for t in terms if t[1] < top and (t[1] > 0 or not t[2].has(sp.Derivative))]
    if not lower:
        return
    rival = max(lower, key=lambda t: t[0])
    ratio = rival[0] / highest[0]
    if ratio > 20:
        axis = max(
            nf.space,
            key=lambda c: max(derivative_count(lf, c) for lf in leaves(highest[2])),
        )
        width = _length(axis, nf) * ratio ** (-1.0 / max(1, top - rival[1]))
        layers.append(
            f"{equation.label}: {show(highest[3])} is {show_number(ratio)} times smaller than "
            f"{show(rival[3])}; layers about {show_number(width)} wide along {axis} may form"
        )


def _conserved(nf: NormalForm) -> list[str]:
    """Means of densities whose equation is a time derivative plus derivatives, all periodic."""
    if nf.time is None or set(nf.periodic) != set(nf.space) or not nf.space:
        return []
    found = []
    over = " ".join(f"d{c}" for c in nf.space)
    for e in nf.equations:
        density = sp.S.Zero
        rest: Any = e.conservative.xreplace(dict.fromkeys(e.conservative.atoms(Div), sp.S.Zero))
        exact = True
        for lf, coefficient in linear_coefficients(rest).items():
            if coefficient.free_symbols:
                exact = False
            elif isinstance(lf, sp.Derivative) and derivative_count(lf, nf.time) == 1:
                steps = [c for c, _ in steps_of(lf) if c != nf.time]
                density += coefficient * field_of(lf) if not steps else 0
            elif derivative_count(lf, nf.time) or not isinstance(lf, sp.Derivative):
                exact = False
        linear = sum((c * lf for lf, c in linear_coefficients(rest).items()), sp.S.Zero)
        leftover = sp.expand(rest - linear)
        # A nonlinear remainder is fine if it is a space derivative itself, as u*u.diff(x).
        if leftover != 0 and not _is_space_derivative(leftover, nf):
            exact = False
        if exact and density != 0:
            found.append(f"the integral of {show(density)} {over} ({e.label})")
    return found


def _is_space_derivative(expr: sp.Expr, nf: NormalForm) -> bool:
    """Euler-Lagrange test: a total derivative has vanishing variational derivatives."""
    frozen = freeze([expr], extra=nf.fields)
    for u in nf.fields:
        total = sp.S.Zero
        for lf, s in frozen.symbols.items():
            if field_of(lf) != u:
                continue
            term = frozen.thaw(sp.diff(frozen.exprs[0], s))
            for c, n in steps_of(lf):
                term = (-1) ** n * sp.diff(term, c, n)
            total += term
        if sp.expand(total.doit()) != 0:
            return False
    return True


def _hard(nf: NormalForm, groups: Mapping[str, float], layers: list[str]) -> list[str]:
    p = nf.predicates
    found = []
    if layers:
        found.append("thin layers: points must gather there (residual-adaptive sampling)")
    transport = not p.linear and p.evolution and max(p.space_order.values(), default=0) == 1
    if transport:
        found.append("nonlinear transport without diffusion: shocks may form in finite time")
    if any(order == 0 for _, order, _ in nf.corners):
        found.append("jumps at corners: the maximum norm is meaningless near them")
    elif nf.corners:
        found.append("derivatives jump at corners: high orders of accuracy are lost near them")
    if nf.jumps:
        found.append("jumping coefficients: derivatives of the solution jump there")
    if nf.time is not None and p.evolution:
        found += _fast_waves(nf)
    unstable = _growth(nf)
    if unstable:
        found.append(unstable)
    if len(nf.coords) > 4:
        found.append(f"{len(nf.coords)} coordinates: grids are too large, use random points")
    if nf.region is not None:
        found.append(f"the region {nf.region!r}: not every solver handles it")
    if nf.parameters:
        names = ", ".join(map(str, nf.parameters))
        found.append(f"unknown numbers ({names}): an inverse problem, check the standard errors")
    return found


def _fast_waves(nf: NormalForm) -> list[str]:
    """Transport across the domain many times within the time span."""
    assert nf.time is not None
    low, high = nf.bounds[nf.time]
    found = []
    for e in nf.equations:
        coefficients = linear_coefficients(e.residual)
        rates = [c for lf, c in coefficients.items() if derivative_count(lf, nf.time)]
        for lf, c in coefficients.items():
            if derivative_count(lf) != 1 or derivative_count(lf, nf.time) or not rates:
                continue
            if c.free_symbols or rates[0].free_symbols:
                continue
            axis = steps_of(lf)[0][0]
            extent = nf.bounds[axis][1] - nf.bounds[axis][0]
            crossings = abs(float(c / rates[0])) * (high - low) / extent
            if crossings > 3:
                found.append(
                    f"waves cross the domain {show_number(crossings)} times: use time windows"
                )
    return found


def _growth(nf: NormalForm) -> str:
    """Linear terms that amplify: errors grow with them."""
    if nf.time is None:
        return ""
    duration = nf.bounds[nf.time][1] - nf.bounds[nf.time][0]
    for e in nf.equations:
        coefficients = linear_coefficients(e.residual)
        rates = {lf: c for lf, c in coefficients.items() if derivative_count(lf, nf.time) == 1}
        for lf, rate in rates.items():
            u = field_of(lf)
            plain = coefficients.get(u, sp.S.Zero)
            second = [
                c
                for v, c in coefficients.items()
                if field_of(v) == u
                and derivative_count(v) == 2
                and not derivative_count(v, nf.time)
            ]
            if any(c.free_symbols for c in (plain, rate, *second)):
                continue
            if float(-plain / rate) * duration > 3:
                return (
                    f"{show(u)} grows like exp({show_number(float(-plain / rate))} {nf.time}) "
                    "while small: early errors are amplified"
                )
            if any(float(c / rate) > 0 for c in second):
                return f"some waves of {show(u)} are unstable: errors grow, chaos is possible"
    return ""
