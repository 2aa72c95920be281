"""A solution at a glance, its memory, and what to cite.

In    a `Solution`.
Out   text.
Next  `print(sol)`, `pk.citation(sol)`.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import torch

from pinnkit.solution.estimate import solver_name
from pinnkit.solution.evaluate import user_fields

if TYPE_CHECKING:
    from pinnkit.solution.solution import Solution

__all__ = ["citation", "describe", "peak_memory"]

PINNKIT = """@software{pinnkit,
  title = {pinnkit: physics-informed solvers with checked errors},
  author = {{The pinnkit authors}},
  year = {2026}
}"""


def describe(sol: Solution) -> str:
    """Status, evidence, error, seconds, parameters: one glance."""
    nf, stats = sol.normal_form, sol.stats
    ranges = ", ".join(f"{nf.bounds[c][0]:g} <= {c} <= {nf.bounds[c][1]:g}" for c in nf.coords)
    lines = [
        f"Solution of {', '.join(map(str, user_fields(nf)))} on {ranges}",
        f"  status    {sol.status.name}: {sol.status.message}",
        f"  evidence  {sol.evidence.name}: {sol.evidence.value}",
    ]
    if sol.error_estimate is not None:
        judged = (
            f"  error     {sol.error_estimate:.2e} relative L2, judged at {sol.verification.tol:g}"
        )
        own = sol.verification.reference_error
        lines.append(judged + (f" (the reference's own: {own:.1e})" if own == own else ""))
        if len(sol.errors) > 1:
            per_field = ", ".join(f"{n} {e:.2e}" for n, e in sol.errors.items())
            lines.append(f"            {per_field}")
        if sol.verification.fluctuation_error == sol.verification.fluctuation_error:
            lines.append(f"            {sol.verification.fluctuation_error:.2e} of the fluctuation")
    elif sol.verification.residual == sol.verification.residual:
        lines.append(
            f"  residual  {sol.verification.residual:.1e} of the largest term (not an error)"
        )
    if sol.verification.reason:
        lines.append(f"  because   {sol.verification.reason}")
    lines.append(
        f"  solver    {solver_name(sol.solver)}: {stats.steps} steps in {stats.seconds:.1f} s, "
        f"stopped by {stats.stopped_by.name}; checked in {stats.verification_seconds:.1f} s"
    )
    lines.append(
        f"  size      {stats.parameters} parameters, {stats.points} points, "
        f"{stats.peak_memory / 2**20:.0f} MiB at most, {str(sol.dtype).removeprefix('torch.')} "
        f"on {sol.device}"
    )
    lines += [f"  {name!s:<9} {estimate}" for name, estimate in sol.parameters.items()]
    return "\n".join(lines)


def citation(sol: Any) -> str:
    """BibTeX of what this solution used: the package, the method, the problem."""
    if not hasattr(sol, "solver"):
        raise TypeError(f"citation takes a Solution, not {sol!r}")
    parts = [PINNKIT, *_entries(sol.solver), *_entries(sol.problem)]
    return "\n\n".join(dict.fromkeys(p.strip() for p in parts if p.strip()))


def _entries(thing: object) -> list[str]:
    text = getattr(thing, "citation", "")
    if not isinstance(text, str) or not text.strip():
        return []
    if text.lstrip().startswith("@"):
        return [text]
    key = re.sub(r"\W+", "", type(thing).__name__).lower()
    return [f"@misc{{{key},\n  note = {{{text.strip()}}}\n}}"]


def peak_memory(device: torch.device) -> int:
    """Bytes: the accelerator's allocator, else the largest resident size of this process so far."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource  # not on Windows
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else 1024 * int(peak)  # bytes there, KiB elsewhere
