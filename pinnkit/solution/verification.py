"""The verdict: how wrong an answer is, and by which evidence. The evidence ladder is walked here.

In    a `Candidate` for a `NormalForm`, the tolerance, the seconds allowed.
Out   a `Verification`.
Next  `pinnkit.driver` turns it into the status of a `Solution`.

The ladder, strongest first; the first rung that applies gives the verdict:

    EXACT      the problem declares its exact solution
    REFERENCE  `classical` can solve it independently; E = difference + the reference's own error
    DEFECT     L'(u) e = -residual, solved classically on a coarse grid
    RESIDUAL   only the residual is known; never ok, whatever its size
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import sympy as sp
import torch

from pinnkit import classical
from pinnkit.errors import Evidence, Status
from pinnkit.ir.normal_form import NormalForm
from pinnkit.solution.answer import Approximation
from pinnkit.solution.candidates import Candidate, make_candidate
from pinnkit.solution.evaluate import field_name, field_values, relative_residual, user_fields
from pinnkit.solution.metrics import Comparison, compare, make_quadrature, sobol_points

__all__ = ["DEFAULT_TOL", "JUDGING", "Verification", "estimate_defect", "judge"]

logger = logging.getLogger(__name__)

DEFAULT_TOL = 1e-3  # what tol=None is judged at
JUDGING = frozenset({Evidence.EXACT, Evidence.CERTIFIED, Evidence.REFERENCE, Evidence.DEFECT})
DIFFERENCE = {
    Evidence.EXACT: "the difference from the declared exact solution",
    Evidence.REFERENCE: "the difference from the reference, its own error included,",
}
ROUNDOFF = 1e-15  # what an exact solution, evaluated in float64, is known to
# What judges a classical solution must be sharper than it: it is refined once more where its own
# error is more than this part of the difference found and the first solve was cheap. Trained
# answers are far less accurate than the first target, so they never need it.
SHARPNESS = 0.2
FIRST_TARGET, LAST_TARGET = 1e-7, 1e-12
CHEAP = 0.1  # of the seconds left
REFERENCE_SHARE = 0.8  # of the seconds; the rest is for the defect, should the reference fail


@dataclass(frozen=True)
class Verification:
    """What an independent look at the answer found. Relative errors; nan where there is no number.

    `error` is E, the number `ok` is decided by: the largest over the fields of the space-time
    difference plus the reference's own error. `max_error` and `final_time_error` are the plain
    differences. `fluctuation_error` is set where a field's mean dominates it. `reason` says what
    decided, in words that can follow "because".
    """

    error: float
    final_time_error: float = math.nan
    max_error: float = math.nan
    reference_error: float = math.nan
    ok: bool = False
    seconds: float = 0.0
    evidence: Evidence = Evidence.NONE
    status: Status = Status.UNVERIFIED
    tol: float = DEFAULT_TOL
    errors: Mapping[str, float] = field(default_factory=dict)
    fluctuation_error: float = math.nan
    residual: float = math.nan  # relative to the largest term, on held-out points
    reason: str = ""
    reference: Approximation | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        known = "" if math.isnan(self.error) else f", E = {self.error:.2e}"
        own = "" if math.isnan(self.reference_error) else f" (reference {self.reference_error:.1e})"
        why = f". {self.reason[0].upper()}{self.reason[1:]}." if self.reason else ""
        return f"{self.status.name}: {self.evidence.value}{known}{own}, tol {self.tol:g}{why}"


def judge(
    nf: NormalForm,
    candidate: Candidate,
    *,
    tol: float | None = None,
    time_limit: float = 75.0,
    independent: bool = True,
    parameters: Mapping[sp.Symbol, float] | None = None,
) -> Verification:
    """Walk the ladder for `candidate`.

    Args:
        nf: The problem.
        candidate: The answer.
        tol: What E is judged at (None: 1e-3).
        time_limit: Seconds for all of it.
        independent: False skips the first two rungs (`verify=False`).
        parameters: Values of the problem's unknown parameters, for its equations.
    """
    started = time.perf_counter()
    tol = DEFAULT_TOL if tol is None else tol
    if not _is_finite(nf, candidate):
        verdict = Verification(
            math.inf,
            math.inf,
            math.inf,
            status=Status.INACCURATE,
            reason="the answer is not finite everywhere",
        )
    else:
        verdict = _walk(nf, candidate, tol, started + time_limit, independent, parameters or {})
    verdict = replace(verdict, seconds=time.perf_counter() - started, tol=tol)
    return replace(verdict, ok=verdict.status.ok)


def estimate_defect(
    nf: NormalForm, approximation: Approximation, *, time_limit: float
) -> tuple[float, dict[str, float], str]:
    """(E, errors per field, reason) from the linearised error equation; E is nan where it fails."""
    try:
        defect = classical.solve_defect(nf, approximation, time_limit=time_limit)
    except Exception as fault:  # a failing judge must not cost the user the answer it judges
        logger.warning("the error equation could not be solved", exc_info=True)
        return math.nan, {}, _clause(fault)
    errors = {field_name(f): float(e) for f, e in defect.errors.items()}
    return float(defect.error), _whole_fields(nf, errors), str(defect.reason)


def _walk(
    nf: NormalForm,
    candidate: Candidate,
    tol: float,
    deadline: float,
    independent: bool,
    parameters: Mapping[sp.Symbol, float],
) -> Verification:
    reasons: list[str] = []
    if independent:
        verdict = _by_exact(nf, candidate, tol, reasons)
        if verdict is None:
            verdict = _by_reference(nf, candidate, tol, deadline, parameters, reasons)
        if verdict is not None:
            return verdict
    if candidate.approximation is None:
        reasons.append(
            "its derivatives are not known, so neither residual nor defect can be computed"
        )
        return Verification(math.nan, reason="; ".join(reasons))
    if not candidate.classical:  # a grid solution's defect would be found with its own operators
        verdict = _by_defect(nf, candidate.approximation, tol, deadline, reasons)
        if verdict is not None:
            return verdict
    elif not independent:
        reasons.append("nothing independent has looked at it (see own_error of its stats)")
    residual = _held_out_residual(nf, candidate.approximation, parameters)
    reasons.append(
        f"only the residual is known, {residual:.1e} of the largest term, which bounds no error"
    )
    return Verification(
        math.nan, evidence=Evidence.RESIDUAL, residual=residual, reason="; ".join(reasons)
    )


def _by_exact(
    nf: NormalForm, candidate: Candidate, tol: float, reasons: list[str]
) -> Verification | None:
    if any(f not in nf.exact for f in nf.fields):
        return None
    whole = {psi: nf.exact[a] + sp.I * nf.exact[b] for psi, (a, b) in nf.complex_fields.items()}
    exact = make_candidate(nf, {f: whole.get(f, nf.exact.get(f)) for f in user_fields(nf)})
    if not _is_finite(nf, replace(exact, quadrature=candidate.quadrature)):
        reasons.append("the declared exact solution is not finite everywhere")
        return None
    found = compare(nf, candidate.values, exact.values, quadrature=candidate.quadrature)
    return _verdict(found, ROUNDOFF, {}, tol, Evidence.EXACT, exact.approximation, "")


def _by_reference(
    nf: NormalForm,
    candidate: Candidate,
    tol: float,
    deadline: float,
    parameters: Mapping[sp.Symbol, float],
    reasons: list[str],
) -> Verification | None:
    if parameters:
        # TODO: substitute the estimates; comes with the solvers that determine parameters.
        reasons.append("there is no independent solve: the problem has unknown parameters")
        return None
    if (why := classical.supports(nf)) is not None:
        reasons.append(f"there is no independent solve: {_clause(why)}")
        return None
    target, verdict = min(FIRST_TARGET, 1e-3 * tol), None
    variant = "alternate" if candidate.classical else "primary"
    # A classical candidate has no error equation to fall back on: nothing to keep time for.
    share = 0.95 if candidate.classical else REFERENCE_SHARE
    for _ in range(2):
        seconds = share * (deadline - time.perf_counter())
        if seconds <= 0:
            break
        try:
            reference = classical.solve_reference(
                nf, tol=target, time_limit=seconds, variant=variant
            )
            solved = reference.approximation
            if solved is None:
                reasons.append(f"the independent solve found nothing: {_clause(reference.reason)}")
                break
            if reference.unseen > 0.5 * tol:
                reasons.append(f"the independent solve is blind: {_clause(reference.reason)}")
                break
            found = compare(
                nf,
                candidate.values,
                lambda points, r=solved: field_values(nf, r, points),
                quadrature=candidate.quadrature,
            )
        except Exception as fault:  # as in estimate_defect
            logger.warning("the independent solve failed", exc_info=True)
            reasons.append(f"the independent solve failed: {_clause(fault)}")
            break
        own = float(reference.error)
        if not math.isfinite(own):
            reasons.append(f"the independent solve did not converge: {_clause(reference.reason)}")
            break
        if verdict is not None and own >= verdict.reference_error:
            break
        per_field = _whole_fields(
            nf, {field_name(f): float(e) for f, e in reference.errors.items()}
        )
        verdict = _verdict(
            found,
            own,
            per_field,
            tol,
            Evidence.REFERENCE,
            solved,
            _refined(reference, target),
        )
        if not candidate.classical or own <= SHARPNESS * found.error:
            break
        # Asking again for what it could not reach before would only cost time.
        cheap = reference.seconds < CHEAP * (deadline - time.perf_counter())
        if own > 10 * target or target <= LAST_TARGET or not cheap:
            break
        target = max(LAST_TARGET, min(0.1 * target, SHARPNESS * found.error))
    return verdict


def _by_defect(
    nf: NormalForm, approximation: Approximation, tol: float, deadline: float, reasons: list[str]
) -> Verification | None:
    seconds = max(1.0, deadline - time.perf_counter())
    if (why := classical.supports(nf)) is not None:
        reasons.append(f"there is no error equation: {_clause(why)}")
        return None
    error, errors, why = estimate_defect(nf, approximation, time_limit=seconds)
    if not math.isfinite(error):
        reasons.append(f"the error equation was not solved: {_clause(why)}")
        return None
    status = Status.OK if error <= tol else Status.INACCURATE
    agreed = f" ({_clause(why)})" if why else ""
    decided = f"the error found by the error equation is {_beside(error, tol)}{agreed}"
    return Verification(
        error,
        evidence=Evidence.DEFECT,
        status=status,
        errors=errors,
        reason="; ".join([decided, *reasons]),
    )


def _verdict(
    found: Comparison,
    own: float,
    own_per_field: Mapping[str, float],
    tol: float,
    evidence: Evidence,
    reference: Approximation | None,
    reason: str,
) -> Verification:
    """E = difference + the reference's own error, field by field: never below the latter."""
    errors = {n: e + own_per_field.get(n, own) for n, e in found.errors.items()}
    # max() would pass over a nan in silence.
    error = math.nan if any(map(math.isnan, errors.values())) else max([own, *errors.values()])
    if math.isnan(error):
        status, decided = Status.UNVERIFIED, "the difference is not a number"
    elif own > 0.5 * tol:
        status = Status.UNVERIFIED
        decided = f"the reference itself is only known to {own:.1e}, more than half of {tol:g}"
    else:
        status = Status.OK if error <= tol else Status.INACCURATE
        decided = f"{DIFFERENCE[evidence]} is {_beside(error, tol)}"
    return Verification(
        error,
        found.final_time_error,
        found.max_error,
        own,
        evidence=evidence,
        status=status,
        errors=errors,
        fluctuation_error=found.fluctuation_error,
        reason="; ".join(filter(None, [decided, reason])),
        reference=reference,
    )


def _beside(error: float, tol: float) -> str:
    return f"{'not above' if error <= tol else 'above'} {tol:g}"


def _refined(reference: classical.Reference, target: float) -> str:
    """How far the reference was refined, and why no further."""
    if reference.finished and reference.error <= target:
        return f"the reference was refined until its own error was below {target:.0e}"
    return f"the reference's own error stayed at {reference.error:.1e}: {_clause(reference.reason)}"


def _clause(why: object) -> str:
    """To stand inside a sentence; the advice which solver to take is for those who have none yet."""
    return re.sub(r"\s*Use \w+\(\)\.?$", "", str(why).strip()).rstrip(".")


def _whole_fields(nf: NormalForm, errors: Mapping[str, float]) -> dict[str, float]:
    """Errors by the user's names: a complex field gets the larger of its parts' errors."""
    result = dict(errors)
    for psi, parts in nf.complex_fields.items():
        found = [result.pop(field_name(p)) for p in parts if field_name(p) in result]
        if found:
            result.setdefault(field_name(psi), max(found))
    return result


def _is_finite(nf: NormalForm, candidate: Candidate) -> bool:
    rule = candidate.quadrature or make_quadrature(nf)
    return all(np.isfinite(v).all() for v in candidate.values(rule.points).values())


def _held_out_residual(
    nf: NormalForm, approximation: Approximation, parameters: Mapping[sp.Symbol, float]
) -> float:
    unit = sobol_points(len(nf.coords), 1024, seed=1)
    lower, upper = np.array([nf.bounds[c] for c in nf.coords], dtype=float).T
    points = torch.as_tensor(lower + unit * (upper - lower), dtype=torch.float64)
    return relative_residual(nf, approximation, points, parameters)
