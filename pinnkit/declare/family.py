"""Families: one system of equations for every draw of its inputs.

In    a `PDESystem` with given numbers and functions, and a distribution for each of them.
Out   `PDEFamily`: samples of the inputs, the system of one sample, its reference solution.
Next  `solvers.hard_constraint_moe` learns the operator input -> fields.

What a solver may rely on:

- `family.system` the `PDESystem` with `Given` symbols u0 and applied functions a(x) in it;
  `family.normal_form` its normal form. `normal_form.given` lists both kinds, by name. Residuals hold
  u0, a(x) and, after div(a*grad(u)), Derivative(a(x), x); also on faces, where a(x) keeps its x.
- `family.inputs` {given: distribution}; `family.given` its keys, by name.
- `family.sample(n, seed)` a list of n dictionaries {given: float for a number, sympy expression in
  the function's coordinates for a function}. Draw i depends on (seed, i) only, so that
  `sample(3, s) == sample(5, s)[:3]`, and `sample(2, s, start=3)` are draws 3 and 4: ranks draw their own.
- `family.values(samples, points, leaves=None)` {leaf: (n_samples, n_points)} numpy, at `points` (n, d)
  with columns in the order of `family.coords`; leaves are `family.leaves`: all u0, a(x), Derivative(a(x), x)
  that occur in the normal form, which is what a compiled residual needs beside coordinates and fields.
- `family.on(sample)` the ordinary `PDESystem` of one sample; `family.reference(sample)` its `Solution`
  by `MethodOfLines`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np
import sympy as sp

from pinnkit.declare.distributions import AbstractDistribution
from pinnkit.declare.problem import AbstractProblem, PDESystem
from pinnkit.errors import DeclarationError

if TYPE_CHECKING:
    from pinnkit.ir.normal_form import NormalForm

__all__ = ["PDEFamily"]

Sample = Mapping[Any, Any]


@final
class PDEFamily(AbstractProblem):
    """The same equations for every draw of the inputs; to be solved for all of them at once.

    Args:
        system: A `PDESystem` with given numbers `given("u0")` or functions `given("a", x)` in it.
        inputs: {given: distribution}, one for each.

    >>> from pinnkit.declare import Dirichlet, Initial, Interval, Uniform, boundary, coords, field, given
    >>> t, x = coords("t x")
    >>> u, u0 = field("u", t, x), given("u0")
    >>> heat = PDESystem(
    ...     [u.diff(t) - u.diff(x, 2)],
    ...     Interval(t, 0, 1) * Interval(x, 0, 1),
    ...     [Initial(u, u0 * sp.sin(sp.pi * x)), Dirichlet(u, 0, on=boundary(x))],
    ... )
    >>> family = PDEFamily(heat, inputs={u0: Uniform(0.5, 1.0)})
    >>> family.on({u0: 0.75}).conditions[0]
    Initial(u, 0.75*sin(pi*x))
    """

    _system: PDESystem
    inputs: Mapping[Any, AbstractDistribution]
    _normal_form: NormalForm

    def __init__(self, system: PDESystem, inputs: Mapping[Any, AbstractDistribution]) -> None:
        from pinnkit.ir.family_checks import check_family  # late: ir stands above declare
        from pinnkit.ir.find_corners import report_corners

        put = vars(self).__setitem__  # the instance is closed to plain assignment
        put("_system", system)
        put("inputs", check_family(system, inputs))
        put("_normal_form", self._with_corners())
        report_corners(self._normal_form.corners)

    @classmethod
    def without_warnings(cls, system: PDESystem, inputs: Any) -> PDEFamily:
        """The family, checked as ever; for files, and where a jump at a corner is meant."""
        from pinnkit.ir.family_checks import check_family

        made = object.__new__(cls)
        vars(made).update(_system=system, inputs=check_family(system, inputs))
        vars(made).update(_normal_form=made._with_corners())
        return made

    @property
    def system(self) -> PDESystem:
        """The equations with the given symbols in them."""
        return self._system

    @property
    def normal_form(self) -> NormalForm:
        """What solvers read; its `given` lists the inputs, its `corners` are those of the first draw."""
        return self._normal_form

    @property
    def given(self) -> tuple[Any, ...]:
        """The given numbers and functions, by name."""
        return self._system.normal_form.given

    @property
    def leaves(self) -> tuple[sp.Expr, ...]:
        """Every given number, function and derivative of one in the normal form, beside its fields."""
        from pinnkit.ir.family_values import given_leaves

        return given_leaves(self._system.normal_form)

    def sample(self, n: int, seed: int = 0, *, start: int = 0) -> list[dict[Any, Any]]:
        """Draws `start` to `start + n - 1` of the inputs: {given: number, or expression}.

        Draw i depends on the seed and on i alone, whatever n is.
        """
        if n < 0 or start < 0:
            raise ValueError(f"sample({n}, start={start}): a number of draws is not negative")
        bounds = self._system.domain.bounds
        drawn = []
        for i in range(start, start + n):
            rngs = [
                np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i, j)))
                for j in range(len(self.given))
            ]
            drawn.append(
                {
                    g: self.inputs[g].draw(r, g, bounds)
                    for g, r in zip(self.given, rngs, strict=True)
                }
            )
        return drawn

    def on(self, sample: Sample) -> PDESystem:
        """The problem of one sample: what was drawn stands in the place of the given symbols.

        Args:
            sample: {given: value} for every input: a number, for a function an expression in its
                coordinates. Names may stand for the symbols.
        """
        return self._put(self.read_sample(sample))

    def read_sample(self, sample: Sample) -> dict[Any, Any]:
        """The sample with symbols as keys and floats or expressions as values; refused if incomplete."""
        from pinnkit.ir.family_checks import read_sample

        return read_sample(self, sample)

    def values(
        self,
        samples: Sequence[Sample],
        points: Any,  # shape: (n, d)
        leaves: Sequence[sp.Expr] | None = None,
    ) -> dict[Any, np.ndarray]:  # shapes: (n_samples, n)
        """The inputs as numbers: {leaf: (n_samples, n)}, read-only where they do not vary.

        Args:
            samples: What `sample` returned, or dictionaries of your own.
            points: One row per point, columns in the order of `coords`.
            leaves: Given numbers, functions and derivatives of them; None: those of `leaves`.
        """
        from pinnkit.ir.family_values import values_of

        read = [self.read_sample(s) for s in samples]
        return values_of(self, read, points, self.leaves if leaves is None else leaves)

    def reference(self, sample: Sample, *, accuracy: float | None = None, **knobs: Any) -> Any:
        """The `Solution` of one sample by `MethodOfLines`, whose own error is known.

        Args:
            sample: As in `on`.
            accuracy: Relative error to refine to; None: 1e-7, which may take many times longer than 1e-4.
            knobs: Of `pinnkit.solve`, such as `tol=`, `time_limit=`, `verify=False` (half the time; the
                reference's own estimate of its error is in `sol.stats.more["own_error"]`).
        """
        from pinnkit.driver import MethodOfLines, solve  # late: the driver stands above all solvers

        return solve(self.on(sample), MethodOfLines(tol=accuracy), **knobs)

    def remake(self, *, system: Any = None, inputs: Any = None) -> PDEFamily:
        """The same family with another system or other distributions."""
        return PDEFamily(
            self._system if system is None else system, self.inputs if inputs is None else inputs
        )

    def _put(self, values: dict[Any, Any]) -> PDESystem:
        system = self._system
        exact = system.exact
        if exact is not None:
            exact = {f: sp.sympify(e).subs(values) for f, e in exact.items()}
        return PDESystem.without_warnings(
            tuple(e.subs(values) for e in system.equations),
            system.domain,
            tuple(c.subs(values) for c in system.conditions),
            exact=exact,
        )

    def _with_corners(self) -> NormalForm:
        """The normal form, with what the first draw says of it: the checks that need numbers are made there."""
        (sample,) = self.sample(1)
        try:
            member = self._put(self.read_sample(sample))
        except DeclarationError as refused:
            shown = ", ".join(f"{g} = {v}" for g, v in sample.items())
            raise DeclarationError(
                f"with the first draw of the inputs, {shown}: {refused}"
            ) from None
        corners = member.normal_form.corners
        return dataclasses.replace(self._system.normal_form, corners=corners)

    def __repr__(self) -> str:
        lines = [f"    {g} from {law!r}" for g, law in self.inputs.items()]
        return "\n".join([repr(self._system).replace("PDESystem", "PDEFamily", 1), "  for", *lines])
