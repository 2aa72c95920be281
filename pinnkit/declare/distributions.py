"""Distributions of a family's inputs: numbers from a law, or from the user's own list.

In    the numbers of the law.
Out   `Uniform`, `Normal`, `LogNormal`, `FromSamples`, each with `draw`.
Next  `declare.gaussian_field` draws functions; `declare.family` binds them to the given symbols.

A law of your own is a frozen dataclass that derives from `AbstractDistribution`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import sympy as sp

from pinnkit.declare.expansion import Expansion, expanded
from pinnkit.declare.given import AppliedGiven
from pinnkit.declare.printing import refusal, show
from pinnkit.declare.symbols import Coordinate

__all__ = ["AbstractDistribution", "FromSamples", "LogNormal", "Normal", "Uniform"]

Bounds = Mapping[Any, tuple[float, float]]  # by coordinate


class AbstractDistribution(ABC):
    """Where the values of one input come from."""

    @abstractmethod
    def check(self, target: Any, bounds: Bounds) -> None:
        """Refuse a given symbol that cannot be drawn from this law.

        Args:
            target: A given number or an applied given function.
            bounds: Lower and upper end of every coordinate of the domain.
        """

    @abstractmethod
    def draw(self, rng: np.random.Generator, target: Any, bounds: Bounds) -> float | sp.Expr:
        """A number, or for a function an expression in its coordinates."""


class _OfNumbers(AbstractDistribution):
    """A law of numbers."""

    def check(self, target: Any, bounds: Bounds) -> None:
        if isinstance(target, AppliedGiven):
            raise refusal(
                f"inputs={{{show(target)}: {self!r}}}",
                f"{show(target)} is a function of {', '.join(map(str, target.args))}, and "
                f"{type(self).__name__} draws numbers",
                "write GaussianField(...) or FromSamples(values on a grid), or make the function a "
                "formula with given numbers in it",
            )


@final
@dataclass(frozen=True)
class Uniform(_OfNumbers):
    """Every number between `low` and `high` with the same probability."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _read_numbers(self, "low", "high")
        if not self.low < self.high:
            raise refusal(repr(self), "the interval is empty", "write low < high")

    def draw(self, rng: np.random.Generator, target: Any, bounds: Bounds) -> float:
        return float(rng.uniform(self.low, self.high))


@final
@dataclass(frozen=True)
class Normal(_OfNumbers):
    """The normal law of mean `mean` and standard deviation `std`."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        _read_numbers(self, "mean", "std")
        _check_positive(self, "std")

    def draw(self, rng: np.random.Generator, target: Any, bounds: Bounds) -> float:
        return float(rng.normal(self.mean, self.std))


@final
@dataclass(frozen=True)
class LogNormal(_OfNumbers):
    """exp of a normal number: `median` times a factor whose logarithm has the standard deviation `sigma`."""

    median: float
    sigma: float

    def __post_init__(self) -> None:
        _read_numbers(self, "median", "sigma")
        _check_positive(self, "median")
        _check_positive(self, "sigma")

    def draw(self, rng: np.random.Generator, target: Any, bounds: Bounds) -> float:
        return float(self.median * math.exp(rng.normal(0.0, self.sigma)))


@final
@dataclass(frozen=True, eq=False)
class FromSamples(AbstractDistribution):
    """One of the user's own values, each with the same probability.

    Args:
        values: (n,) numbers for a given number; (n, n_1, ..., n_d) values on a grid for a function of
            d coordinates. Between the nodes a function is the cubic spline through its values, on a
            periodic domain the trigonometric polynomial.
        nodes: {coordinate: (n_i,) ascending}, from end to end of the domain; None: equally spaced.
        periodic: The functions repeat along all their coordinates; then the grid is equally spaced
            and leaves out the upper end.
    """

    values: Any = field(repr=False)
    nodes: Mapping[Any, Any] | None = field(default=None, repr=False)
    periodic: bool = False

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=float)
        wrote = f"FromSamples(values of shape {values.shape})"
        if values.ndim == 0 or len(values) == 0:
            raise refusal(wrote, "there is no sample", "give an array whose rows are samples")
        if not np.isfinite(values).all():
            raise refusal(wrote, "some value is not finite", "leave out such samples")
        values.setflags(write=False)
        object.__setattr__(self, "values", values)
        if self.nodes is not None:
            if self.periodic:
                raise refusal(wrote, "a periodic grid is equally spaced", "leave out nodes=")
            nodes = {c: np.array(v, dtype=float) for c, v in self.nodes.items()}
            for c, v in nodes.items():
                if not isinstance(c, Coordinate) or v.ndim != 1 or not (np.diff(v) > 0).all():
                    raise refusal(wrote, f"nodes of {show(c)} do not ascend", "write {x: array}")
            object.__setattr__(self, "nodes", nodes)

    def check(self, target: Any, bounds: Bounds) -> None:
        shape = self.values.shape[1:]
        args: Sequence[Any] = target.args if isinstance(target, AppliedGiven) else ()
        wrote = f"inputs={{{show(target)}: FromSamples(values of shape {self.values.shape})}}"
        if len(shape) != len(args):
            wanted = ", ".join(["n", *(f"n_{c}" for c in args)]) + ("" if args else ",")
            raise refusal(
                wrote,
                f"{show(target)} is "
                + (f"a function of {', '.join(map(str, args))}" if args else "a number"),
                f"give values of the shape ({wanted})",
            )
        for c, size in zip(args, shape, strict=True):
            if size < 2:
                raise refusal(wrote, f"there is one value along {c}", "give two or more")
            own = (self.nodes or {}).get(c)
            if own is None:
                continue
            low, high = bounds[c]
            slack = 1e-9 * (high - low)
            if len(own) != size or abs(own[0] - low) > slack or abs(own[-1] - high) > slack:
                raise refusal(
                    wrote,
                    f"its {len(own)} nodes of {c} go from {own[0]:g} to {own[-1]:g}",
                    f"give {size} nodes from {low:g} to {high:g}, the ends of the domain",
                )

    def draw(self, rng: np.random.Generator, target: Any, bounds: Bounds) -> float | sp.Expr:
        values = self.values[int(rng.integers(len(self.values)))]
        if not isinstance(target, AppliedGiven):
            return float(values)
        ends = [bounds[c] for c in target.args]
        if self.periodic:
            lower, lengths = [a for a, _ in ends], [b - a for a, b in ends]
            f = Expansion.periodic(lower, lengths, values)
        else:
            axes = [
                (self.nodes or {}).get(c, np.linspace(*bounds[c], n))
                for c, n in zip(target.args, values.shape, strict=True)
            ]
            f = Expansion.interpolating(axes, values)
        return expanded(target.name, f, *target.args)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FromSamples) and self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    def _content(self) -> tuple[Any, ...]:
        nodes = {c: tuple(v) for c, v in (self.nodes or {}).items()}
        return self.values.shape, self.values.tobytes(), tuple(nodes.items()), self.periodic

    def __repr__(self) -> str:
        return f"FromSamples({len(self.values)} samples of shape {self.values.shape[1:]})"


def _read_numbers(law: Any, *names: str) -> None:
    """Finite floats, whatever kind of number was written."""
    for name in names:
        value = getattr(law, name)
        try:
            number = math.nan if isinstance(value, (str, bool)) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise refusal(repr(law), f"{name} is not a finite number", "write numbers")
        object.__setattr__(law, name, number)


def _check_positive(law: Any, name: str) -> None:
    if not getattr(law, name) > 0:
        raise refusal(repr(law), f"{name} is not positive", f"write {name} > 0")
