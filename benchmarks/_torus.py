"""Reference solutions on the torus: Fourier modes in both directions, ETDRK4 in time.

In    a gallery problem (Navier-Stokes in three forms, Gray-Scott, Ginzburg-Landau).
Out   `solve`: every field at equidistant times and nodes, with the error measured by a coarser solve.
Next  `_common.truth_of` makes a `Truth` of it.

    python benchmarks/_torus.py [NAME ...]     prints times and self-convergence

The error is the relative L2 difference, over all times kept, from a solve with half the modes and
twice the step: for the finer one, which is returned, it is a generous bound. Products are formed with
the 2/3 rule. None of this shares code with pinnkit: only the initial expressions are the problem's.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import sympy as sp

__all__ = ["TORUS", "Kept", "solve"]

Array = np.ndarray
TIMES = 20  # intervals between kept instants: both numbers of steps are multiples of it
KEPT = 48  # nodes per direction that are kept


@dataclasses.dataclass(frozen=True)
class Kept:
    """t (i,), x (j,) along both axes; values: field name -> (i, j, j); error: relative, measured."""

    t: Array
    x: Array
    values: Mapping[str, Array]
    error: float


@dataclasses.dataclass(frozen=True)
class Torus:
    """How a problem is put to the integrator; functions get the problem and the wave numbers.

    linear: symbols of the linear part, (m, n, n') or broadcastable.
    nonlinear: transforms (m, n, n') -> transforms of the rest.
    start: initial nodal values by field name -> transforms.
    fields: transforms -> nodal values by name, of everything the problem calls a field.
    modes, steps: of the finer solve; steps are for the default final time.
    """

    linear: Callable[[Any, Modes], Array]
    nonlinear: Callable[[Any, Modes, Array], Array]
    start: Callable[[Modes, Mapping[str, Array]], Array]
    fields: Callable[[Modes, Array], dict[str, Array]]
    modes: int
    steps: int


class Modes:
    """The transforms of an n x n grid on [low, high]^2 and their wave numbers."""

    def __init__(self, n: int, low: float, high: float, *, real: bool) -> None:
        self.n, self.real = n, real
        self.nodes = low + (high - low) * np.arange(n) / n
        unit = 2 * np.pi / (high - low)
        full = np.fft.fftfreq(n, 1 / n)
        last = np.arange(n // 2 + 1) if real else full
        self.kx, self.ky = unit * full[:, None], unit * last[None, :]
        self.square = self.kx**2 + self.ky**2
        # Beyond a third of the modes products would fold back onto resolved ones.
        low_x, low_y = np.abs(full)[:, None] <= n // 3, np.abs(last)[None, :] <= n // 3
        self.mask = (low_x & low_y).astype(float)
        # The Laplacian's inverse on fields of mean zero.
        self.inverse = np.divide(1.0, self.square, where=self.square > 0, out=0 * self.square)

    def to(self, values: Array) -> Array:
        """Nodal values -> transforms, over the last two axes."""
        return np.fft.rfft2(values) if self.real else np.fft.fft2(values)

    def back(self, modes: Array) -> Array:
        """Transforms -> nodal values."""
        return np.fft.irfft2(modes, s=(self.n, self.n)) if self.real else np.fft.ifft2(modes)


def etdrk4(
    linear: Array,
    nonlinear: Callable[[Array], Array],
    start: Array,
    end: float,
    steps: int,
) -> list[Array]:
    """v' = linear * v + nonlinear(v) by the scheme of Cox and Matthews: the start and `TIMES` more."""
    h = end / steps
    z = np.asarray(h * linear, dtype=complex)
    q, f1, f2, f3 = (np.zeros_like(z) for _ in range(4))
    # Kassam and Trefethen: means over a circle around each h*L, free of cancellation near zero.
    for turn in np.exp(2j * np.pi * (np.arange(32) + 0.5) / 32):
        r = z + turn
        e = np.exp(r)
        q += h * (np.exp(r / 2) - 1) / r / 32
        f1 += h * (-4 - r + e * (4 - 3 * r + r**2)) / r**3 / 32
        f2 += h * (2 + r + e * (r - 2)) / r**3 / 32
        f3 += h * (-4 - 3 * r - r**2 + e * (4 - r)) / r**3 / 32
    whole, half = np.exp(z), np.exp(z / 2)
    v, kept = start, [start]
    for i in range(1, steps + 1):
        nv = nonlinear(v)
        a = half * v + q * nv
        na = nonlinear(a)
        b = half * v + q * na
        nb = nonlinear(b)
        c = half * a + q * (2 * nb - nv)
        v = whole * v + f1 * nv + 2 * f2 * (na + nb) + f3 * nonlinear(c)
        if i % (steps // TIMES) == 0:
            kept.append(v)
    return kept


def solve(problem: Any) -> Kept:
    """The problem's fields, and how far a coarser solve is from them."""
    torus = TORUS[type(problem).__name__]
    share = max(1.0, problem.T / type(problem)().T)
    steps = TIMES * int(np.ceil(torus.steps * share / TIMES / 2)) * 2
    fine = _run(problem, torus, torus.modes, steps)
    coarse = _run(problem, torus, torus.modes // 2, steps // 2)
    error = max(
        float(np.linalg.norm(fine.values[f] - coarse.values[f]) / np.linalg.norm(fine.values[f]))
        for f in fine.values
    )
    return dataclasses.replace(fine, error=error)


def _run(problem: Any, torus: Torus, n: int, steps: int) -> Kept:
    nf = problem.normal_form
    low, high = nf.bounds[nf.space[0]]
    modes = Modes(n, low, high, real=not nf.complex_fields)
    start = torus.start(modes, _initial(problem, modes.nodes))
    kept = etdrk4(
        torus.linear(problem, modes),
        lambda v: torus.nonlinear(problem, modes, v),
        start,
        problem.T,
        steps,
    )
    thin = n // KEPT
    fields = [{k: f[::thin, ::thin] for k, f in torus.fields(modes, v).items()} for v in kept]
    values = {name: np.array([f[name] for f in fields]) for name in fields[0]}
    return Kept(np.linspace(0, problem.T, TIMES + 1), modes.nodes[::thin], values, np.nan)


def _initial(problem: Any, nodes: Array) -> dict[str, Array]:
    """The declared initial values at the nodes, by field name; complex ones as one array."""
    nf = problem.normal_form
    x, y = np.meshgrid(nodes, nodes, indexing="ij")
    found: dict[Any, Array] = {}
    for condition in nf.conditions:
        if condition.kind == "initial":
            values = sp.lambdify(nf.space, condition.value, "numpy")(x, y)
            found[condition.target] = np.broadcast_to(values, x.shape).astype(float)
    for field, (real, imaginary) in nf.complex_fields.items():
        found[field] = found.pop(real) + 1j * found.pop(imaginary)
    return {field.func.__name__: values for field, values in found.items()}


def _transport(problem: Any, modes: Modes, v: Array) -> Array:
    """-(u . grad) w, with the velocity from the streamfunction."""
    psi = modes.inverse * v
    parts = [1j * modes.ky * psi, -1j * modes.kx * psi, 1j * modes.kx * v, 1j * modes.ky * v]
    u, w, slope_x, slope_y = modes.back(np.concatenate(parts))
    return -modes.mask * modes.to(u * slope_x + w * slope_y)[None]


def _flow(modes: Modes, v: Array) -> dict[str, Array]:
    """u, v, w, psi and p of a vorticity; lap p = -(u_x^2 + 2 u_y v_x + v_y^2)."""
    w = v[0]
    psi = modes.inverse * w
    ikx, iky = 1j * modes.kx, 1j * modes.ky
    u, v_ = iky * psi, -ikx * psi
    ux, uy, vx = (modes.back(f) for f in (ikx * u, iky * u, ikx * v_))
    pressure = modes.inverse * modes.mask * modes.to(2 * ux**2 + 2 * uy * vx)
    named = {"u": u, "v": v_, "w": w, "psi": psi, "p": pressure}
    return {name: modes.back(f) for name, f in named.items()}


def _vorticity(modes: Modes, start: Mapping[str, Array]) -> Array:
    """Of the initial data, which are w or (u, v)."""
    if "w" in start:
        return modes.to(start["w"])[None]
    u, v = modes.to(start["u"]), modes.to(start["v"])
    return (1j * modes.kx * v - 1j * modes.ky * u)[None]


def _navier_stokes(*names: str) -> Torus:
    return Torus(
        linear=lambda p, m: -m.square[None] / p.Re,
        nonlinear=_transport,
        start=_vorticity,
        fields=lambda m, v: {k: f for k, f in _flow(m, v).items() if k in names},
        modes=192,
        steps=400,
    )


def _gray_scott_rest(problem: Any, modes: Modes, v: Array) -> Array:
    u, w = modes.back(v)
    burnt = problem.c * modes.mask * modes.to(u * w**2)
    fed = np.zeros_like(burnt)
    fed[0, 0] = problem.b * modes.n**2
    return np.stack([fed - burnt, burnt])


def _ginzburg_landau_rest(problem: Any, modes: Modes, v: Array) -> Array:
    a = modes.back(v)
    return -problem.k * (1 + 1.5j) * modes.mask * modes.to(a * np.abs(a) ** 2)


TORUS: dict[str, Torus] = {
    "NavierStokesStreamfunction": _navier_stokes("w", "psi"),
    "NavierStokesVorticity": _navier_stokes("u", "v", "w"),
    "NavierStokesPressure": _navier_stokes("u", "v", "p"),
    "GrayScott2D": Torus(
        linear=lambda p, m: np.stack([-p.Du * m.square - p.b, -p.Dv * m.square - p.d]),
        nonlinear=_gray_scott_rest,
        start=lambda m, s: np.stack([m.to(s["u"]), m.to(s["v"])]),
        fields=lambda m, v: dict(zip(("u", "v"), m.back(v))),
        modes=288,
        steps=8000,
    ),
    "GinzburgLandau": Torus(
        linear=lambda p, m: (p.k - p.eps * m.square)[None],
        nonlinear=_ginzburg_landau_rest,
        start=lambda m, s: m.to(s["A"])[None],
        fields=lambda m, v: {"A": m.back(v[0])},
        modes=288,
        steps=1000,
    ),
}


def main() -> None:
    """Solve the problems named, all without a name."""
    from pinnkit import problems  # pyright: ignore[reportAttributeAccessIssue]

    for name in sys.argv[1:] or TORUS:
        clock = time.perf_counter()
        kept = solve(getattr(problems, name)())
        sizes = ", ".join(
            f"rms {k} {np.sqrt(np.mean(np.abs(v[-1]) ** 2)):.3f}" for k, v in kept.values.items()
        )
        print(
            f"{name}: error {kept.error:.1e}, {time.perf_counter() - clock:.0f} s; at the end {sizes}"
        )


if __name__ == "__main__":
    main()
