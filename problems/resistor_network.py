"""A network of resistors and diodes."""

from __future__ import annotations

import numpy as np
import sympy as sp

import pinnkit as pk

__all__ = ["ResistorNetwork"]

v = pk.node_field("v", unit="V")
g, diode = pk.edge_feature("g diode")


@pk.problem
class ResistorNetwork(pk.ProblemClass):
    """sum_j g_ij (v_j - v_i) + I_ij = 0 at every node i, Shockley diodes I = I_s (exp(dv/V_T) - 1).

    A square grid of resistors in which some are replaced by diodes, all pointing along their edge: current
    passes one way only. Two opposite corners are held at a voltage and at ground. The exponentials
    make it stiff: the current of a diode grows tenfold every 60 mV.

    Args:
        size: Nodes along each side of the grid.
        diodes: Share of the edges that are diodes.
        voltage: At the first corner, V; negative drives against most diodes.
        saturation: Current of a blocked diode, A.
        thermal: Thermal voltage, V.
        seed: Of conductances and diodes.
    """

    size: int = 8
    diodes: float = 0.3
    voltage: float = 5.0
    saturation: float = 1e-12
    thermal: float = 0.02585
    seed: int = 0
    citation = (
        "W. Shockley: The theory of p-n junctions. Bell System Technical Journal 28 (1949) 435."
    )

    def equations(self) -> pk.GraphSystem:
        """Kirchhoff's law; along an edge the orientation is +1, against it -1."""
        o = pk.orientation
        through = o * self.saturation * (sp.exp(o * (v.neighbour - v) / self.thermal) - 1)
        current = sp.Piecewise((through, diode > 0), (g * (v.neighbour - v), True))
        return pk.GraphSystem(
            pk.neighbour_sum(current),
            [pk.Fixed(v, self.voltage, where="source"), pk.Fixed(v, 0, where="ground")],
        )

    def declare(self) -> pk.GraphProblem:
        """On a grid; edges point right or down, away from the source."""
        n, rng = self.size, np.random.default_rng(self.seed)
        number = np.arange(n * n).reshape(n, n)
        right = np.stack([number[:, :-1].ravel(), number[:, 1:].ravel()])
        down = np.stack([number[:-1].ravel(), number[1:].ravel()])
        edges = np.concatenate([right, down], axis=1)
        count = edges.shape[1]
        graph = pk.Graph(
            edges,
            node={
                "source": number.ravel() == 0,
                "ground": number.ravel() == n * n - 1,
                "position": np.stack([number % n, -(number // n)], axis=-1).reshape(-1, 2) * 1.0,
            },
            edge={
                "g": 1e-3 * np.exp(0.5 * rng.standard_normal(count)),
                "diode": rng.random(count) < self.diodes,
            },
        )
        return self.equations().on(graph)
