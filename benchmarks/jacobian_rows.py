"""Rows of the Jacobian layer by layer against `vmap(grad)`, 2000 points, float64.

In    nothing: `python benchmarks/jacobian_rows.py [--points N] [--repeats R] [--nested]`.
Out   a table of time ratios (medians, both sides interleaved in this run, each warmed up before every
      timing) and the largest relative difference. Bars: Allen-Cahn 3x30 >= 2, Kuramoto-Sivashinsky
      3x30 >= 3, Allen-Cahn 4x64 >= 1.3; equal to 1e-12.
Next  docs/benchmarks.md.

The opponent is the strong one: `vmap(grad)` of a residual whose derivatives come from the same jets.
`--nested` also times the plain one, `vmap(grad)` of nested `torch.func.grad`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from _common import measured, print_table
from torch import Tensor

from pinnkit.lower import JetSpec, RowOperator, Tape, input_jet, propagate
from pinnkit.lower.activations import activation_jet, tanh_rule
from pinnkit.lower.jets import MultiIndex, linear_jet
from pinnkit.nn import MLP

Residual = Callable[[dict[MultiIndex, Tensor]], Tensor]


def allen_cahn(u: dict[MultiIndex, Tensor]) -> Tensor:
    """u_t - 1e-4 u_xx + 5 u^3 - 5 u."""
    return u[1, 0] - 1e-4 * u[0, 2] + 5 * (u[0, 0] ** 3 - u[0, 0])


def kuramoto_sivashinsky(u: dict[MultiIndex, Tensor]) -> Tensor:
    """u_t + 5 u u_x + 0.5 u_xx + 0.005 u_xxxx."""
    return u[1, 0] + 5 * u[0, 0] * u[0, 1] + 0.5 * u[0, 2] + 0.005 * u[0, 4]


CASES: list[tuple[str, Residual, list[MultiIndex], int, int]] = [
    ("Allen-Cahn, 3x30", allen_cahn, [(1, 0), (0, 2)], 30, 3),
    ("Kuramoto-Sivashinsky, 3x30", kuramoto_sivashinsky, [(1, 0), (0, 4)], 30, 3),
    ("Allen-Cahn, 4x64", allen_cahn, [(1, 0), (0, 2)], 64, 4),
]


def derivatives(jet: Tensor, spec: JetSpec) -> dict[MultiIndex, Tensor]:
    """{alpha: D^alpha u} of the only field."""
    return {
        a: k * c[..., 0]
        for a, k, c in zip(spec.indices, spec.factorials, jet.unbind(0), strict=True)
    }


def make_layerwise(
    net: MLP, points: Tensor, residual: Residual, spec: JetSpec
) -> Callable[[], Tensor]:
    """Rows from the tape, into one buffer as in training."""
    params = list(net.parameters())
    buffer = points.new_empty(len(points), 1, sum(p.numel() for p in params))
    zero, one = points.new_zeros(2), points.new_ones(2)

    def rows() -> Tensor:
        tape = Tape()
        jet = propagate(net, input_jet(points, spec, zero, one), spec, tape)
        column = residual(derivatives(jet, spec))
        return RowOperator(column[:, None], tape, params).dense(buffer)[:, 0]

    return rows


def make_vmap_grad(
    net: MLP, points: Tensor, residual: Residual, spec: JetSpec, *, nested: bool
) -> Callable[[], Tensor]:
    """The gradient of one point's residual, vectorised over the points."""
    parameters = {k: p.detach() for k, p in net.named_parameters()}
    layers = sorted({k.rsplit(".", 1)[0] for k in parameters})
    zero, one = points.new_zeros(2), points.new_ones(2)
    order = max(a[1] for a in spec.indices)

    def by_jets(values: dict[str, Tensor], point: Tensor) -> Tensor:
        jet = input_jet(point[None], spec, zero, one)
        for i, layer in enumerate(layers):
            jet = linear_jet(jet, values[layer + ".weight"], values[layer + ".bias"])
            if i < len(layers) - 1:
                jet = activation_jet(jet, tanh_rule, spec)
        return residual(derivatives(jet, spec))[0]

    def by_nested(values: dict[str, Tensor], point: Tensor) -> Tensor:
        def u(t: Tensor, x: Tensor) -> Tensor:
            return torch.func.functional_call(net, values, (torch.stack([t, x]),))[0]

        t, x = point
        found: dict[MultiIndex, Tensor] = {
            (0, 0): u(t, x),
            (1, 0): torch.func.grad(u)(t, x),
        }
        f = u
        for k in range(1, order + 1):
            f = torch.func.grad(f, argnums=1)
            found[0, k] = f(t, x)
        return residual(found)

    gradient = torch.func.vmap(torch.func.grad(by_nested if nested else by_jets), (None, 0))

    def rows() -> Tensor:
        blocks = gradient(parameters, points)
        return torch.cat([blocks[k].flatten(1) for k in parameters], dim=1)

    return rows


def seconds_of(run: Callable[[], Tensor]) -> float:
    """One timing after one warm-up: the other side has just filled the caches."""
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Run all rows."""
    parser = argparse.ArgumentParser(description="Layer-wise Jacobian rows against vmap(grad)")
    parser.add_argument("--points", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--nested", action="store_true", help="also time nested torch.func.grad")
    args = parser.parse_args()
    rows = []
    with measured(f"Jacobian rows, {args.points} points, float64"):
        for name, residual, wanted, width, depth in CASES:
            gen = torch.Generator().manual_seed(0)
            spec = JetSpec.closure(wanted, 2)
            net = MLP(2, 1, width, depth, generator=gen)
            points = 2 * torch.rand(args.points, 2, generator=gen, dtype=torch.float64) - 1
            ours = make_layerwise(net, points, residual, spec)
            theirs = make_vmap_grad(net, points, residual, spec, nested=False)
            reference = theirs()
            difference = float((ours() - reference).abs().max() / reference.abs().max())
            pairs = [(seconds_of(ours), seconds_of(theirs)) for _ in range(args.repeats)]
            a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
            nested = float("nan")
            if args.nested:
                slow = make_vmap_grad(net, points, residual, spec, nested=True)
                nested = seconds_of(slow) / a
            rows.append([name, 1e3 * a, 1e3 * b, b / a, difference, nested])
    print_table(
        [
            "residual, network",
            "layer-wise ms",
            "vmap(grad) ms",
            "ratio",
            "largest difference",
            "ratio to nested grad",
        ],
        rows,
    )


if __name__ == "__main__":
    main()
