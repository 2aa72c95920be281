"""Problem classes: a family of problems with parameters and a name.

In    a class with annotated numbers and a `declare` method.
Out   a frozen dataclass with .solve(), .remake(), .system; picklable.
Next  the gallery in `pinnkit.problems` is written with it.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, TypeVar, dataclass_transform

from pinnkit.declare.family import PDEFamily
from pinnkit.declare.graph_system import GraphProblem, GraphSystem
from pinnkit.declare.graph_target import GraphTarget
from pinnkit.declare.printing import refusal
from pinnkit.declare.problem import AbstractProblem, PDESystem
from pinnkit.declare.sde_system import SDESystem
from pinnkit.declare.series_target import SeriesTarget

__all__ = ["FamilyClass", "ProblemClass", "problem"]

_SYSTEMS = (
    PDESystem,
    PDEFamily,
    GraphSystem,
    GraphProblem,
    GraphTarget,
    SDESystem,
    SeriesTarget,
)

T = TypeVar("T", bound="type[ProblemClass]")


class ProblemClass(AbstractProblem):
    """Base of problem classes; decorate them with `problem`.

    Override `declare`; where an exact solution is known, `exact` as {field: expression}.
    """

    citation: ClassVar[str] = ""

    @abstractmethod
    def declare(self) -> Any:
        """The equations for these parameters: a PDESystem, a GraphSystem, or one on a graph."""

    def exact(self) -> Any:
        """The exact solution {field: expression}, None if unknown."""
        return None

    def __post_init__(self) -> None:
        # Declared at once, so that a wrong parameter is refused here and not when solving.
        self.system  # noqa: B018

    @cached_property
    def system(self) -> Any:
        """The declared system, with the exact solution attached."""
        declared = self.declare()
        if not isinstance(declared, _SYSTEMS):
            raise refusal(
                f"{type(self).__name__}.declare()",
                f"it returned {type(declared).__name__}",
                "return a PDESystem, a PDEFamily, a GraphSystem or an SDESystem",
            )
        exact = self.exact()
        if exact is None or not isinstance(declared, PDESystem):
            return declared
        return declared.with_exact(exact)

    def remake(self, **changes: Any) -> Any:
        """The same class with other parameters."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def __getstate__(self) -> dict[str, Any]:
        # The declared system is rebuilt from the parameters, never stored.
        return {k: v for k, v in self.__dict__.items() if k != "system"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class FamilyClass(ProblemClass):
    """Base of problem classes whose `declare` returns a `PDEFamily`: what families have, by the same names."""

    @abstractmethod
    def declare(self) -> PDEFamily:
        """The family for these parameters."""

    @property
    def inputs(self) -> Mapping[Any, Any]:
        """{given: distribution}."""
        return self.system.inputs

    @property
    def given(self) -> tuple[Any, ...]:
        """The given numbers and functions, by name."""
        return self.system.given

    def sample(self, n: int, seed: int = 0, *, start: int = 0) -> list[dict[Any, Any]]:
        """Draws of the inputs: see `PDEFamily.sample`."""
        return self.system.sample(n, seed, start=start)

    def values(
        self, samples: Sequence[Any], points: Any, leaves: Sequence[Any] | None = None
    ) -> dict[Any, Any]:
        """The inputs as numbers at points: see `PDEFamily.values`."""
        return self.system.values(samples, points, leaves)

    def on(self, sample: Mapping[Any, Any]) -> PDESystem:
        """The problem of one sample."""
        return self.system.on(sample)

    def reference(self, sample: Mapping[Any, Any], **knobs: Any) -> Any:
        """The classical solution of one sample: see `PDEFamily.reference`."""
        return self.system.reference(sample, **knobs)


@dataclass_transform(frozen_default=True)
def problem(cls: T) -> T:
    """Make a frozen dataclass of a `ProblemClass`: its annotated attributes are the parameters."""
    if not (isinstance(cls, type) and issubclass(cls, ProblemClass)):
        raise refusal(
            f"@problem on {getattr(cls, '__name__', cls)!s}",
            "it does not derive from ProblemClass",
            f"write class {getattr(cls, '__name__', 'Name')}(pk.ProblemClass)",
        )
    own = {n for base in cls.__mro__ for n in vars(base).get("__annotations__", {})}
    taken = sorted(n for n in own & set(dir(AbstractProblem)) if not n.startswith("__"))
    if taken:
        raise refusal(
            f"@problem class {cls.__name__}",
            f"its parameter {taken[0]} hides what every problem has under that name",
            "give the parameter another name",
        )
    return dataclasses.dataclass(frozen=True)(cls)  # type: ignore[return-value]
