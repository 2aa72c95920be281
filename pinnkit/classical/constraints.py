"""M u' = L u + N with a singular M, wave number by wave number: constraints eliminated.

In    a `Semilinear` and a `Torus`.
Out   `Reduced`: s' = G s + F N, u = U s + V N, per mode; or `PencilError` with the reason.
Next  `etdrk4` integrates s. `constraint_refusal` tells beforehand what cannot be reduced.

With u = X z + Q y, Q the null space of M and Z that of its adjoint, the algebraic rows are
C (X z + Q y) + Z* N = 0, C = Z* L. What of y they leave open is fixed by their hidden companions: the
part D z = 0 of them that holds no y must stay true, so D z' = 0 (index 2; for incompressible flow
this is Leray's projection). z lives in the null space K of D, z = K s. Rows that say nothing new
(the divergence at wave number zero) are compatibility conditions on N, and watched as such.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pinnkit.classical.semilinear import Semilinear, split_semilinear
from pinnkit.classical.torus import Torus
from pinnkit.ir.normal_form import NormalForm

__all__ = ["PencilError", "Reduced", "constraint_refusal", "pencil", "reduce_pencil"]

Array = np.ndarray
RANK = 1e-10  # relative to the natural size of each matrix
PROBE_MODES, FINE_MODES = 10, 128
BROKEN = 1e-6  # of the initial data that may break the constraints


class PencilError(Exception):
    """The linear part cannot be reduced to an ordinary differential equation; says why."""


@dataclass(frozen=True, eq=False)
class Reduced:
    """Per mode (K of them, flattened); m fields, e rows (gauges last), r free amplitudes, padded by 0."""

    generator: Array  # (K, r, r): G
    force: Array  # (K, r, e): F
    lift: Array  # (K, m, r): U
    algebraic: Array  # (K, m, e): V
    start: Array  # (K, r, m): initial fields -> s
    broken: Array  # (K, m, m): initial fields -> what of them breaks the constraints
    checks: Array  # (K, c, e): must map N to zero


def pencil(problem: Semilinear, torus: Torus) -> tuple[Array, Array]:
    """(M, L), each (K, e, m), with a row per gauge that is zero but at wave number zero."""
    m, e = len(problem.initial), len(problem.rest) + len(problem.gauges)
    matrices = []
    for rows in (problem.mass, problem.linear):
        matrix = np.zeros((e, m, *torus.shape), dtype=complex)
        for i, row in enumerate(rows):
            for coefficient, leaf in row:
                matrix[i, leaf.field] += coefficient * torus.symbol(leaf.alpha)
        matrices.append(np.moveaxis(matrix.reshape(e, m, -1), -1, 0))
    # Mode number zero is the first of the flattened ones.
    for i, gauge in enumerate(problem.gauges):
        matrices[1][0, len(problem.rest) + i] = gauge.coefficients
    return matrices[0], matrices[1]


def reduce_pencil(mass: Array, linear: Array, active: Array) -> Reduced:
    """Eliminate constraints; `active` (e,) are the rows whose N is not zero."""
    count, e, m = mass.shape
    parts: list[tuple[Array, Reduced]] = []
    for where, a, u, s, vh in _by_rank(mass, _size(mass)):
        parts += _with_mass_rank(where, a, u, s, vh, linear[where], active)
    r = max(part.generator.shape[1] for _, part in parts)
    c = max(part.checks.shape[1] for _, part in parts)
    shapes = {
        "generator": (r, r),
        "force": (r, e),
        "lift": (m, r),
        "algebraic": (m, e),
        "start": (r, m),
        "broken": (m, m),
        "checks": (c, e),
    }
    out = {name: np.zeros((count, *shape), dtype=complex) for name, shape in shapes.items()}
    for where, part in parts:
        for name, target in out.items():
            block = getattr(part, name)
            target[where, : block.shape[1], : block.shape[2]] = block
    return Reduced(**out)


def _with_mass_rank(
    where: Array, a: int, u: Array, s: Array, vh: Array, linear: Array, active: Array
) -> list[tuple[Array, Reduced]]:
    """Modes whose M = u s vh has rank a."""
    out = []
    z_adjoint = _adjoint(u[:, :, a:])
    # (W* M X)^-1 W*: from rows to rates.
    rates = _adjoint(u[:, :, :a]) / s[:, :a, None]
    x, q = _adjoint(vh[:, :a]), _adjoint(vh[:, a:])
    c = z_adjoint @ linear
    natural = _size(c)
    for i, b, u1, _, _ in _by_rank(c @ q, natural):
        free = _adjoint(u1[:, :, b:])  # combinations of the algebraic rows without y
        d_all = free @ c[i] @ x[i]
        for j, d, u2, s2, vh2 in _by_rank(d_all, natural[i]):
            k = i[j]
            combined = _adjoint(u2[:, :, :d]) @ free[j] @ z_adjoint[k]
            if np.abs(combined[:, :, active]).max(initial=0.0) > RANK:
                raise PencilError("a constraint without an algebraic field varies with the fields")
            constraint = s2[:, :d, None] * vh2[:, :d]
            part = _eliminate(
                linear[k],
                x[k],
                q[k],
                c[k],
                z_adjoint[k],
                rates[k],
                constraint,
                _adjoint(vh2[:, d:]),
            )
            out.append((where[k], part))
    return out


def _eliminate(
    linear: Array,
    x: Array,
    q: Array,
    c: Array,
    z_adjoint: Array,
    rates: Array,
    constraint: Array,
    kernel: Array,
) -> Reduced:
    """Solve the algebraic rows and D z' = 0 for y; what they leave over are checks."""
    moved = rates @ linear  # z' = moved (x z + q y) + rates N
    scale_c = _scale(c)
    scale_d = _scale(constraint @ moved)
    known = np.concatenate([scale_c * c, scale_d * (constraint @ moved)], axis=1)
    sources = np.concatenate([scale_c * z_adjoint, scale_d * (constraint @ rates)], axis=1)
    open_part = q.shape[2]
    stacked = known @ q
    u, s, vh = _svd(stacked)
    if open_part:
        enough = s.shape[1] == open_part and (s[:, -1] > RANK).all()
        if not enough:
            raise PencilError("an algebraic field is not determined by the equations")
        inverse = _adjoint(vh) @ (_adjoint(u[:, :, :open_part]) / s[:, :, None])
    else:
        inverse = np.zeros((len(linear), 0, known.shape[1]))
    left_over = _adjoint(u[:, :, open_part:])
    y_of_z, y_of_n = -inverse @ known @ x, -inverse @ sources
    contradiction = left_over @ known @ x @ kernel
    if np.abs(contradiction).max(initial=0.0) > np.sqrt(RANK):
        raise PencilError("the constraints do not stay true by themselves (index above two)")
    kernel_adjoint = _adjoint(kernel)
    speed = moved @ (x + q @ y_of_z)
    return Reduced(
        generator=kernel_adjoint @ speed @ kernel,
        force=kernel_adjoint @ (rates + moved @ q @ y_of_n),
        lift=(x + q @ y_of_z) @ kernel,
        algebraic=q @ y_of_n,
        start=kernel_adjoint @ _adjoint(x),
        broken=(x - x @ kernel @ kernel_adjoint) @ _adjoint(x),
        checks=left_over @ sources,
    )


def _adjoint(matrices: Array) -> Array:
    return np.conj(np.swapaxes(matrices, -1, -2))


def _size(matrices: Array) -> Array:
    return np.sqrt((np.abs(matrices) ** 2).sum(axis=(1, 2)))


def _scale(matrices: Array) -> Array:
    size = _size(matrices)
    return (1.0 / np.where(size > 0, size, 1.0))[:, None, None]


def _svd(matrices: Array) -> tuple[Array, Array, Array]:
    """Full singular value decompositions; empty matrices have the identity."""
    count, rows, columns = matrices.shape
    if rows and columns:
        return np.linalg.svd(matrices, full_matrices=True)
    u = np.broadcast_to(np.eye(rows, dtype=complex), (count, rows, rows))
    vh = np.broadcast_to(np.eye(columns, dtype=complex), (count, columns, columns))
    return u, np.zeros((count, 0)), vh


def _by_rank(matrices: Array, natural: Array) -> list[tuple[Array, int, Array, Array, Array]]:
    """(indices, rank, u, s, vh) of the matrices of each rank that occurs."""
    u, s, vh = _svd(matrices)
    ranks = (s > RANK * np.maximum(natural, 1e-300)[:, None]).sum(axis=1)
    groups = [(np.flatnonzero(ranks == rank), int(rank)) for rank in np.unique(ranks)]
    return [(i, rank, u[i], s[i], vh[i]) for i, rank in groups]


@lru_cache(maxsize=16)
def constraint_refusal(nf: NormalForm) -> str | None:
    """None, or why the fields without a rate cannot be eliminated; None too where there are none."""
    problem = split_semilinear(nf)
    if problem is None or not problem.constrained:
        return None
    active = active_rows(problem)
    try:
        reduce_pencil(*pencil(problem, Torus(nf, PROBE_MODES)), active)
        torus = Torus(nf, FINE_MODES if len(nf.space) < 3 else PROBE_MODES)
        reduced = reduce_pencil(*pencil(problem, torus), active)
    except PencilError as error:
        return (
            f"MethodOfLines() cannot eliminate the constraints, because {error}. Use CausalPINN()."
        )
    fields = initial_modes(problem, torus)
    flat = np.moveaxis(fields.reshape(len(fields), -1), -1, 0)[..., None]
    out = np.moveaxis((reduced.broken @ flat)[..., 0], 0, -1).reshape(fields.shape)
    size = np.abs(fields).max()
    tail = np.abs(fields[:, torus.edge]).max(initial=0.0)
    share = float(np.abs(out).max() / size) if size > 0 else 0.0
    if share > BROKEN + 10 * tail / max(size, 1e-300):
        names = ", ".join(
            str(u) for u, value in zip(nf.fields, problem.initial, strict=True) if value is not None
        )
        return (
            f"the initial values of {names} break the constraints of the equations by {share:.1e} "
            "of their size; give values that satisfy the equations without time derivatives"
        )
    return None


def active_rows(problem: Semilinear) -> Array:
    """Rows of the pencil whose N is not zero: those of `rest`, and gauges with a value."""
    gauges = [gauge.mean != 0 for gauge in problem.gauges]
    return np.array([entry != 0 for entry in problem.rest] + gauges)


def initial_modes(problem: Semilinear, torus: Torus) -> Array:
    """Modes of the initial fields; zero where a field has no initial value."""
    assert torus.nf.time is not None
    columns = torus.coordinates(torus.nf.bounds[torus.nf.time][0])
    shape = torus.nodes_shape
    values = [f(columns, shape) if f is not None else np.zeros(shape) for f in problem.initial]
    return torus.forward(np.stack(values))
