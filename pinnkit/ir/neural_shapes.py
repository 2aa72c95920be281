"""How many values every neural term has: declared, or read off its place in the equations.

In    the coefficients of a system.
Out   {neural term: (n,) or (n, m)}; m is None where it is a control's number of channels.
Next  `lower.stochastic` builds the networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy as sp

from pinnkit.declare.printing import refusal, show
from pinnkit.declare.stochastic import Neural, Process, Wiener

__all__ = ["Shape", "place_shapes"]

Shape = tuple[int | None, ...]


def place_shapes(
    drift: Mapping[Process, sp.Expr],
    diffusion: Mapping[tuple[Process, Wiener], sp.Expr],
    driven: Mapping[tuple[Process, Any], sp.Expr],
    initial: Mapping[Process, sp.Expr],
    sizes: Mapping[Wiener, int],
) -> dict[Neural, Shape]:
    """The shape of every neural term, the same at all its places."""
    places: list[tuple[str, Process, sp.Expr, Shape, int | None]] = []  # last: columns, if any
    for z, f in drift.items():
        places.append((f"the drift of {z}", z, f, (z.dim,), None))
    for z, start in initial.items():
        places.append((f"the initial value of {z}", z, start, (z.dim,), None))
    for (z, w), g in diffusion.items():
        m = sizes[w]
        # One W for all components, or one for each: a vector will do.
        vector = m in (1, z.dim)
        needed: Shape = (z.dim,) if vector else (z.dim, m)
        places.append((f"the coefficient of d({w})", z, g, needed, m))
        if not vector and not any(_columns(n) for n in g.atoms(Neural)):
            raise refusal(
                f"d({z}) = ... + ({show(g)})*d({w})",
                f"{w} has {m} components and {z} has {z.dim}",
                f'say how they mix: a factor neural("name", inputs, shape=({z.dim}, {m}))',
            )
    for (z, x), g in driven.items():
        places.append((f"the coefficient of d({x})", z, g, (z.dim, None), None))
        if not g.atoms(Neural):
            raise refusal(
                f"d({z}) = ... + ({show(g)})*d({x})",
                f"nothing says how the channels of {x} act on {z}",
                'multiply by neural("name", inputs), a matrix to be learned',
            )
    shapes: dict[Neural, Shape] = {}
    for where, z, coefficient, needed, columns in places:
        for neural in sorted(coefficient.atoms(Neural), key=str):
            shape = _fit(neural, needed, z, where, columns)
            if shapes.setdefault(neural, shape) != shape:
                raise refusal(
                    f'neural("{neural}", ...)',
                    f"it is used with the shapes {shapes[neural]} and {shape}",
                    "use two neural terms, or give it a shape that fits both places",
                )
        _check_components(coefficient, z, where)
    return shapes


def _columns(neural: Neural) -> bool:
    # A term without a declared shape takes the one its place needs.
    return neural.shape is None or len(neural.shape) == 2


def _fit(neural: Neural, needed: Shape, z: Process, where: str, columns: int | None) -> Shape:
    if neural.shape is None:
        return needed
    shape: Shape = neural.shape
    if shape in ((1,), (z.dim,)):
        return shape
    driven = len(needed) == 2 and needed[1] is None
    if len(shape) == 2 and shape[0] == z.dim and (driven or shape[1] == columns):
        return shape
    raise refusal(
        f'neural("{neural}", shape={neural.shape})',
        f"it stands in {where}, which needs {_words(needed)}",
        "change the shape, or leave it out",
    )


def _words(shape: Shape) -> str:
    if len(shape) == 1:
        return f"{shape[0]} value{'s' if shape[0] != 1 else ''}"
    return f"a matrix of {shape[0]} rows and {shape[1] or 'as many columns as data channels'}"


def _check_components(coefficient: sp.Expr, z: Process, where: str) -> None:
    for other in sorted(coefficient.atoms(Process), key=str):
        if other.dim not in (1, z.dim):
            raise refusal(
                f"{where}, {show(coefficient)}",
                f"{other} has {other.dim} components and {z} has {z.dim}",
                "products are taken component by component: mix them by a neural term",
            )
