"""Gaussian random fields as inputs: smooth ones by their length, others by their spectrum.

In    a correlation length, or the power at each wave number; mean, standard deviation, transform.
Out   `GaussianField`, whose draws are expansions of the domain's own modes: exact, any derivative.
Next  `declare.family` draws from it.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import sympy as sp

from pinnkit.declare.distributions import AbstractDistribution, Bounds
from pinnkit.declare.expansion import Axis, ChebyshevAxis, Expansion, FourierAxis, expanded
from pinnkit.declare.given import AppliedGiven
from pinnkit.declare.printing import refusal, show
from pinnkit.declare.symbols import Coordinate

__all__ = ["GaussianField"]

_NEGLIGIBLE = 1e-20  # variance of a mode beside the largest: 1e-10 of the amplitude
_KERNEL = 1e-9  # accuracy of the kernel between Chebyshev nodes, of its value at 0
_MOST_NODES = 512
_MODES = {1: 64, 2: 24, 3: 8}  # of a spectrum, per axis, by dimension
_VALUE = sp.Symbol("value", real=True)


@final
@dataclass(frozen=True)
class GaussianField(AbstractDistribution):
    """g = transform(mean + std * z), z a Gaussian random field of mean 0 over the domain.

    With `length` l, z has the covariance exp(-sum_i d_i^2 / (2 l^2)), d_i the distance along axis i;
    on a periodic axis of period P the distance along the chord, d = P/pi sin(pi (x - x')/P). Its
    variance is 1. Periodic axes are expanded in Fourier modes, whose variances exp(-z) I_k(z), z =
    P^2/(4 pi^2 l^2), are known; the others by the covariance of values at Chebyshev nodes, as many as
    the kernel needs for 9 digits.

    With `spectrum` S, the covariance is sum_k S(|kappa|) e_k(x) e_k(x') over the eigenfunctions e_k, of
    norm 1, of the Laplacian on the domain, -lap e = |kappa|^2 e: Fourier modes on periodic axes (kappa =
    2 pi k/P), cosines of slope 0 at the ends on the others (kappa = pi k/L). So N(0, s^2 (-lap + tau^2)^-a)
    is written spectrum=s**2 * (k**2 + tau**2)**(-a) with any symbol k.

    Args:
        length: Correlation length, in the unit of the coordinates.
        spectrum: Power at a wave number, an expression in one symbol; instead of `length`.
        mean: A number, or an expression in the function's coordinates.
        std: Factor of z.
        periodic: True (all axes), False, or the periodic axes.
        zero_mean: Leave out the constant mode, on a domain that is periodic in all axes or a spectrum.
        transform: A function of sympy expressions, such as sp.exp for a positive coefficient.
        modes: Highest mode per axis, for a spectrum: 64, 24, 8 in 1, 2, 3 dimensions if None.

    References: Z. Li et al., Fourier neural operator, ICLR 2021 (spectra, Darcy, Burgers); Y. Du,
    N. Chalapathi, A. Krishnapriyan, Neural spectral methods, ICLR 2024 (the periodic kernel, with
    length = 0.8/pi on the unit torus).
    """

    length: float | None = None
    spectrum: Any = None
    mean: Any = 0.0
    std: float = 1.0
    periodic: Any = False
    zero_mean: bool = False
    transform: Callable[[Any], Any] | None = None
    modes: int | None = None

    def __post_init__(self) -> None:
        put = functools.partial(object.__setattr__, self)
        if (self.length is None) == (self.spectrum is None):
            raise refusal(
                "GaussianField(...)",
                "length= or spectrum= says how rough it is, one of the two",
                "write GaussianField(length=0.2)",
            )
        for name in ("length", "std"):
            value = getattr(self, name)
            if value is not None:
                number = float(value)
                if not 0 < number < math.inf:
                    raise refusal(
                        f"GaussianField({name}={value})", "it is not positive", f"write {name} > 0"
                    )
                put(name, number)
        if isinstance(self.periodic, (Coordinate, tuple, list)):
            axes = (self.periodic,) if isinstance(self.periodic, Coordinate) else self.periodic
            put("periodic", tuple(axes))
        if self.spectrum is not None:
            put("spectrum", sp.sympify(self.spectrum))
            if len(self.spectrum.free_symbols) > 1:
                raise refusal(
                    f"GaussianField(spectrum={show(self.spectrum)})",
                    "it holds several symbols",
                    "write an expression in one, the wave number",
                )
        if self.modes is not None and (self.spectrum is None or self.modes < 1):
            raise refusal(
                f"GaussianField(modes={self.modes})",
                "the number of modes is chosen for a spectrum only, and positive",
                "leave it out, or write spectrum=",
            )
        put("mean", sp.sympify(self.mean))
        if self.transform is not None and not isinstance(self.transform, sp.Lambda):
            # As an expression it can be compared, pickled and saved, which a function cannot.
            put("transform", sp.Lambda(_VALUE, sp.sympify(self.transform(_VALUE))))

    def check(self, target: Any, bounds: Bounds) -> None:
        wrote = f"inputs={{{show(target)}: GaussianField(...)}}"
        if not isinstance(target, AppliedGiven):
            raise refusal(
                wrote,
                f"{show(target)} is a number, and a GaussianField draws functions",
                f'write Normal(mean, std), or declare given("{target}", x)',
            )
        if len(target.args) not in _MODES:
            raise refusal(wrote, "it has more than three coordinates", "use FromSamples(...)")
        own = set(target.args)
        strangers = {*self.mean.free_symbols} - own
        if isinstance(self.periodic, tuple):
            strangers |= set(self.periodic) - own
        if strangers:
            raise refusal(
                wrote,
                f"{show(target)} does not depend on {show(sorted(strangers, key=str)[0])}",
                f"use its coordinates, {', '.join(map(str, target.args))}",
            )
        constant_mode = self.spectrum is not None or all(self._repeats(c) for c in own)
        if self.zero_mean and not constant_mode:
            raise refusal(
                wrote,
                "only periodic fields and those of a spectrum have a constant mode to leave out",
                "leave out zero_mean=True, or write periodic=True",
            )

    def draw(self, rng: np.random.Generator, target: Any, bounds: Bounds) -> sp.Expr:
        if self.length is not None:
            expansion = self._smooth(rng, target, bounds)
        else:
            expansion = self._of_spectrum(rng, target, bounds)
        value = self.mean + expanded(target.name, expansion, *target.args)
        return value if self.transform is None else self.transform(value)

    def _repeats(self, c: Any) -> bool:
        return c in self.periodic if isinstance(self.periodic, tuple) else bool(self.periodic)

    def _smooth(self, rng: np.random.Generator, target: Any, bounds: Bounds) -> Expansion:
        """The covariance is a product over the axes, and so is its root."""
        assert self.length is not None
        axes: list[Axis] = []
        roots = []
        for c in target.args:
            axis, root = _smooth_axis(*bounds[c], self.length, self._repeats(c))
            axes.append(axis)
            roots.append(root)
        values = self.std * rng.standard_normal([a.size for a in axes])
        if self.zero_mean:
            values[(0,) * len(axes)] = 0.0
        for i, root in enumerate(roots):
            values = np.moveaxis(np.tensordot(root, values, (1, i)), 0, i)
        return Expansion(tuple(axes), values)

    def _of_spectrum(self, rng: np.random.Generator, target: Any, bounds: Bounds) -> Expansion:
        highest = self.modes or _MODES[len(target.args)]
        axes: list[Axis] = []
        rates, weights = [], []
        volume = 1.0
        for c in target.args:
            low, high = bounds[c]
            repeats, length = self._repeats(c), high - low
            # On an axis with ends: cosines of half the wave number, so of twice the period.
            axis = FourierAxis(low, length if repeats else 2 * length, 2 * highest + 1)
            number = (np.arange(axis.size) + 1) // 2
            weight = np.where(number == 0, 1.0, 2.0)
            if not repeats:
                weight[2::2] = 0.0  # sines
            axes.append(axis)
            rates.append((2 * math.pi / axis.period * number) ** 2)
            weights.append(weight)
            volume *= length
        kappa = np.sqrt(functools.reduce(np.add.outer, rates))
        variance = _power(self.spectrum, kappa) * functools.reduce(np.multiply.outer, weights)
        if self.zero_mean:
            variance[(0,) * len(axes)] = 0.0
        drawn = rng.standard_normal(variance.shape)
        return Expansion(tuple(axes), self.std * np.sqrt(variance / volume) * drawn)

    def __repr__(self) -> str:
        default = {f: p.default for f, p in self.__dataclass_fields__.items()}
        parts = [
            f"{n}={show(v) if isinstance(v, sp.Basic) else repr(v)}"
            for n in default
            if (v := getattr(self, n)) != default[n]
        ]
        return f"GaussianField({', '.join(parts)})"


@functools.lru_cache(maxsize=64)
def _smooth_axis(
    low: float, high: float, length: float, repeats: bool
) -> tuple[FourierAxis | ChebyshevAxis, np.ndarray]:
    """A basis along one axis, and the matrix from independent normal numbers to its coefficients."""
    if repeats:
        from scipy.special import ive  # late: slow to load

        period = high - low
        z = period**2 / (4 * math.pi**2 * length**2)
        for highest in itertools.count(1):
            power = ive(np.arange(highest + 1), z)
            if power[-1] <= _NEGLIGIBLE * power[0]:
                break
        variance = np.repeat(2 * power, 2)[1:]
        variance[0] = power[0]
        return FourierAxis(low, period, len(variance)), np.diag(np.sqrt(variance))
    between = np.linspace(low, high, 257)
    size = 8
    while True:
        axis = ChebyshevAxis(low, high, size)
        nodes = axis.nodes
        rows = axis.rows(between, np).T @ axis.from_nodes
        exact = _kernel(between[:, None] - nodes[None], length)
        if np.abs(rows @ _kernel(nodes[:, None] - nodes[None], length) - exact).max() <= _KERNEL:
            break
        size = size * 5 // 4
        if size > _MOST_NODES:
            raise refusal(
                f"GaussianField(length={length:g})",
                f"over {low:g} to {high:g} it needs more than {_MOST_NODES} nodes",
                "write a larger length, or spectrum= for rough fields",
            )
    values, vectors = np.linalg.eigh(_kernel(nodes[:, None] - nodes[None], length))
    return axis, axis.from_nodes @ (vectors * np.sqrt(np.maximum(values, 0.0)))


def _kernel(distance: np.ndarray, length: float) -> np.ndarray:
    return np.exp(-(distance**2) / (2 * length**2))


def _power(spectrum: Any, kappa: np.ndarray) -> np.ndarray:
    """S at the wave numbers; where it has no finite value (a power law at 0), no power."""
    symbols = sorted(spectrum.free_symbols, key=str) or [sp.Symbol("k")]
    with np.errstate(all="ignore"):
        values = sp.lambdify(symbols, spectrum, "numpy")(kappa)
    values = np.array(np.broadcast_to(values, kappa.shape), dtype=float)
    values[~np.isfinite(values)] = 0.0
    if (values < 0).any():
        raise refusal(
            f"GaussianField(spectrum={show(spectrum)})", "it is negative", "write a power, >= 0"
        )
    return values
