"""Systems of ordinary differential equations by an explicit method of order 8.

In    a NormalForm with time as its only coordinate.
Out   `ExplicitLadder`: tighter tolerances level by level.
Next  `refine` climbs it, to check what the implicit methods found.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.integrate
import sympy as sp

from pinnkit.classical.expressions import compile_value, find_leaves
from pinnkit.classical.features import find_breaks
from pinnkit.classical.grid_approximation import FieldGrid, GridApproximation
from pinnkit.classical.implicit import IntegrationError, OutOfTime, TimeGrid
from pinnkit.ir.normal_form import NormalForm

__all__ = ["ExplicitLadder", "explicit_rates"]

Array = np.ndarray
log = logging.getLogger(__name__)

DENSE = (1 - np.cos(np.pi * np.arange(8) / 7)) / 2  # nodes of the stored polynomial, degree 7
MOST_STEPS = 5000  # of the first level; more means stiff
LEAST_TOLERANCE = 3e-14


class ExplicitLadder:
    """DOP853 (Hairer, Norsett & Wanner I, II.10) at relative tolerances 1e-5, 1e-6.5, 1e-8, ..."""

    def __init__(
        self, nf: NormalForm, rates: Callable[[float, Array], Array], start: Array
    ) -> None:
        self.nf = nf
        self.rates = rates
        self.start = start
        self.tolerance = 1e-5
        self.level = 0
        self.growth = 1.6

    def climb(self, deadline: float) -> tuple[GridApproximation, dict[str, Any]]:
        assert self.nf.time is not None
        if self.tolerance < LEAST_TOLERANCE:
            raise IntegrationError("rounding errors stop further refinement")
        lower, upper = self.nf.bounds[self.nf.time]
        breaks, states = [lower], [self.start]
        # No step crosses a narrow feature of the data: one would not see it.
        stops = [*find_breaks(self.nf)[self.nf.time], upper]
        for stop in stops:
            self._advance(stop, breaks, states, deadline)
        self.level += 1
        info = {"steps": len(breaks) - 1, "unknowns": len(self.start), "accuracy": self.tolerance}
        log.debug("level %s", info)
        self.tolerance /= 10**1.5
        grid = TimeGrid(np.array(breaks), DENSE, np.array(states))
        # Fields first, their derivatives behind: see explicit_rates.
        fields = [
            FieldGrid((grid.basis,), grid.states[:, i].copy()) for i in range(len(self.nf.fields))
        ]
        return GridApproximation(fields), info

    def _advance(
        self, stop: float, breaks: list[float], states: list[Array], deadline: float
    ) -> None:
        """Append the steps up to `stop`."""
        assert self.nf.time is not None
        lower, upper = self.nf.bounds[self.nf.time]
        largest = max(1e-3 * float(np.abs(self.start).max()), 1e-12)
        with np.errstate(all="ignore"):  # a step that overflows is rejected, or fails below
            solver = scipy.integrate.DOP853(
                self.rates,
                breaks[-1],
                states[-1],
                stop,
                rtol=self.tolerance,
                atol=self.tolerance * largest,
                max_step=(upper - lower) / 8 * 1.5**-self.level,
            )
            while solver.status == "running":
                problem = solver.step()
                if solver.status == "failed" or not np.isfinite(solver.y).all():
                    raise IntegrationError(
                        f"the solution grew beyond bounds near {self.nf.time} = {breaks[-1]:.6g}"
                        + (f": {problem}" if problem else "")
                    )
                if time.monotonic() > deadline:
                    raise OutOfTime
                if self.level == 0 and len(breaks) > MOST_STEPS:
                    raise IntegrationError(
                        "the system is stiff: an explicit method takes too many steps"
                    )
                dense = solver.dense_output()
                begin, end = breaks[-1], float(solver.t)
                states.extend(dense(begin + (end - begin) * DENSE[1:]).T)
                breaks.append(end)


def explicit_rates(nf: NormalForm) -> tuple[Callable[[float, Array], Array], Array] | None:
    """(f, y0) of y' = f(t, y), where y is the fields and then their lower derivatives; None where the
    equations cannot be solved for the highest derivatives."""
    if nf.time is None or nf.space:
        return None
    orders = dict.fromkeys(nf.fields, 0)
    for equation in nf.equations:
        for leaf in find_leaves(equation.residual, nf).values():
            u = nf.fields[leaf.field]
            orders[u] = max(orders[u], leaf.alpha[0])
    if min(orders.values()) == 0:
        return None
    variables: list[sp.Expr] = list(nf.fields)
    variables += [sp.Derivative(u, (nf.time, k)) for u in nf.fields for k in range(1, orders[u])]
    highest = [sp.Derivative(u, (nf.time, orders[u])) for u in nf.fields]
    symbols = [sp.Dummy(f"y{i}", real=True) for i in range(len(variables))]
    tops = [sp.Dummy(f"d{i}", real=True) for i in range(len(highest))]
    names = dict(zip([*variables, *highest], [*symbols, *tops], strict=True))
    plain = [e.residual.xreplace(names) for e in nf.equations]
    try:
        matrix, right = sp.linear_eq_to_matrix(plain, tops)
        solved = matrix.LUsolve(right)
    except (
        sp.SympifyError,
        ValueError,
        ZeroDivisionError,
        sp.matrices.exceptions.NonInvertibleMatrixError,
    ):
        return None
    by_variable = dict(zip(variables, symbols, strict=True))
    rates: list[sp.Expr] = []
    for v in variables:
        u: Any = v.expr if isinstance(v, sp.Derivative) else v
        count = 0 if v in orders else int(nf.multi_index(v)[0])
        top = count + 1 == orders[u]
        rates.append(
            solved[nf.fields.index(u)]
            if top
            else by_variable[sp.Derivative(u, (nf.time, count + 1))]
        )
    start = np.zeros(len(variables))
    for condition in nf.conditions:
        target, value = condition.target, condition.value
        if condition.kind != "initial" or target is None or value is None:
            continue
        if target in by_variable:
            time0 = np.array([nf.bounds[nf.time][0]])
            start[variables.index(target)] = compile_value(value, nf)([time0], (1,))[0]
    function = sp.lambdify([nf.time, *symbols], rates, modules=["scipy", "numpy"], cse=True)

    def evaluate(t: float, y: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.array(function(t, *y), dtype=float)

    return evaluate, start
