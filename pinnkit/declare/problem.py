"""Problems: what every problem offers, and `PDESystem`, equations with conditions on a domain.

In    equations, a domain, conditions: sympy and the records of this folder.
Out   an immutable problem, validated when it is made; `.normal_form` is what solvers read.
Next  `ir.normalise` does the validating, `pinnkit.driver.solve` the solving (both imported late).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, final

import sympy as sp
from sympy.logic.boolalg import BooleanAtom

from pinnkit.declare.conditions import AbstractCondition, read_expr
from pinnkit.declare.domains import AbstractDomain
from pinnkit.declare.printing import refusal, show

if TYPE_CHECKING:
    from pinnkit.ir.diagnose import Diagnosis
    from pinnkit.ir.normal_form import NormalForm

__all__ = ["AbstractProblem", "PDESystem", "check_unknown_numbers", "read_equation"]

_KEEP: Any = object()


class AbstractProblem(ABC):
    """Anything with something unknown in it that a solver can make known."""

    @property
    @abstractmethod
    def system(self) -> Any:
        """What was declared: a `PDESystem`, `GraphSystem` or `GraphProblem`."""

    @property
    def coords(self) -> tuple[sp.Symbol, ...]:
        """The coordinates, in the order of the domain."""
        return self.system.coords

    @property
    def fields(self) -> tuple[sp.Expr, ...]:
        """The unknown fields as declared; complex ones unsplit."""
        return self.system.fields

    @property
    def parameters(self) -> tuple[sp.Symbol, ...]:
        """The unknown numbers."""
        return self.system.parameters

    @property
    def normal_form(self) -> Any:
        """What solvers read."""
        return self.system.normal_form

    def solve(self, solver: Any = None, **knobs: Any) -> Any:
        """Solve; without a solver one is chosen and named in the log. Knobs: see `pinnkit.solve`."""
        from pinnkit.driver import solve  # late: the driver stands above all solvers

        return solve(self, solver, **knobs)

    def residual(self, candidate: Any) -> Any:
        """Left minus right side of every equation and condition for a candidate.

        Args:
            candidate: A sympy expression (one field) or {field: expression}.
        """
        return self.system.residual(candidate)

    def diagnose(self) -> Diagnosis:
        """Classification, dimensionless groups, corners, conserved quantities, what will be hard."""
        return self.system.diagnose()

    def latex(self) -> str:
        """Equations, domain and conditions for a paper."""
        return self.system.latex()

    # Closed to assignment; constructors write into `vars(self)`.

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"problems are immutable; use .remake({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("problems are immutable; use .remake(...)")


def check_unknown_numbers(given: Iterable[Any], problem: AbstractProblem, what: str) -> None:
    """Refuse to give a value to what is no unknown number of the problem ("problem" or "system")."""
    for p in given:
        if p not in problem.parameters:
            raise refusal(
                f"remake(parameters={{{show(p)}: ...}})",
                f"{show(p)} is no unknown number of this {what}",
                f"choose among {', '.join(map(str, problem.parameters)) or 'none'}",
            )


@final
class PDESystem(AbstractProblem):
    """Equations that hold in a domain, with conditions. Also ODEs: one coordinate.

    Args:
        equations: Expressions ("= 0" understood), sp.Eq, or columns of them.
        domain: Interval, Box, a region, or a product.
        conditions: Initial, Dirichlet, Neumann, Robin, Periodic, Gauge, Integral, Observations.
        exact: The exact solution, an expression (one field) or {field: expression}, if known.

    >>> from pinnkit.declare import Initial, Interval, coords, field
    >>> t = coords("t")
    >>> y = field("y", t)
    >>> decay = PDESystem([y.diff(t) + y], Interval(t, 0, 1), [Initial(y, 1)])
    >>> decay.residual(sp.exp(-t))
    (0, 0)
    """

    equations: tuple[Any, ...]
    domain: AbstractDomain
    conditions: tuple[AbstractCondition, ...]
    exact: dict[sp.Expr, sp.Expr] | None
    _fields: tuple[sp.Expr, ...]
    _normal_form: NormalForm

    def __init__(
        self,
        equations: Any,
        domain: AbstractDomain,
        conditions: Iterable[AbstractCondition] = (),
        *,
        exact: Any = None,
    ) -> None:
        from pinnkit.ir.find_corners import report_corners  # late: ir stands above declare

        self._declare(equations, domain, conditions, exact)
        report_corners(self._normal_form.corners)

    @classmethod
    def without_warnings(
        cls, equations: Any, domain: Any, conditions: Any, *, exact: Any = None
    ) -> PDESystem:
        """The problem, checked as ever; for files, whose writer has been warned about corners."""
        made = object.__new__(cls)
        made._declare(equations, domain, conditions, exact)
        return made

    def _declare(self, equations: Any, domain: Any, conditions: Any, exact: Any) -> None:
        from pinnkit.ir.check_exact import read_exact
        from pinnkit.ir.normalise import normalise

        put = vars(self).__setitem__  # the instance is closed to plain assignment
        put("equations", _read_equations(equations))
        put("domain", _read_domain(domain))
        put("conditions", _read_conditions(conditions))
        put("exact", None)
        normal_form, fields = normalise(self)
        put("_fields", fields)
        put("_normal_form", normal_form)
        if exact is not None:
            read_exact(self, exact, put)

    @property
    def system(self) -> PDESystem:
        """Itself."""
        return self

    @property
    def coords(self) -> tuple[sp.Symbol, ...]:
        """The coordinates, in the order of the domain."""
        return self.domain.coords

    @property
    def fields(self) -> tuple[sp.Expr, ...]:
        """The unknown fields as declared; complex ones unsplit."""
        return self._fields

    @property
    def parameters(self) -> tuple[sp.Symbol, ...]:
        """The unknown numbers."""
        return self._normal_form.parameters

    @property
    def normal_form(self) -> NormalForm:
        """What solvers read."""
        return self._normal_form

    def residual(self, candidate: Any) -> tuple[sp.Expr, ...]:
        """Left minus right side of every equation and condition for a candidate.

        Args:
            candidate: A sympy expression (one field) or {field: expression}.
        """
        from pinnkit.ir.residual import residual_of

        return residual_of(self, candidate)

    def diagnose(self) -> Diagnosis:
        """Classification, dimensionless groups, corners, conserved quantities, what will be hard."""
        from pinnkit.ir.diagnose import diagnose

        return diagnose(self)

    def latex(self) -> str:
        """Equations, domain and conditions for a paper."""
        from pinnkit.ir.latex import latex_of

        return latex_of(self)

    def remake(
        self,
        *,
        equations: Any = _KEEP,
        domain: Any = _KEEP,
        conditions: Any = _KEEP,
        parameters: Mapping[sp.Symbol, float] | None = None,
        exact: Any = _KEEP,
    ) -> PDESystem:
        """The same problem with some parts exchanged.

        Args:
            equations: New equations.
            domain: New domain.
            conditions: New conditions.
            parameters: {nu: 0.02} turns unknown numbers into known ones.
            exact: New exact solution; dropped if anything else changes and none is given.
        """
        eqs = self.equations if equations is _KEEP else _read_equations(equations)
        conds = self.conditions if conditions is _KEEP else _read_conditions(conditions)
        new_domain = self.domain if domain is _KEEP else domain
        keep_exact = equations is _KEEP and domain is _KEEP and conditions is _KEEP
        new_exact = (self.exact if keep_exact else None) if exact is _KEEP else exact
        if parameters is not None and not isinstance(parameters, Mapping):
            raise refusal(
                f"remake(parameters={parameters!r})",
                "that is not a dictionary",
                "write remake(parameters={nu: 0.02})",
            )
        if parameters:
            check_unknown_numbers(parameters, self, "problem")
            values: dict[Any, Any] = {
                p: read_expr(v, f"remake(parameters={{{p}: {v}}})") for p, v in parameters.items()
            }
            eqs = tuple(e.subs(values) for e in eqs)
            conds = tuple(c.subs(values) for c in conds)
            if new_exact is not None:
                new_exact = {f: sp.sympify(e).subs(values) for f, e in new_exact.items()}
        return PDESystem(eqs, new_domain, conds, exact=new_exact)

    def with_exact(self, exact: Any) -> PDESystem:
        """The same problem with an exact solution attached (and checked)."""
        from pinnkit.ir.check_exact import read_exact

        twin = object.__new__(PDESystem)
        vars(twin).update(vars(self))
        read_exact(twin, exact, vars(twin).__setitem__)
        return twin

    def __repr__(self) -> str:
        lines = [
            f"    {show(e)}{'' if isinstance(e, sp.Equality) else ' = 0'}" for e in self.equations
        ]
        conditions = [f"    {c!r}" for c in self.conditions]
        return "\n".join(["PDESystem:", *lines, f"  on {self.domain!r} with", *conditions])


def _read_equations(equations: Any) -> tuple[Any, ...]:
    parts = list(equations) if isinstance(equations, (list, tuple, sp.Tuple)) else [equations]
    if not parts:
        raise refusal("PDESystem([], ...)", "there is no equation", "give at least one equation")
    return tuple(read_equation(e, i + 1) for i, e in enumerate(parts))


def read_equation(equation: Any, number: int) -> Any:
    """An expression, or sp.Eq of finite sides; anything else is refused."""
    wrote = f"equation {number}, {show(equation)}"
    if isinstance(equation, (bool, BooleanAtom)):
        raise refusal(
            wrote,
            "this is a truth value, as == gives in Python, or an equation that is always "
            + ("true" if equation else "false"),
            "write sp.Eq(left, right), or left - right",
        )
    if isinstance(equation, sp.Equality):
        sides = [s.has(sp.nan, sp.oo, -sp.oo, sp.zoo) for s in (equation.lhs, equation.rhs)]
        if any(sides):
            raise refusal(wrote, "it is not finite", "write finite numbers only")
        return equation
    if isinstance(equation, sp.core.relational.Relational):
        raise refusal(wrote, "an inequality is no equation", "write sp.Eq(left, right)")
    return read_expr(equation, wrote)


def _read_domain(domain: Any) -> AbstractDomain:
    if not isinstance(domain, AbstractDomain):
        raise refusal(
            f"domain={domain!r}",
            "that is not a domain",
            "write Interval(t, 0, 1) * Interval(x, -1, 1)",
        )
    return domain


def _read_conditions(conditions: Any) -> tuple[AbstractCondition, ...]:
    if isinstance(conditions, AbstractCondition):
        return (conditions,)
    if isinstance(conditions, (str, sp.Basic)) or not isinstance(conditions, Iterable):
        conditions = [conditions]  # refused below, as anything that is no condition
    parts = tuple(conditions)
    for c in parts:
        if not isinstance(c, AbstractCondition):
            raise refusal(
                f"conditions=[..., {show(c)}, ...]",
                "that is not a condition",
                "write Initial(u, value), Dirichlet(u, value, on=boundary(x)), Periodic(u, x), ...",
            )
    return parts
