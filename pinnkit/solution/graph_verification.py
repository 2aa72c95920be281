"""The verdict on an answer on a graph: a proved bound where there is one, else an estimate.

In    the equations on a graph, the values, the tolerance.
Out   a `Verification`, and a bound of every unknown's error where it is proved.
Next  `GraphSolution`.

Linear equations whose matrix is an M-matrix (resistors, tubes, springs, diffusion with losses):
CERTIFIED, by `graphs.error_bounds`, with the coefficients as computed in float64. All others: DEFECT, the
linearised error equation J e = -F with rounding included, solved with an estimator of |J^-1|; for
nonlinear equations of the solution nearby, if Newton's method contracts there.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.linalg import LinAlgError  # pyright: ignore[reportAttributeAccessIssue]

from pinnkit.errors import Evidence, Status
from pinnkit.graphs.error_bounds import bound_error, estimate_error, rounding_factor
from pinnkit.graphs.newton import Newton, norm
from pinnkit.graphs.sparse_solve import Inverse, factorise
from pinnkit.lower.graph_residual import GraphEquations
from pinnkit.solution.verification import DEFAULT_TOL, Verification

__all__ = ["GraphVerdict", "judge_on_graph"]

CONTRACTION = 0.5  # Newton and Kantorovich: below it a solution exists nearby, and only one
LARGE_MEAN = 10.0  # times the fluctuation: then the error relative to the latter is told as well


@dataclass(frozen=True)
class GraphVerdict:
    """The verdict, and figures for `sol.stats`; `bound` (n,) is proved, None where it is not."""

    verification: Verification
    bound: np.ndarray | None
    relative_residual: float
    backward_error: float


def judge_on_graph(
    equations: GraphEquations, newton: Newton, *, tol: float | None, direct: bool | None = None
) -> GraphVerdict:
    """Judge `newton.z`; its inverse is used if it belongs to the matrix there."""
    started = time.perf_counter()
    tol = DEFAULT_TOL if tol is None else tol
    z = newton.z
    F, at = newton.residual(z), torch.from_numpy(z).to(equations.device, equations.dtype)
    with torch.no_grad():
        sizes = equations.magnitudes(at).cpu().double().numpy()
        values = equations.unpack(at)
    relative, backward = _residuals(newton, F, sizes)
    bound = None
    if not (np.isfinite(z).all() and np.isfinite(F).all()):
        verdict = Verification(
            math.inf, math.inf, math.inf, status=Status.INACCURATE, reason="it is not finite"
        )
    else:
        verdict, bound = _judge(equations, newton, F, sizes, values, direct)
    if verdict.evidence in (Evidence.CERTIFIED, Evidence.DEFECT):
        status = Status.OK if verdict.error <= tol else Status.INACCURATE
        beside = f"{'not above' if verdict.error <= tol else 'above'} {tol:g}"
        verdict = replace(verdict, status=status, reason=f"{verdict.reason} is {beside}")
    verdict = replace(
        verdict,
        tol=tol,
        ok=verdict.status.ok,
        residual=relative,
        seconds=time.perf_counter() - started,
    )
    return GraphVerdict(verdict, bound, relative, backward)


def _residuals(newton: Newton, F: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    """(|F| relative to the right-hand side or to the terms, the largest |F_i| relative to its terms)."""
    scale = norm(sizes)
    if newton.linear:
        right = norm(newton.residual(np.zeros_like(newton.z)))
        scale = right if right > 0 else scale
    known = np.isfinite(F) & np.isfinite(sizes)
    backward = np.abs(F[known]) / np.where(sizes[known] > 0, sizes[known], 1.0)
    return (norm(F) / scale if scale > 0 else norm(F)), float(backward.max(initial=0.0))


def _judge(
    equations: GraphEquations,
    newton: Newton,
    F: np.ndarray,
    sizes: np.ndarray,
    values: Any,
    direct: bool | None,
) -> tuple[Verification, np.ndarray | None]:
    try:
        matrix = newton.jacobian(newton.z)
        inverse = _inverse(newton, matrix, direct)
        rounding = rounding_factor(matrix)
        deviation = np.abs(F) + rounding * sizes
        if newton.linear:
            bound = bound_error(matrix, deviation, inverse, rounding)
            if bound is not None:
                errors = _errors(equations, values, bound=bound)
                why = "the bound of the error that the maximum principle gives"
                return _verdict(equations, values, errors, Evidence.CERTIFIED, why), bound
        contraction = 0.0 if newton.linear else _contraction(newton, inverse, F)
        if contraction > CONTRACTION:
            reason = (
                f"Newton's method does not contract at the answer (factor {contraction:.2g}): whether "
                "a solution is near is not known"
            )
            return Verification(math.nan, evidence=Evidence.RESIDUAL, reason=reason), None
        largest = {
            f: estimate_error(deviation, inverse, span) / (1 - contraction)
            for f, span in equations.spans().items()
        }
    except LinAlgError as fault:
        reason = f"the equations are singular at the answer ({fault})"
        return Verification(math.nan, evidence=Evidence.RESIDUAL, reason=reason), None
    errors = _errors(equations, values, largest=largest)
    what = "the error" if newton.linear else "the distance from the solution nearby"
    why = f"{what} found by the linearised error equation"
    return _verdict(equations, values, errors, Evidence.DEFECT, why), None


def _inverse(newton: Newton, matrix: Any, direct: bool | None) -> Inverse:
    if newton.linear and newton.inverse is not None:
        return newton.inverse
    return factorise(matrix, direct=direct)


def _contraction(newton: Newton, inverse: Inverse, F: np.ndarray) -> float:
    """|J^-1 F(z - J^-1 F)| / |J^-1 F|: of the order of Kantorovich's h; 0 where rounding rules."""
    step = inverse.solve(F)
    scale = np.maximum(np.abs(newton.z), 1e-3 * float(np.abs(newton.z).max(initial=0.0)))
    scale[scale == 0] = 1.0
    length = float(np.abs(step / scale).max(initial=0.0))
    if not math.isfinite(length):
        return math.inf
    if length <= 1e-10:
        return 0.0
    moved = newton.residual(newton.z - step)
    if not np.isfinite(moved).all():
        return math.inf
    return float(np.abs(inverse.solve(moved) / scale).max()) / length


def _errors(
    equations: GraphEquations,
    values: Any,
    *,
    bound: np.ndarray | None = None,
    largest: dict[Any, float] | None = None,
) -> dict[Any, tuple[float, float]]:
    """Per field (error relative to the L2 norm over all nodes, largest error)."""
    found = {}
    for f, span in equations.spans().items():
        if bound is not None:
            size, peak = float(np.linalg.norm(bound[span])), float(bound[span].max(initial=0.0))
        else:
            assert largest is not None
            peak = largest[f]
            size = peak * math.sqrt(span.stop - span.start)
        norm = float(torch.linalg.vector_norm(values.fields[f]))
        # The truth may be smaller than the answer, by as much as the error.
        rest = norm - size
        found[f] = ((size / rest if rest > 0 else math.inf) if size > 0 else 0.0, peak)
    return found


def _verdict(
    equations: GraphEquations,
    values: Any,
    errors: dict[Any, tuple[float, float]],
    evidence: Evidence,
    why: str,
) -> Verification:
    fluctuation = math.nan
    for f, (relative, _) in errors.items():
        u = values.fields[f]
        spread = float(torch.linalg.vector_norm(u - u.mean()))
        norm = float(torch.linalg.vector_norm(u))
        if 0 < LARGE_MEAN * spread < norm:
            told = relative * norm / spread
            fluctuation = told if math.isnan(fluctuation) else max(fluctuation, told)
    return Verification(
        max(relative for relative, _ in errors.values()),
        max_error=max(peak for _, peak in errors.values()),
        evidence=evidence,
        errors={str(f): relative for f, (relative, _) in errors.items()},
        fluctuation_error=fluctuation,
        reason=why,
    )
