"""What was learned, as a module and as a formula.

In    a `Solution` of an equation with neural terms.
Out   the learned equation y' = F(t, y); a term as a sparse combination of given expressions.
Next  `sol.module`, `sol.read(gamma, library)`; the formula goes back into a declaration.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import sympy as sp
import torch

from pinnkit.declare.stochastic import Neural
from pinnkit.errors import UnsupportedProblemError
from pinnkit.lower.ordinary import OrdinaryModule, compile_observed
from pinnkit.solution.trajectory_approximation import TrajectoryApproximation

__all__ = ["along_run", "module_of", "sparse_reading"]

POINTS = 401


def module_of(solution: Any) -> OrdinaryModule:
    """F of a trajectory; UnsupportedProblemError for a solution that is none."""
    return _trajectory(solution).module


def along_run(solution: Any, run: int) -> Any:
    """The same solution along another run; IndexError where there is none."""
    other = copy.copy(solution)
    other.approximation = _trajectory(solution).along(run)
    return other


def sparse_reading(
    solution: Any,
    term: Any,
    library: Sequence[Any],
    *,
    threshold: float = 0.1,
    points: int = POINTS,
) -> sp.Expr:
    """A learned term as a short sum of expressions: sequentially thresholded least squares.

    gamma(y(t)) is sampled at equidistant times of the domain along the trajectory (of several runs, along
    each to its last observation) and fitted by sum_j c_j phi_j. The term whose part c_j phi_j is smallest in the mean square is struck out and the rest
    fitted again, as long as that part is below `threshold` times gamma, or as long as striking it out makes
    the misfit worse by less than that. What was learned is known only where the trajectory went, so a
    library of expressions that are alike along it cannot be told apart: `len(library)` far above the number
    of terms expected is no virtue.

    Args:
        solution: Of `NeuralODE`.
        term: One of the problem's neural terms.
        library: Expressions in fields, time and unknown numbers, for example [x, y, x*y].
        threshold: Smallest part of gamma, in the mean square, that counts.
        points: Sampling times of each run.

    Raises:
        ValueError: for a library in which nothing varies or is finite.

    References: brunton2016discovering (arXiv:1509.03580).
    """
    law = _trajectory(solution)
    form, nf = law.module.form, solution.normal_form
    exprs = [sp.sympify(e) for e in library]
    if not exprs:
        raise ValueError("the library is empty; give expressions such as [x, y, x*y]")
    runs = [law.along(r) for r in range(len(law.starts))]
    begin, end = nf.bounds[nf.time]
    ends = [
        end if len(runs) == 1 else max(float(o.points.max()) for o in nf.observations if o.run == r)
        for r in range(len(runs))
    ]
    times = [torch.linspace(begin, e, points, dtype=torch.float64) for e in ends]
    with torch.no_grad():
        y = torch.cat([run.states(own) for run, own in zip(runs, times, strict=True)])
        at = torch.cat(times).to(y)
        value = law.module.term(_named(term, form.neurals), at, y)
        numbers = [law.module.value(p.name).expand(len(at)) for p in form.parameters]
        leaves = [at, *y.unbind(1), *numbers]
        columns = torch.stack([compile_observed(e, form)(leaves)[0] for e in exprs], dim=1)
    fine = torch.isfinite(columns).all(1) & torch.isfinite(value)
    phi, gamma = columns[fine].cpu().double().numpy(), value[fine].cpu().double().numpy()
    sizes = np.sqrt((phi**2).mean(0)) if len(phi) else np.zeros(len(exprs))
    if len(phi) <= len(exprs) or not (sizes > 0).all():
        raise ValueError(
            "the library cannot be fitted: an expression vanishes or is not finite along the trajectory"
        )
    kept = _strike_out(phi / sizes, gamma, threshold)
    found = np.linalg.lstsq(phi[:, kept], gamma, rcond=None)[0]
    return sp.Add(*(sp.Float(c) * exprs[j] for c, j in zip(found, kept, strict=True)))


def _strike_out(phi: np.ndarray, gamma: np.ndarray, threshold: float) -> list[int]:
    """The columns that are left; columns have mean square 1."""
    size = float(np.sqrt((gamma**2).mean()))

    def misfit(columns: list[int]) -> float:
        if not columns:
            return size
        c = np.linalg.lstsq(phi[:, columns], gamma, rcond=None)[0]
        return float(np.sqrt(((phi[:, columns] @ c - gamma) ** 2).mean()))

    kept = list(range(phi.shape[1]))
    while kept:
        best = misfit(kept)
        without = {j: misfit([k for k in kept if k != j]) for j in kept}
        least = min(kept, key=without.__getitem__)
        if without[least] - best > threshold * size:
            break
        kept.remove(least)
    return kept


def _trajectory(solution: Any) -> TrajectoryApproximation:
    found = solution.approximation
    if not isinstance(found, TrajectoryApproximation):
        raise UnsupportedProblemError(
            "only solutions of NeuralODE() hold a learned equation; this one holds fields alone"
        )
    return found


def _named(term: Any, neurals: Sequence[Neural]) -> Neural:
    for own in neurals:
        if own == term or own.name == str(term):
            return own
    names = ", ".join(map(str, neurals)) or "none"
    raise KeyError(f"{term} is no neural term of this problem; it has {names}")
