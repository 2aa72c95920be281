"""The tape: where parameters enter a jet, so that rows of the Jacobian can be assembled afterwards.

In    a forward pass of `lower.jets.propagate` that is handed a `Tape`.
Out   one `Site` per parameterised layer: its parameters, its input jet, its output jet.
Next  `lower.rows` differentiates residuals with respect to the outputs and assembles rows.

With a tape the parameters are constants of autograd's graph (their gradients come from the tape),
so that the backward pass computes nothing it does not need. Every site acts on each point alone:
row i of its output depends on row i of its input only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

__all__ = [
    "FactorSite",
    "GeneralSite",
    "LinearSite",
    "NumberSite",
    "OuterRows",
    "Site",
    "SkipSite",
    "Tape",
    "physical_numbers",
]


_PIECE = 128  # rows per batched product: about 1 MB for layers of width 30
_NARROW = 4  # up to this input width element-wise products beat batched ones


class Site(ABC):
    """One place where parameters act: output = F(parameters, input), point by point.

    `output` is the graph node (S, n, w) that residuals are differentiated with respect to.
    In `rows` and `pullback`, `g` is that derivative; in `rows`, `fold` = q says that q consecutive
    blocks of points belong to one residual each (quadrature), so n = q * rows.
    """

    parameters: tuple[Tensor, ...]
    output: Tensor

    @abstractmethod
    def rows(self, g: Tensor, fold: int) -> list[Tensor | OuterRows]:
        """One (rows, numel) block per parameter, or the factors it is made of."""

    @abstractmethod
    def tangent(self, v: Sequence[Tensor]) -> Tensor:
        """Change of the output (S, n, w) for a change v of the parameters."""

    @abstractmethod
    def pullback(self, g: Tensor) -> list[Tensor]:
        """Sum over points of the rows, one tensor per parameter, shaped like it."""


class Tape:
    """List of sites of one forward pass."""

    def __init__(self) -> None:
        self.sites: list[Site] = []

    def record(self, site: Site) -> Tensor:
        """Append the site; returns its output."""
        self.sites.append(site)
        return site.output


def node(output: Tensor) -> Tensor:
    """The tensor as a node that gradients can be taken with respect to, in a graph or as a leaf."""
    return output if output.requires_grad else output.requires_grad_()


class OuterRows:
    """Rows sum_s outer(g_s, z_s), not yet carried out: (rows, o * i) from (S, n, o) and (S, n, i)."""

    def __init__(self, g: Tensor, z: Tensor, fold: int) -> None:
        if fold > 1:  # the q points of one residual are summed over like jet components
            g = g.reshape(g.shape[0] * fold, -1, g.shape[-1])
            z = z.reshape(z.shape[0] * fold, -1, z.shape[-1])
        self.g, self.z = g, z

    def write(self, rows: Tensor, *, add: bool) -> None:
        """Put the rows into a (strided) block of J, or add them to it."""
        if self.g.shape[-1] == 1 or self.z.shape[-1] == 1:
            block = (self.g * self.z).sum(0)
            rows.add_(block) if add else rows.copy_(block)
            return
        if self.z.shape[-1] <= _NARROW:
            target = rows.unflatten(1, (self.g.shape[-1], self.z.shape[-1]))
            for k in range(self.z.shape[-1]):
                (first, *others), z = _live(self.z[:, :, k]), self.z[:, :, k, None]
                column = self.g[first] * z[first]
                for s in others:
                    column.addcmul_(self.g[s], z[s])
                target[:, :, k].add_(column) if add else target[:, :, k].copy_(column)
            return
        g, z = self.g.permute(1, 2, 0), self.z.permute(1, 0, 2)
        # bmm cannot write into a strided block, and a temporary of J's size costs more than the
        # products themselves (page faults): small pieces through one buffer that stays in cache.
        buffer = g.new_empty(_PIECE, g.shape[1], z.shape[2])
        for start in range(0, rows.shape[0], _PIECE):
            target = rows[start : start + _PIECE]
            piece = buffer[: target.shape[0]]
            torch.bmm(g[start : start + _PIECE], z[start : start + _PIECE], out=piece)
            target.add_(piece.flatten(1)) if add else target.copy_(piece.flatten(1))


def _live(z: Tensor) -> list[int]:  # shape: (S, n)
    """Components that are not zero everywhere; coordinates themselves have no second derivatives."""
    if z.device.type != "cpu":  # a look would wait for the device, longer than the products take
        return list(range(len(z)))
    return torch.nonzero(z.any(1))[:, 0].tolist() or [0]


def folded(g: Tensor, fold: int) -> Tensor:  # shape: (n, w) -> (rows, w)
    """Sum over the q blocks of points that belong to one residual."""
    return g if fold == 1 else g.reshape(fold, -1, g.shape[-1]).sum(0)


class LinearSite(Site):
    """y = W z + b: rows are sums of outer(g_s, z_s); the bias sees the value component only."""

    def __init__(self, weight: Tensor, bias: Tensor | None, z: Tensor, output: Tensor) -> None:
        self.parameters = (weight,) if bias is None else (weight, bias)
        self.z, self.output = z.detach(), node(output)

    def rows(self, g: Tensor, fold: int) -> list[Tensor | OuterRows]:
        blocks: list[Tensor | OuterRows] = [OuterRows(g, self.z, fold)]
        return blocks if len(self.parameters) == 1 else [*blocks, folded(g[0], fold)]

    def tangent(self, v: Sequence[Tensor]) -> Tensor:
        change = self.z @ v[0].T
        if len(v) == 2:
            change[0] += v[1]
        return change

    def pullback(self, g: Tensor) -> list[Tensor]:
        blocks = [g.flatten(0, 1).T @ self.z.flatten(0, 1)]
        return blocks if len(self.parameters) == 1 else [*blocks, g[0].sum(0)]


class FactorSite(Site):
    """y = factor * (V z) + b, the weight-factorised layer; `product` is V z."""

    def __init__(
        self,
        direction: Tensor,
        factor: Tensor,
        bias: Tensor,
        z: Tensor,
        product: Tensor,
        output: Tensor,
    ) -> None:
        self.parameters = (direction, factor, bias)
        self.z, self.product, self.output = z.detach(), product.detach(), node(output)

    def rows(self, g: Tensor, fold: int) -> list[Tensor | OuterRows]:
        factor = self.parameters[1].detach()
        return [
            OuterRows(g * factor, self.z, fold),
            folded((g * self.product).sum(0), fold),
            folded(g[0], fold),
        ]

    def tangent(self, v: Sequence[Tensor]) -> Tensor:
        factor = self.parameters[1].detach()
        change = factor * (self.z @ v[0].T) + v[1] * self.product
        change[0] += v[2]
        return change

    def pullback(self, g: Tensor) -> list[Tensor]:
        scaled = g * self.parameters[1].detach()
        return [
            scaled.flatten(0, 1).T @ self.z.flatten(0, 1),
            (g * self.product).sum((0, 1)),
            g[0].sum(0),
        ]


class SkipSite(Site):
    """y = z + alpha * difference with one number alpha."""

    def __init__(self, alpha: Tensor, difference: Tensor, output: Tensor) -> None:
        self.parameters = (alpha,)
        self.difference, self.output = difference.detach(), node(output)

    def rows(self, g: Tensor, fold: int) -> list[Tensor | OuterRows]:
        return [folded((g * self.difference).sum((0, 2))[:, None], fold)]

    def tangent(self, v: Sequence[Tensor]) -> Tensor:
        return v[0] * self.difference

    def pullback(self, g: Tensor) -> list[Tensor]:
        return [(g * self.difference).sum().reshape(self.parameters[0].shape)]


class NumberSite(Site):
    """A physical parameter, repeated at every point: output (1, n, 1)."""

    def __init__(self, number: Tensor, n: int) -> None:
        self.parameters = (number,)
        self.output = number.detach().reshape(1, 1, 1).repeat(1, n, 1).requires_grad_()

    def rows(self, g: Tensor, fold: int) -> list[Tensor | OuterRows]:
        return [folded(g[0], fold)]

    def tangent(self, v: Sequence[Tensor]) -> Tensor:
        return v[0].reshape(1, 1, 1).expand_as(self.output)

    def pullback(self, g: Tensor) -> list[Tensor]:
        return [g.sum().reshape(self.parameters[0].shape)]


class GeneralSite(Site):
    """A module without a rule: its rows are `torch.func` products with its own parameters only.

    Args:
        parameters: {name: parameter} of the module.
        function: (parameters, input jet) -> output jet, written with torch.func-safe operations.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        function: Callable[[dict[str, Tensor], Tensor], Tensor],
        z: Tensor,
        output: Tensor,
    ) -> None:
        self.names = tuple(parameters)
        self.parameters = tuple(parameters.values())
        self.function, self.z, self.output = function, z.detach(), node(output)

    def _constants(self) -> dict[str, Tensor]:
        return {k: p.detach() for k, p in zip(self.names, self.parameters, strict=True)}

    def rows(self, g: Tensor, fold: int) -> list[Tensor | OuterRows]:
        def one_point(z: Tensor, g_point: Tensor) -> dict[str, Tensor]:
            def scalar(parameters: dict[str, Tensor]) -> Tensor:
                return (self.function(parameters, z.unsqueeze(1)).squeeze(1) * g_point).sum()

            return torch.func.grad(scalar)(self._constants())

        blocks = torch.func.vmap(one_point, in_dims=1)(self.z, g)
        return [folded(blocks[k].flatten(1), fold) for k in self.names]

    def tangent(self, v: Sequence[Tensor]) -> Tensor:
        def output(parameters: dict[str, Tensor]) -> Tensor:
            return self.function(parameters, self.z)

        change = dict(zip(self.names, v, strict=True))
        return torch.func.jvp(output, (self._constants(),), (change,))[1]

    def pullback(self, g: Tensor) -> list[Tensor]:
        def scalar(parameters: dict[str, Tensor]) -> Tensor:
            return (self.function(parameters, self.z) * g).sum()

        gradients = torch.func.grad(scalar)(self._constants())
        return [gradients[k] for k in self.names]


def physical_numbers(parameters: Sequence[Tensor], n: int, tape: Tape | None) -> list[Tensor]:
    """Physical parameters as leaves' values; with a tape each becomes a site of its own."""
    if tape is None:
        return list(parameters)
    return [tape.record(NumberSite(p, n))[0, :, 0] if p.requires_grad else p for p in parameters]
