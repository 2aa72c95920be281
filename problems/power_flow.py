"""Power flow in an electric grid: the IEEE 14-bus test case."""

from __future__ import annotations

import numpy as np
import sympy as sp

import pinnkit as pk

__all__ = ["PowerFlow"]

theta = pk.node_field("theta", initial=0.0)
V = pk.node_field("V", initial=1.0)
power, reactive, shunt, level = pk.node_feature("power reactive shunt level")
conductance, susceptance, charging, tap = pk.edge_feature("conductance susceptance charging tap")

# Loads and generation in MW and MVAr: (P load, Q load, P generated, shunt MVAr, voltage if it is held).
BUSES = (
    (0.0, 0.0, 232.4, 0.0, 1.060),
    (21.7, 12.7, 40.0, 0.0, 1.045),
    (94.2, 19.0, 0.0, 0.0, 1.010),
    (47.8, -3.9, 0.0, 0.0, None),
    (7.6, 1.6, 0.0, 0.0, None),
    (11.2, 7.5, 0.0, 0.0, 1.070),
    (0.0, 0.0, 0.0, 0.0, None),
    (0.0, 0.0, 0.0, 0.0, 1.090),
    (29.5, 16.6, 0.0, 19.0, None),
    (9.0, 5.8, 0.0, 0.0, None),
    (3.5, 1.8, 0.0, 0.0, None),
    (6.1, 1.6, 0.0, 0.0, None),
    (13.5, 5.8, 0.0, 0.0, None),
    (14.9, 5.0, 0.0, 0.0, None),
)
# (from, to, resistance, reactance, line charging, ratio of the transformer) per unit of 100 MVA.
BRANCHES = (
    (1, 2, 0.01938, 0.05917, 0.0528, 1.0),
    (1, 5, 0.05403, 0.22304, 0.0492, 1.0),
    (2, 3, 0.04699, 0.19797, 0.0438, 1.0),
    (2, 4, 0.05811, 0.17632, 0.0340, 1.0),
    (2, 5, 0.05695, 0.17388, 0.0346, 1.0),
    (3, 4, 0.06701, 0.17103, 0.0128, 1.0),
    (4, 5, 0.01335, 0.04211, 0.0, 1.0),
    (4, 7, 0.0, 0.20912, 0.0, 0.978),
    (4, 9, 0.0, 0.55618, 0.0, 0.969),
    (5, 6, 0.0, 0.25202, 0.0, 0.932),
    (6, 11, 0.09498, 0.19890, 0.0, 1.0),
    (6, 12, 0.12291, 0.25581, 0.0, 1.0),
    (6, 13, 0.06615, 0.13027, 0.0, 1.0),
    (7, 8, 0.0, 0.17615, 0.0, 1.0),
    (7, 9, 0.0, 0.11001, 0.0, 1.0),
    (9, 10, 0.03181, 0.08450, 0.0, 1.0),
    (9, 14, 0.12711, 0.27038, 0.0, 1.0),
    (10, 11, 0.08205, 0.19207, 0.0, 1.0),
    (12, 13, 0.22092, 0.19988, 0.0, 1.0),
    (13, 14, 0.17093, 0.34802, 0.0, 1.0),
)


@pk.problem
class PowerFlow(pk.ProblemClass):
    """P_i = sum_j P_ij(theta, V), Q_i = sum_j Q_ij(theta, V): alternating current in a grid.

    The IEEE 14-bus test case. At loads both powers are given, at generators the active power and the
    voltage, at the slack bus voltage and phase: two fields of which some nodes have one fixed, so each
    equation is declared with its field. Scaled up, the loads reach a limit beyond which there is no
    solution (voltage collapse).

    Args:
        load: Factor on all loads and on the generation.
    """

    load: float = 1.0
    citation = (
        "R. Christie: Power systems test case archive, 14-bus test case. University of "
        "Washington, 1993."
    )

    def equations(self) -> pk.GraphSystem:
        """The power flow equations in polar form, per unit."""
        # The transformer sits at the end in row 0, from where an arc leaves with orientation +1.
        at_transformer = (1 - pk.orientation) / 2
        own = (1 - at_transformer + at_transformer / tap**2) * V**2
        angle, both = theta - theta.neighbour, V * V.neighbour / tap
        active = own * conductance - both * (
            conductance * sp.cos(angle) + susceptance * sp.sin(angle)
        )
        passive = -own * (susceptance + charging / 2) - both * (
            conductance * sp.sin(angle) - susceptance * sp.cos(angle)
        )
        return pk.GraphSystem(
            {
                theta: power - pk.neighbour_sum(active),
                V: reactive + shunt * V**2 - pk.neighbour_sum(passive),
            },
            [pk.Fixed(theta, 0, where="slack"), pk.Fixed(V, level, where="generator")],
        )

    def declare(self) -> pk.GraphProblem:
        """On the 14 buses."""
        loads = np.array([[float(x or 0) for x in bus] for bus in BUSES])
        lines = np.array(BRANCHES)
        admittance = 1 / (lines[:, 2] + 1j * lines[:, 3])
        graph = pk.Graph(
            lines[:, :2].astype(int).T - 1,
            node={
                "power": self.load * (loads[:, 2] - loads[:, 0]) / 100,
                "reactive": -self.load * loads[:, 1] / 100,
                "shunt": loads[:, 3] / 100,
                "level": loads[:, 4],
                "slack": np.arange(len(loads)) == 0,
                "generator": loads[:, 4] > 0,
            },
            edge={
                "conductance": admittance.real,
                "susceptance": admittance.imag,
                "charging": lines[:, 4],
                "tap": lines[:, 5],
            },
        )
        return self.equations().on(graph)
