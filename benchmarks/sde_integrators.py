"""The fixed-step integrators: their orders, their speed against torchsde, and the equality of laws.

In    nothing: `python benchmarks/sde_integrators.py [--only orders|speed|law] [--samples N]`.
Out   three Markdown tables. Bars: strong orders within 0.15 and weak orders within 0.3 of the theory;
      Euler-Maruyama at least 30 times faster forward and 10 times forward and backward than
      `torchsde.sdeint(method="euler")` called with its defaults (dt = 0.01 on [0, 1], batch 64, state
      16, the same networks, float32 times); largest difference of distribution functions at most 0.01.
Next  docs/neural_sde.md.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from _common import measured, print_table
from torch import Tensor, nn

from pinnkit.neural_de import (
    SDE,
    BrownianPath,
    Calculus,
    EulerMaruyama,
    Milstein,
    Noise,
    StochasticHeun,
    TimeGrid,
    integrate,
    integrate_torchsde,
)

GROUPS, LEVELS = 20, 5
T_QUANTILE = 2.093  # two-sided 95 per cent, 19 degrees of freedom
METHODS = {
    "Euler-Maruyama": (EulerMaruyama(), Calculus.ITO),
    "Milstein": (Milstein(), Calculus.ITO),
    "Milstein, derivative-free": (Milstein(derivative_free=True), Calculus.ITO),
    "Milstein, Stratonovich": (Milstein(), Calculus.STRATONOVICH),
    "stochastic Heun": (StochasticHeun(), Calculus.STRATONOVICH),
}
STRUCTURES = (Noise.SCALAR, Noise.DIAGONAL, Noise.ADDITIVE)


def equation(noise: Noise, calculus: Calculus, m: Tensor, s: Tensor) -> SDE:
    """dz = m z dt + s z dW, or dz = -m z dt + s dW."""
    if noise is Noise.ADDITIVE:
        return SDE(lambda t, z: -m * z, lambda t, z: s.expand_as(z), noise, calculus)
    return SDE(lambda t, z: m * z, lambda t, z: s * z, noise, calculus)


def solution(noise: Noise, calculus: Calculus, m: Tensor, s: Tensor, path: BrownianPath) -> Tensor:
    """At time 1, from ones."""
    if noise is Noise.ADDITIVE:
        while path.level < LEVELS + 2:  # eight times finer than the finest step
            path = path.refine()
        middles = 0.5 * (path.grid.points[1:] + path.grid.points[:-1])
        return torch.exp(-m) + s * torch.einsum(
            "kh,kbh->bh", torch.exp(-m * (1 - middles[:, None])), path.increments
        )
    shift = 0.5 * s.square() if calculus is Calculus.ITO else 0.0
    return torch.exp(m - shift + s * path.increments.sum(0))


def slope(errors: Tensor) -> tuple[float, float]:
    """Mean and half-width of the interval of the log-log slope; errors of shape (levels, groups)."""
    h = -math.log(2) * torch.arange(len(errors), dtype=torch.float64)
    h = h - h.mean()
    each = (h[:, None] * errors.log()).sum(0) / h.square().sum()
    return float(each.mean()), T_QUANTILE * float(each.std()) / math.sqrt(errors.shape[1])


def orders(samples: int) -> None:
    """Strong and weak orders by step halving along one path."""
    rows = []
    for name, (method, calculus) in METHODS.items():
        for noise in STRUCTURES:
            second = name == "stochastic Heun" and noise is Noise.ADDITIVE  # in the weak sense
            strong = 0.5 if name == "Euler-Maruyama" and noise is not Noise.ADDITIVE else 1.0
            cells: list[object] = [name, noise.name.lower()]
            for kind, order, first, size, m, s in (
                ("strong", strong, 16, 1, (0.5, 0.3), (1.0, 0.7)),
                ("weak", 2.0 if second else 1.0, 4 if second else 8, 4, (1.0, 0.8),
                 (0.05, 0.05) if second else (0.3, 0.2)),
            ):  # fmt: skip
                drift, noise_size = (torch.tensor(v, dtype=torch.float64) for v in (m, s))
                errors = []
                for group in range(GROUPS):
                    path = BrownianPath.draw(
                        TimeGrid.of([0.0, 1.0], 1 / first),
                        size * samples // GROUPS,
                        1 if noise is Noise.SCALAR else 2,
                        seed=group,
                    )
                    errors.append(_errors(kind, method, noise, calculus, drift, noise_size, path))
                found, half = slope(torch.stack(errors, dim=1))
                bar = 0.15 if kind == "strong" else 0.3
                verdict = "ok" if abs(found - order) + half <= bar else "FAILS"
                cells += [order, f"{found:.3f} ± {half:.3f}", verdict]
            rows.append(cells)
    print_table(
        ["method", "noise", "strong", "measured", "", "weak", "measured", ""],
        rows,
    )


def _errors(
    kind: str,
    method: EulerMaruyama | Milstein | StochasticHeun,
    noise: Noise,
    calculus: Calculus,
    m: Tensor,
    s: Tensor,
    path: BrownianPath,
) -> Tensor:  # shape: (LEVELS,)
    # Mirror images remove the part of the error of a mean that is odd in W.
    mirrored = BrownianPath(path.grid, -path.increments, path.seed)
    exact = solution(noise, calculus, m, s, path)
    exact_mirrored = 2 * torch.exp(-m) - exact if noise is Noise.ADDITIVE else None
    if exact_mirrored is None:
        exact_mirrored = solution(noise, calculus, m, s, mirrored)
    found = []
    law = equation(noise, calculus, m, s)
    z0 = torch.ones(path.increments.shape[1], 2, dtype=torch.float64)
    for _ in range(LEVELS):
        mirrored = BrownianPath(path.grid, -path.increments, path.seed)
        ends = [
            integrate(law, z0, [0.0, 1.0], method=method, brownian=p).end for p in (path, mirrored)
        ]
        if kind == "strong":
            found.append((ends[0] - exact).abs().mean())
        else:
            gaps = [a.square() - b.square() for a, b in zip(ends, (exact, exact_mirrored))]
            found.append((gaps[0] + gaps[1]).mean().abs() / 2)
        path = path.refine()
    return torch.stack(found)


class Networks(nn.Module):
    """Drift and element-wise diffusion, 16 -> 32 -> 16 with tanh, under torchsde's names."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, state: int = 16, width: int = 32) -> None:
        super().__init__()
        self.drift = nn.Sequential(nn.Linear(state, width), nn.Tanh(), nn.Linear(width, state))
        self.diffusion = nn.Sequential(
            nn.Linear(state, width), nn.Tanh(), nn.Linear(width, state), nn.Sigmoid()
        )

    def f(self, t: Tensor, z: Tensor) -> Tensor:
        return self.drift(z)

    def g(self, t: Tensor, z: Tensor) -> Tensor:
        return self.diffusion(z)

    def as_sde(self) -> SDE:
        """General: the networks mix the components."""
        return SDE(self.f, self.g, Noise.GENERAL)


def speed(repeats: int) -> None:
    """Seconds of a solve, both sides in turn, medians."""
    import torchsde

    torch.manual_seed(0)
    nets, z0 = Networks(), torch.rand(64, 16)
    ts = torch.tensor([0.0, 1.0])

    def theirs() -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torchsde.sdeint(nets, z0, ts, method="euler", dt=0.01)[-1]

    def ours() -> Tensor:
        return integrate(nets.as_sde(), z0, ts, dt=0.01).end

    def cured() -> Tensor:
        return integrate_torchsde(nets.as_sde(), z0, ts, dt=0.01, method="euler").end

    sides = {"torchsde, defaults": theirs, "torchsde, our adapter": cured, "ours": ours}
    rows = []
    for backward in (False, True):
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        ours()
        for _ in range(repeats):
            for name, run in sides.items():
                seconds[name].append(_time(run, backward))
        medians = {name: statistics.median(s) for name, s in seconds.items()}
        for name, median in medians.items():
            what = "forward and backward" if backward else "forward"
            rows.append([what, name, 1e3 * median, median / medians["ours"]])
    print_table(["what", "who", "ms", "relative to ours"], rows)


def _time(run: Callable[[], Tensor], backward: bool) -> float:
    start = time.perf_counter()
    if backward:
        run().square().sum().backward()
    else:
        with torch.no_grad():
            run()
    return time.perf_counter() - start


def law(samples: int) -> None:
    """Largest difference of the empirical distribution functions of the end states, per component."""
    torch.manual_seed(0)
    nets, z0 = Networks(state=4), torch.zeros(samples, 4)
    with torch.no_grad():
        a = integrate(nets.as_sde(), z0, [0.0, 1.0], dt=0.01, brownian=1).end
        b = integrate_torchsde(nets.as_sde(), z0, [0.0, 1.0], dt=0.01, method="euler", seed=2).end
    rows = []
    for i in range(4):
        both = torch.cat([a[:, i], b[:, i]]).sort().values
        gap = [
            torch.searchsorted(x[:, i].contiguous().sort().values, both, right=True) / samples
            for x in (a, b)
        ]
        rows.append([i, float((gap[0] - gap[1]).abs().max())])
    print_table(["component", "largest difference"], rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=["orders", "speed", "law"])
    parser.add_argument(
        "--samples", type=int, default=4000, help="paths per order; law takes 25 times as many"
    )
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    parts = {
        "orders": lambda: orders(args.samples),
        "speed": lambda: speed(args.repeats),
        "law": lambda: law(25 * args.samples),
    }
    for name, part in parts.items():
        if args.only in (None, name):
            with measured(f"Integrators of stochastic equations: {name}"):
                part()
