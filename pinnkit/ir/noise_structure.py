"""What structure the noise of a system has: additive, diagonal, scalar, general.

In    the diffusion coefficients, the sizes of the Wiener processes, the shapes of neural terms.
Out   a `Noise`, and whether every component of the state has a W of its own.
Next  `ir.stochastic_form`; integrators rely on it, so what cannot be seen to be special is general.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy as sp

from pinnkit.declare.noise import Noise
from pinnkit.declare.printing import refusal
from pinnkit.declare.stochastic import Neural, Process, Wiener
from pinnkit.ir.neural_shapes import Shape

__all__ = ["classify_noise", "depends_on", "wiener_sizes"]

Diffusion = Mapping[tuple[Process, Wiener], sp.Expr]


def depends_on(expr: sp.Expr, kinds: tuple[type, ...]) -> set[Any]:
    """The symbols of these kinds an expression depends on, directly or through a neural term."""
    seen = set(expr.free_symbols)
    for neural in expr.atoms(Neural):
        for entry in neural.inputs:
            seen |= entry.free_symbols
    return {s for s in seen if isinstance(s, kinds)}


def wiener_sizes(wieners: tuple[Wiener, ...], diffusion: Diffusion) -> dict[Wiener, int]:
    """Components of each Wiener process: declared, or those of the process it drives."""
    sizes = {}
    for w in wieners:
        driven = [z for z, other in diffusion if other == w]
        dims = {z.dim for z in driven}
        if w.dim is None and len(dims) > 1:
            names = " and ".join(f"{z} with {z.dim}" for z in driven)
            raise refusal(
                f'wiener("{w}", {w.time})',
                f"it drives {names} components, so its own number is not clear",
                "write dim=1 for one component, or one Wiener process per equation",
            )
        sizes[w] = w.dim if w.dim is not None else dims.pop()
    return sizes


def classify_noise(
    processes: tuple[Process, ...],
    diffusion: Diffusion,
    sizes: Mapping[Wiener, int],
    shapes: Mapping[Neural, Shape],
) -> tuple[Noise, bool]:
    """The most special structure that can be read off the coefficients."""
    apart = all(_own_component(z, w, g, sizes, shapes) for (z, w), g in diffusion.items())
    drivers = [w for _, w in diffusion]
    owners = [z for z, _ in diffusion]
    apart = apart and len(set(drivers)) == len(drivers) and len(set(owners)) == len(owners)
    if not any(depends_on(g, (Process,)) for g in diffusion.values()):
        return Noise.ADDITIVE, apart
    if apart and all(_of_itself(z, g) for (z, _), g in diffusion.items()):
        return Noise.DIAGONAL, True
    if sum(sizes.values()) == 1:
        return Noise.SCALAR, False
    return Noise.GENERAL, apart


def _own_component(
    z: Process,
    w: Wiener,
    g: sp.Expr,
    sizes: Mapping[Wiener, int],
    shapes: Mapping[Neural, Shape],
) -> bool:
    """Whether W has the components of z, and the coefficient is a vector."""
    return sizes[w] == z.dim and all(len(shapes[n]) == 1 for n in g.atoms(Neural))


def _of_itself(z: Process, g: sp.Expr) -> bool:
    """Whether component i of the coefficient depends on component i of z alone.

    Sympy expressions act component by component; a network mixes what it sees.
    """
    if depends_on(g, (Process,)) - {z}:
        return False
    return z.dim == 1 or not any(
        entry.has(Process) for neural in g.atoms(Neural) for entry in neural.inputs
    )
