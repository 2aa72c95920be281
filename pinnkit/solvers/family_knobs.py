"""The knobs of `HardConstraintMoE` for each kind of family: which there are, and their defaults.

In    a `HardConstraintMoE`, whose knobs are None where the kind decides.
Out   `BasisKnobs` (a learned basis, one dimension) or `TorusKnobs` (a learned march, periodic boxes).
Next  `hard_constraint_model` and `torus_constraint` read them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

__all__ = ["BasisKnobs", "TorusKnobs", "foreign_knobs"]

WIDEST = 64  # of a trunk whose width is left open
PARTS = 8  # elements in time of a periodic box, unless told otherwise


@dataclass(frozen=True, kw_only=True)
class _Common:
    """What both kinds have."""

    overlap: float = 1.0
    constraint: bool = True
    rtol: float = 1e-6
    max_steps: int = 30

    @classmethod
    def of(cls, solver: Any) -> Self:
        """With what the solver says, and the defaults of this kind where it says None."""
        said = {f.name: getattr(solver, f.name) for f in fields(cls)}
        return cls(**{name: value for name, value in said.items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class BasisKnobs(_Common):
    """For one space dimension; see `HardConstraintMoE`."""

    functions: int = 12
    experts: int = 4
    stages: int = 1
    norm: str = "defect"
    width: int = 24
    depth: int = 2
    times: int = 24
    nodes: int = 48
    grading: float | None = None
    draws: int = 6
    renew: int = 50
    steps: int = 100

    @classmethod
    def of(cls, solver: Any) -> Self:
        """As ever; a trunk as wide as it has functions, for no more of them are independent.

        Up to `WIDEST`: the optimiser holds a dense matrix of as many rows as there are weights.
        """
        functions = solver.functions or cls.functions
        width = solver.width or max(cls.width, min(functions, WIDEST))
        said: dict[str, Any] = {f.name: getattr(solver, f.name) for f in fields(cls)}
        said["width"] = width
        return cls(**{name: value for name, value in said.items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class TorusKnobs(_Common):
    """For boxes that are periodic along every axis; see `HardConstraintMoE`."""

    experts: int = 1
    stages: int = PARTS
    elements: int = 1
    corrections: int = 24
    width: int = 20
    depth: int = 3
    times: int = 3
    nodes: int = 32
    draws: int = 8
    renew: int = 20
    steps: int = 750

    @classmethod
    def of(cls, solver: Any) -> Self:
        """As ever; of `stages` and `elements` the one left out makes eight elements in all."""
        stages, elements = solver.stages, solver.elements
        if stages is None:
            stages = max(1, PARTS // (elements or 1)) if solver.constraint else 1
        if elements is None:
            elements = max(1, PARTS // stages)
        said = {f.name: getattr(solver, f.name) for f in fields(cls)}
        said |= {"stages": stages, "elements": elements}
        return cls(**{name: value for name, value in said.items() if value is not None})

    @property
    def fault(self) -> str | None:
        """What these knobs cannot do together."""
        if self.nodes % 2 or self.nodes < 4:
            return f"nodes={self.nodes} must be even and at least 4 on a periodic box"
        if self.experts > 1 and self.overlap == 0:
            return (
                f"experts={self.experts} need overlap > 0: trigonometric polynomials have no jumps"
            )
        return None


def foreign_knobs(solver: Any, kind: type[_Common]) -> list[str]:
    """Knobs that were given a value and mean nothing for families of this kind."""
    other = {BasisKnobs: TorusKnobs, TorusKnobs: BasisKnobs}[kind]
    own = {f.name for f in fields(kind)}
    alien = [f.name for f in fields(other) if f.name not in own]
    return [f"{n}={getattr(solver, n)!r}" for n in alien if getattr(solver, n) is not None]
