"""Pore networks: random ones from a Delaunay tessellation, and real ones in the Statoil format.

In    a number of pores and a generator, or the four files of a scanned rock.
Out   a `Graph` with conductances `k` of its throats, and boolean node features `inlet`, `outlet`.
Next  `problems.pore_network` solves for the pressures.

Slow flow through a tube of radius r and length L obeys Hagen and Poiseuille: k = pi r^4 / (8 mu L) is
the flow per pressure difference. All quantities are in SI units.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from pinnkit.declare.graph import Graph

__all__ = ["hagen_poiseuille", "pore_network", "read_statoil"]

_SIDE = 1e-3  # m, of the cube
_DIAMETER = 1e-5  # m, the median
_SPREAD = 0.1  # standard deviation of the diameter's logarithm
_CLEARANCE = 0.9  # a pore's diameter is at most this part of the distance to its nearest neighbour
_SHARE = 0.1  # of the pores lie in the inlet, as many in the outlet


def hagen_poiseuille(radius: np.ndarray, length: np.ndarray, viscosity: float) -> np.ndarray:
    """pi r^4 / (8 mu L), the flow through a tube per pressure difference."""
    return np.pi * radius**4 / (8 * viscosity * length)


def pore_network(
    n: int,
    seed: int | np.random.Generator = 0,
    *,
    side: float = _SIDE,
    diameter: float = _DIAMETER,
    viscosity: float = 1e-5,
) -> Graph:
    """A random network: n pores in a cube, throats along the edges of their Delaunay tessellation.

    Diameters of pores are log-normal, cut off where neighbours would touch; a throat is as wide as the
    narrower of its two pores and as long as the gap between them. The tenth of the pores with the
    smallest y is the inlet, the tenth with the largest the outlet.

    Node features: position (n, 3), diameter, inlet, outlet. Edge features: diameter, length, k.

    Args:
        n: Number of pores, at least 10.
        seed: An integer or a numpy generator (which is advanced).
        side: Length of the cube's edges.
        diameter: Median diameter of the pores.
        viscosity: Of the fluid.

    >>> pore_network(50)
    Graph(50 nodes, 277 edges; node: position, diameter, inlet, outlet; edge: diameter, length, k)
    """
    from scipy.spatial import Delaunay

    if isinstance(n, bool) or n != int(n) or n < 10:
        raise ValueError(f"pore_network(n={n!r}): a network has at least 10 pores")
    rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(seed)
    position = side * rng.random((int(n), 3))
    widths = diameter * np.exp(_SPREAD * rng.standard_normal(int(n)))
    tets = Delaunay(position).simplices
    pairs = np.concatenate([tets[:, [i, j]] for i in range(4) for j in range(i)])
    edges = np.unique(np.sort(pairs, axis=1), axis=0).T
    distance = np.linalg.norm(position[edges[0]] - position[edges[1]], axis=1)
    nearest = np.full(int(n), np.inf)
    np.minimum.at(nearest, edges.ravel(), np.tile(distance, 2))
    widths = np.minimum(widths, _CLEARANCE * nearest)
    throat = np.minimum(*widths[edges])
    length = distance - widths[edges].sum(axis=0) / 2
    rank = np.argsort(np.argsort(position[:, 1]))
    count = max(1, round(_SHARE * n))
    return Graph(
        edges,
        node={
            "position": position,
            "diameter": widths,
            "inlet": rank < count,
            "outlet": rank >= n - count,
        },
        edge={
            "diameter": throat,
            "length": length,
            "k": hagen_poiseuille(throat / 2, length, viscosity),
        },
    )


def read_statoil(
    folder: str | PathLike[str],
    name: str,
    *,
    viscosity: float = 1e-3,
    shortest: float = 1e-9,
    connected: bool = True,
) -> Graph:
    """A network extracted from a scan, in the text format of Statoil and Imperial College.

    Throats to the two reservoirs are left out; the pores they lead to are the inlet and the outlet.
    The conductance is that of a round tube of the throat's radius and its own length, the pore bodies
    at both ends not counted.

    Node features: position, radius, volume, inlet, outlet. Edge features: radius, length,
    shape_factor, k.

    Args:
        folder: Where `name_node1.dat`, `name_node2.dat`, `name_link1.dat`, `name_link2.dat` lie.
        name: The network's name, as "F42A".
        viscosity: Of the fluid, water by default.
        shortest: What shorter throats are taken as.
        connected: Keep only the parts of the network that touch the inlet or the outlet.
    """
    place = Path(folder)
    nodes = _rows(place / f"{name}_node1.dat")
    count, pores = int(nodes[0][0]), nodes[1:]
    bodies = np.array(_rows(place / f"{name}_node2.dat"), dtype=float)
    links = np.array(_rows(place / f"{name}_link1.dat")[1:], dtype=float)
    lengths = np.array(_rows(place / f"{name}_link2.dat"), dtype=float)
    if not len(pores) == len(bodies) == count or len(links) != len(lengths):
        raise ValueError(
            f"{name}: {count} pores are announced, {len(pores)} and {len(bodies)} described; "
            f"{len(links)} and {len(lengths)} throats are described: the files do not belong together"
        )
    flags = [row[5 + int(row[4]) : 7 + int(row[4])] for row in pores]  # after the neighbours
    inlet, outlet = np.array(flags, dtype=float).T.astype(bool)
    ends = links[:, 1:3].astype(int).T - 1  # 1-based; the reservoirs, 0 and -1, become negative
    inside = (ends >= 0).all(axis=0)
    radius, length = links[inside, 3], np.maximum(lengths[inside, 5], shortest)
    graph = Graph(
        ends[:, inside],
        node={
            "position": np.array([row[1:4] for row in pores], dtype=float),
            "radius": bodies[:, 2],
            "volume": bodies[:, 1],
            "inlet": inlet,
            "outlet": outlet,
        },
        edge={
            "radius": radius,
            "length": length,
            "shape_factor": links[inside, 4],
            "k": hagen_poiseuille(radius, length, viscosity),
        },
    )
    return _connected(graph, inlet | outlet) if connected else graph


def _rows(path: Path) -> list[list[str]]:
    with path.open(encoding="ascii") as lines:
        return [line.split() for line in lines if line.strip()]


def _connected(graph: Graph, boundary: np.ndarray) -> Graph:
    part = graph.components()
    kept = np.isin(part, part[boundary])
    number = np.cumsum(kept) - 1
    inside = kept[graph.edges[0]]
    return Graph(
        number[graph.edges[:, inside]],
        {name: value[kept] for name, value in graph.node.items()},
        {name: value[inside] for name, value in graph.edge.items()},
        nodes=int(kept.sum()),
    )
