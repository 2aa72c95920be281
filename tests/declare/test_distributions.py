"""Laws of a family's inputs: their covariances exactly, and what they refuse."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
import sympy as sp

from pinnkit.declare import FromSamples, GaussianField, LogNormal, Normal, Uniform, coords, given
from pinnkit.errors import DeclarationError
from pinnkit.ir.sampling import evaluate

COVARIANCE = 1e-8  # the kernel is met to nine digits, here of sums of squares
EXACT = 1e-12

x, y = coords("x y")
c, a, b = given("c"), given("a", x), given("b", x, y)
BOUNDS = {x: (0.0, 2.0), y: (-1.0, 1.0)}
k = sp.Symbol("k")


class OneAtATime:
    """In the place of a generator: the normal number `index` is 1, all others 0.

    A draw is linear in its normal numbers, so that the covariance is the sum of the products of these
    draws: exactly, without statistics.
    """

    def __init__(self, index: int) -> None:
        self.index, self.count = index, 0

    def standard_normal(self, shape):
        numbers = np.zeros(shape)
        self.count = numbers.size
        numbers.flat[self.index] = 1.0
        return numbers


def covariance(law: GaussianField, target: sp.Expr, points: dict) -> np.ndarray:
    total, index = None, 0
    while True:
        rng = OneAtATime(index)
        f = evaluate(law.draw(rng, target, BOUNDS), points)  # type: ignore[arg-type]
        total = np.outer(f, f) if total is None else total + np.outer(f, f)
        index += 1
        if index == rng.count:
            return total


S = np.array([0.0, 0.3, 0.35, 1.1, 2.0])


def test_smooth_fields_have_the_gaussian_kernel():
    found = covariance(GaussianField(length=0.4, std=3.0), a, {x: S})
    expected = 9 * np.exp(-((S[:, None] - S) ** 2) / (2 * 0.4**2))
    assert np.abs(found - expected).max() < 9 * COVARIANCE


def test_smooth_periodic_fields_have_the_kernel_of_the_chord():
    found = covariance(GaussianField(length=0.4, periodic=True), a, {x: S})
    chord = 2 / np.pi * np.sin(np.pi * (S[:, None] - S) / 2)
    assert np.abs(found - np.exp(-(chord**2) / (2 * 0.4**2))).max() < COVARIANCE
    assert found[0, -1] == pytest.approx(found[0, 0], rel=EXACT)


def test_the_published_kernel_of_torus_vorticity():
    """exp(-sum sin^2(pi d)/(2 l^2)) on the unit torus is length = l/pi."""
    law, unit = GaussianField(length=0.8 / np.pi, periodic=True), {x: (0.0, 1.0)}
    s = np.array([0.0, 0.2, 0.7])
    total, index, count = np.zeros((3, 3)), 0, 1
    while index < count:
        rng = OneAtATime(index)
        f = evaluate(law.draw(rng, a, unit), {x: s})  # type: ignore[arg-type]
        total, index, count = total + np.outer(f, f), index + 1, rng.count
    expected = np.exp(-(np.sin(np.pi * (s[:, None] - s)) ** 2) / (2 * 0.8**2))
    assert np.abs(total - expected).max() < COVARIANCE


@pytest.mark.parametrize("periodic", [True, False, (x,)])
def test_spectra_are_sums_over_eigenfunctions(periodic):
    """S(kappa) e(p) e(q) over Fourier modes or cosines of norm 1, counted one by one."""
    law = GaussianField(spectrum=1 / (k**2 + 4) ** 2, periodic=periodic, modes=2)
    px, py = np.array([0.1, 0.9, 1.7]), np.array([-0.6, 0.3, 0.9])
    found = covariance(law, b, {x: px, y: py})

    def modes(s, length, repeats):
        """(wave number, values of a mode of norm 1)."""
        yield 0.0, np.full(3, length**-0.5)
        for n in (1, 2):
            rate = (2 if repeats else 1) * np.pi * n / length
            yield rate, np.sqrt(2 / length) * np.cos(rate * s)
            if repeats:
                yield rate, np.sqrt(2 / length) * np.sin(rate * s)

    along_y = periodic is True
    expected = np.zeros((3, 3))
    pairs = itertools.product(modes(px, 2.0, bool(periodic)), modes(py + 1, 2.0, along_y))
    for (kx, ex), (ky, ey) in pairs:
        expected += np.outer(ex * ey, ex * ey) / (kx**2 + ky**2 + 4) ** 2
    assert np.abs(found - expected).max() < EXACT


def test_mean_transform_and_zero_mean():
    rng = np.random.default_rng(0)
    f = GaussianField(length=0.4, mean=x, std=1e-3).draw(rng, a, BOUNDS)
    assert np.abs(evaluate(f, {x: S}) - S).max() < 0.01
    f = GaussianField(length=0.3, mean=5, transform=sp.exp).draw(rng, a, BOUNDS)
    assert isinstance(f, sp.exp) and (evaluate(f, {x: S}) > 0).all()
    f = GaussianField(length=0.3, periodic=True, zero_mean=True).draw(rng, b, BOUNDS)
    grid = [g.ravel() for g in np.meshgrid(np.arange(64) / 32, np.arange(64) / 32 - 1)]
    values = evaluate(f, {x: grid[0], y: grid[1]})
    assert abs(values.mean()) < EXACT < values.std()


def test_moments_of_the_laws_of_numbers():
    """Means of 4000 draws within four standard errors."""
    rng = np.random.default_rng(0)
    for law, mean, std in (
        (Uniform(1, 3), 2.0, 2 / 12**0.5),
        (Normal(-1, 0.5), -1.0, 0.5),
        (LogNormal(2, 0.3), 2 * np.exp(0.045), 2 * np.exp(0.045) * np.expm1(0.09) ** 0.5),
    ):
        drawn = [law.draw(rng, c, BOUNDS) for _ in range(4000)]
        assert abs(np.mean(drawn) - mean) < 4 * std / 4000**0.5


def test_samples_of_the_user_are_drawn_as_they_are():
    rng = np.random.default_rng(0)
    assert FromSamples(np.array([1.5, 1.5])).draw(rng, c, BOUNDS) == 1.5
    nodes = np.array([0.0, 0.5, 0.8, 1.4, 2.0])
    law = FromSamples(np.sin(nodes)[None], nodes={x: nodes})
    law.check(a, BOUNDS)
    assert np.abs(evaluate(law.draw(rng, a, BOUNDS), {x: nodes}) - np.sin(nodes)).max() < EXACT
    grid = np.arange(8) / 4
    law = FromSamples(np.sin(np.pi * grid)[None], periodic=True)
    assert np.abs(evaluate(law.draw(rng, a, BOUNDS), {x: S}) - np.sin(np.pi * S)).max() < EXACT


def test_laws_are_compared_by_content_and_pickle():
    for law in (
        Uniform(0, 1),
        LogNormal(1, 0.1),
        FromSamples(np.eye(3)),
        GaussianField(length=0.2, periodic=(x,), transform=sp.exp),
        GaussianField(spectrum=1 / (k**2 + 1), mean=sp.sin(x)),
    ):
        again = pickle.loads(pickle.dumps(law))
        assert again == law and hash(again) == hash(law)
    assert FromSamples(np.eye(3)) != FromSamples(2 * np.eye(3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(1, 1), "the interval is empty"),
        (
            lambda: Uniform("0", 1),  # type: ignore[arg-type]
            "low is not a finite number",
        ),
        (lambda: Normal(0, 0), "std is not positive"),
        (lambda: LogNormal(-1, 1), "median is not positive"),
        (lambda: FromSamples([1.0, np.nan]), "some value is not finite"),
        (lambda: FromSamples(np.eye(2), nodes={x: [1.0, 0.0]}), "nodes of x do not ascend"),
        (lambda: FromSamples(np.eye(2), nodes={x: [0, 1]}, periodic=True), "equally spaced"),
        (lambda: GaussianField(), "one of the two"),
        (lambda: GaussianField(length=-1), "it is not positive"),
        (lambda: GaussianField(spectrum=k * x), "several symbols"),
        (lambda: GaussianField(length=0.1, modes=4), "for a spectrum only"),
        (lambda: Uniform(0, 1).check(a, BOUNDS), "a is a function of x, and Uniform draws numbers"),
        (lambda: GaussianField(length=1).check(c, BOUNDS), "c is a number"),
        (lambda: GaussianField(length=1, mean=y).check(a, BOUNDS), "does not depend on y"),
        (lambda: GaussianField(length=1, periodic=(y,)).check(a, BOUNDS), "does not depend on y"),
        (lambda: GaussianField(length=1, zero_mean=True).check(a, BOUNDS), "constant mode"),
        (lambda: FromSamples(np.eye(3)).check(b, BOUNDS), r"shape \(n, n_x, n_y\)"),
        (lambda: FromSamples(np.eye(3)).check(c, BOUNDS), r"c is a number.*shape \(n,\)"),
        (lambda: FromSamples(np.ones((2, 1))).check(a, BOUNDS), "one value along x"),
        (
            lambda: FromSamples(np.eye(3), nodes={x: [0, 0.5, 1]}).check(a, BOUNDS),
            "from 0 to 1.*3 nodes from 0 to 2",
        ),
        (
            lambda: GaussianField(length=1e-4).draw(np.random.default_rng(0), a, BOUNDS),
            "needs more than 512 nodes",
        ),
        (
            lambda: GaussianField(spectrum=-1 + 0 * k).draw(np.random.default_rng(0), a, BOUNDS),
            "it is negative",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(DeclarationError, match=f"(?s){message}"):
        make()
