"""Jets against nested reverse mode: loss and gradient of a residual, 4x128 tanh network, 4096 points.

In    nothing: `python benchmarks/jets.py [--compile] [--points N] [--repeats R]`.
Out   a table of time ratios (medians, both sides interleaved in this run) and relative L2 differences
      per gradient tensor. Bars: fourth order >= 2.5; second order >= 1 eager, >= 1.3 compiled;
      differences <= 1e-12 (float64), 1e-5 (float32).
Next  docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from _common import measured, print_table
from torch import Tensor, nn

from pinnkit.lower import JetSpec, input_jet, propagate
from pinnkit.lower.jets import MultiIndex
from pinnkit.nn import MLP

Residual = Callable[[dict[MultiIndex, Tensor]], Tensor]
RESIDUALS: dict[str, tuple[list[MultiIndex], Residual]] = {
    "second order (Burgers)": (
        [(1, 0), (0, 2)],
        lambda u: u[1, 0] + u[0, 0] * u[0, 1] - 0.003 * u[0, 2],
    ),
    "fourth order (Kuramoto-Sivashinsky)": (
        [(1, 0), (0, 4)],
        lambda u: u[1, 0] + u[0, 0] * u[0, 1] + 0.5 * u[0, 2] + 0.005 * u[0, 4],
    ),
}


def make_jet_loss(net: nn.Module, points: Tensor, name: str) -> Callable[[], Tensor]:
    """Mean square residual from one jet pass."""
    wanted, residual = RESIDUALS[name]
    spec = JetSpec.closure(wanted, 2)
    zero, one = torch.zeros(2, dtype=points.dtype), torch.ones(2, dtype=points.dtype)

    def loss() -> Tensor:
        jet = propagate(net, input_jet(points, spec, zero, one), spec)
        pairs = zip(spec.indices, spec.factorials, jet.unbind(0), strict=True)
        return residual({a: k * c[:, 0] for a, k, c in pairs}).square().mean()

    return loss


def make_nested_loss(net: nn.Module, points: Tensor, name: str) -> Callable[[], Tensor]:
    """The same by repeated `torch.autograd.grad`, each derivative once."""
    wanted, residual = RESIDUALS[name]
    order = max(x for _, x in wanted)

    def loss() -> Tensor:
        inputs = points.detach().requires_grad_()
        value = net(inputs)[:, 0]
        slope = torch.autograd.grad(value.sum(), inputs, create_graph=True)[0]
        u: dict[MultiIndex, Tensor] = {(0, 0): value, (1, 0): slope[:, 0], (0, 1): slope[:, 1]}
        for k in range(2, order + 1):
            slope = torch.autograd.grad(u[0, k - 1].sum(), inputs, create_graph=True)[0]
            u[0, k] = slope[:, 1]
        return residual(u).square().mean()

    return loss


def gradients(loss: Callable[[], Tensor], net: nn.Module) -> list[Tensor]:
    """One training step's worth of work."""
    # The output bias has no influence on a residual without the plain field.
    grads = torch.autograd.grad(loss(), list(net.parameters()), allow_unused=True)
    return [
        torch.zeros_like(p) if g is None else g
        for g, p in zip(grads, net.parameters(), strict=True)
    ]


def compare(
    fast: Callable[[], list[Tensor]], slow: Callable[[], list[Tensor]], repeats: int
) -> tuple[float, float, float, float]:
    """Median seconds of both, their ratio, and the largest relative L2 difference of a tensor."""
    pairs = list(zip(fast(), slow(), strict=True))
    difference = max(float((a - b).norm() / b.norm()) for a, b in pairs)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for run, seconds in zip((fast, slow), times, strict=True):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
    a, b = (statistics.median(s) for s in times)
    return a, b, b / a, difference


def main() -> None:
    """Run all rows."""
    parser = argparse.ArgumentParser(description="Jets against nested reverse mode")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile")
    parser.add_argument("--points", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    rows = []
    with measured("Jets against nested reverse mode (loss and gradient, 4x128)"):
        for name in RESIDUALS:
            for dtype in (torch.float64, torch.float32):
                gen = torch.Generator().manual_seed(0)
                net = MLP(2, 1, 128, 4, generator=gen, dtype=dtype)
                points = 2 * torch.rand(args.points, 2, generator=gen, dtype=dtype) - 1
                jets = make_jet_loss(net, points, name)
                nested = make_nested_loss(net, points, name)
                variants = {"eager": jets}
                if args.compile:
                    variants["compiled"] = torch.compile(jets)
                for variant, loss in variants.items():
                    a, b, ratio, difference = compare(
                        lambda loss=loss, net=net: gradients(loss, net),
                        lambda nested=nested, net=net: gradients(nested, net),
                        args.repeats,
                    )
                    precision = str(dtype).removeprefix("torch.")
                    rows.append([name, precision, variant, 1e3 * a, 1e3 * b, ratio, difference])
    print_table(
        ["residual", "dtype", "jets", "jets ms", "nested ms", "ratio", "largest difference"], rows
    )


if __name__ == "__main__":
    main()
