"""A learned operator of a family: give it a sample of the inputs, get a solution.

In    a family, what a solver learned about it, the errors on held-out draws.
Out   `FamilyOperator`: `op(sample)` is a `Solution`, `op.values(samples, points)` plain numbers.
Next  the user; `save` and `pk.load` keep it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Protocol, final

import numpy as np
import torch

from pinnkit.declare.family import PDEFamily
from pinnkit.declare.problem import PDESystem
from pinnkit.errors import Evidence, Status
from pinnkit.solution.answer import Answer
from pinnkit.solution.arguments import placed, real_array
from pinnkit.solution.estimate import Stats
from pinnkit.solution.evaluate import field_name, field_values
from pinnkit.solution.held_out import HeldOut, describe, quantile_of
from pinnkit.solution.learned_operator import LearnedOperator
from pinnkit.solution.solution import Solution, candidate_of
from pinnkit.solution.verification import DEFAULT_TOL, JUDGING, Verification, judge

__all__ = ["FamilyModel", "FamilyOperator", "judge_draws"]

ORDER = (Evidence.EXACT, Evidence.CERTIFIED, Evidence.REFERENCE, Evidence.DEFECT)  # strongest first
HELD_OUT_STREAM = 0x4E1D  # beside the seed: no draw of training is ever judged


class FamilyModel(Protocol):
    """What a solver learned: the fields of any members of the family."""

    def solve(self, samples: Sequence[Mapping[Any, Any]]) -> Sequence[Answer]:
        """One `Answer` per sample (read by the family), solved side by side.

        Its approximation has the fields of the family's normal form; its `stats` are shown in
        `sol.stats.more`: iterations, residuals, whatever says how that member was solved.
        """
        ...

    def to_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """A JSON-able description and the tensors; the solver's `restore` reads them back."""
        ...


@final
@dataclass(kw_only=True, eq=False, repr=False)
class FamilyOperator(LearnedOperator):
    """Samples of the inputs in, solutions out: `op(sample)(t=0.5, x=[0.1, 0.2])`.

    `status`, `ok`, `evidence`, `error_estimate` judge it by a quantile of the errors on held-out draws
    (`held_out`). The solution of one sample is UNVERIFIED until `sol.verify()` has looked at it.
    """

    model: FamilyModel

    @property
    def declaration(self) -> PDEFamily:
        """The family, also where a problem class declares it."""
        return self.problem if isinstance(self.problem, PDEFamily) else self.problem.system

    @property
    def family(self) -> PDEFamily:
        """The same by its own name."""
        return self.declaration

    def __call__(self, sample: Mapping[Any, Any]) -> Solution:
        """The solution for one sample of the inputs, as `family.sample(n)` gives or of your own.

        Args:
            sample: {given: value}, see `PDEFamily.on`.
        """
        read = self.family.read_sample(sample)
        started = time.perf_counter()
        (answer,) = self.model.solve([read])
        seconds = time.perf_counter() - started
        return self._solution(self.family.on(read), answer, seconds)

    def values(
        self,
        samples: Sequence[Mapping[Any, Any]],
        points: Any,  # shape: (n, d)
        *,
        extrapolate: bool = False,
    ) -> dict[str, np.ndarray]:  # shapes: (n_samples, n)
        """The fields by name at the same points for many samples: no problem is declared for each.

        Args:
            samples: As in a call.
            points: One row per point, columns in the order of `family.coords`.
            extrapolate: Evaluate outside the domain, too; otherwise points there are a ValueError.
        """
        nf = self.family.normal_form
        read = [self.family.read_sample(s) for s in samples]
        places = real_array(points, "points")
        if places.ndim != 2 or places.shape[1] != len(nf.coords):
            names = ", ".join(map(str, nf.coords))
            raise ValueError(f"points have the shape {places.shape}, expected (n, d) for {names}")
        columns = zip(nf.coords, torch.from_numpy(places).unbind(1), strict=True)
        places = torch.stack([placed(nf, c, v, extrapolate) for c, v in columns], 1).numpy()
        found = []
        for answer in self.model.solve(read) if read else ():
            moved = candidate_of(nf, answer.approximation, self.device, self.dtype)
            assert moved.approximation is not None
            found.append(field_values(nf, moved.approximation, places))
        names = list(found[0]) if found else [field_name(f) for f in nf.fields]
        return {n: np.array([f[n] for f in found]).reshape(len(found), len(places)) for n in names}

    def score(
        self,
        n: int = 20,
        *,
        samples: Sequence[Mapping[Any, Any]] | None = None,
        seed: int = 0,
        tol: float | None = None,
        quantile: float | None = None,
        time_limit: float | None = None,
    ) -> HeldOut:
        """Errors against independent solutions on other draws than those of the solve.

        Args:
            n: How many draws.
            samples: Samples of your own instead.
            seed: Of the draws; one seed gives the same draws for every operator of the family.
            tol: What the quantile is judged at; None: as in the solve.
            quantile: Which one; None: as in the solve.
            time_limit: Seconds; as many draws are judged as there is time for, one at least.
        """
        held = self.held_out
        drawn = held_out_draws(self.family, n, seed, round_=1) if samples is None else samples
        return judge_draws(
            self.family,
            self.model,
            drawn,
            quantile=held.quantile if quantile is None else quantile,
            tol=held.tol if tol is None else tol,
            time_limit=time_limit,
            device=self.device,
            dtype=self.dtype,
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write a `.pinn` file (JSON and tensors, nothing executable); `pk.load` reads it."""
        from pinnkit.solution import operator_files

        operator_files.save(self, path)

    def __str__(self) -> str:
        return describe(self, self._what(), "draws")

    def __repr__(self) -> str:
        known = "" if self.error_estimate is None else f", E={self.error_estimate:.2e}"
        return f"<FamilyOperator {self._what()}: {self.status.name}, {self.evidence.name}{known}>"

    def _what(self) -> str:
        fields = ", ".join(map(str, self.family.fields))
        return f"{', '.join(map(str, self.family.given))} -> {fields}"

    def _solution(self, system: PDESystem, answer: Answer, seconds: float) -> Solution:
        held = self.held_out
        known = (
            "the operator has not been judged"
            if self.error_estimate is None
            else f"the operator's error is {held.error:.1e} at the {100 * held.quantile:g} % quantile "
            f"of {len(held.errors)} other draws"
        )
        return Solution(
            problem=system,
            normal_form=system.normal_form,
            solver=self.solver,
            approximation=answer.approximation,
            status=Status.UNVERIFIED,
            verification=Verification(
                math.nan, tol=held.tol, reason=f"nobody has looked at this one yet; {known}"
            ),
            parameters={},
            history=self.history,
            stats=Stats(
                seconds=seconds,
                steps=0,
                parameters=self.stats.parameters,
                points=self.stats.points,
                peak_memory=self.stats.peak_memory,
                stopped_by=Status.OK,
                more=dict(answer.stats),
            ),
            device=self.device,
            dtype=self.dtype,
        )


def held_out_draws(
    family: PDEFamily, n: int, seed: int, *, round_: int = 0
) -> list[dict[Any, Any]]:
    """Draws apart from those of training with the same seed; round 0 judges, others score."""
    stream = np.random.SeedSequence(seed, spawn_key=(HELD_OUT_STREAM, round_))
    return family.sample(n, int(stream.generate_state(1, np.uint64)[0]))


def judge_draws(
    family: PDEFamily,
    model: FamilyModel,
    samples: Sequence[Mapping[Any, Any]],
    *,
    quantile: float,
    tol: float | None = None,
    time_limit: float | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> HeldOut:
    """Judge the model's answer to every sample as a solution is judged, and take a quantile.

    Each error is E of `solution.verification`: the difference from the exact solution or from an
    independent classical one, its own error included. Draws that could not be judged count as inf.

    Args:
        family: The family.
        model: What was learned.
        samples: Draws that training never saw.
        quantile: Between 0 and 1.
        tol: None: 1e-3.
        time_limit: Seconds for all; draws for which none are left are not counted.
        device, dtype: Of the model's answers.
    """
    if not 0 < quantile <= 1:
        raise ValueError(f"quantile={quantile:g} does not lie between 0 and 1")
    tol = DEFAULT_TOL if tol is None else tol
    deadline = math.inf if time_limit is None else time.perf_counter() + time_limit
    found: list[Verification] = []
    for i, sample in enumerate(samples):
        left = deadline - time.perf_counter()
        if found and left <= 0:
            break
        # Equal shares of what is left: a draw that needs less leaves its rest to the others.
        seconds = 75.0 if time_limit is None else max(0.0, left) / (len(samples) - i)
        system = family.on(sample)
        (answer,) = model.solve([family.read_sample(sample)])
        nf = system.normal_form
        there = torch.device(device)
        candidate = candidate_of(nf, answer.approximation, there, dtype)
        found.append(judge(nf, candidate, tol=tol, time_limit=max(seconds, 1.0)))
    if not found:
        return HeldOut(np.zeros(0), quantile, math.nan, tol, Evidence.NONE, "no draw was judged")
    judged = [v.evidence in JUDGING and not math.isnan(v.error) for v in found]
    errors = np.array([v.error if j else math.inf for v, j in zip(found, judged, strict=True)])
    kinds = [v.evidence for v, j in zip(found, judged, strict=True) if j]
    evidence = max(kinds, key=ORDER.index) if kinds else Evidence.NONE
    reasons = []
    if len(found) < len(samples):
        reasons.append(f"there was time for {len(found)} of {len(samples)} draws")
    if not all(judged):
        first = next(v for v, j in zip(found, judged, strict=True) if not j)
        reasons.append(
            f"{judged.count(False)} of them could not be judged and count as wrong ({first.reason})"
        )
    error = quantile_of(errors, quantile) if kinds else math.nan
    return HeldOut(errors, quantile, error, tol, evidence, "; ".join(reasons))
