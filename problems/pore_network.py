"""Slow flow through a network of pores."""

from __future__ import annotations

import pinnkit as pk
from pinnkit.graphs import pore_network

__all__ = ["PoreNetwork"]

p = pk.node_field("p", unit="Pa")
k = pk.edge_feature("k")


@pk.problem
class PoreNetwork(pk.ProblemClass):
    """sum_j k_ij (p_j - p_i) = 0 in every pore i, p given at the inlet and the outlet.

    A random pore network: pores of log-normal size in a cube, throats along the edges of their Delaunay
    tessellation, Hagen-Poiseuille conductances k over several decades. A weighted graph Laplacian: its
    matrix is an M-matrix, so that the error of the exact solver is proved. What is hard is to learn
    it: the pressure in a pore depends on all others.

    Args:
        n: Number of pores.
        seed: Of the random network.
        drop: Pressure at the inlet, Pa; that at the outlet is 0.
    """

    n: int = 500
    seed: int = 0
    drop: float = 101325.0
    citation = (
        "@inproceedings{park2022cgs,\n"
        "  title     = {Convergent Graph Solvers},\n"
        "  author    = {Park, Junyoung and Choo, Jinhyun and Park, Jinkyoo},\n"
        "  booktitle = {International Conference on Learning Representations},\n"
        "  year      = {2022}\n}"
    )

    def equations(self) -> pk.GraphSystem:
        """For every network with conductances k and boolean features inlet and outlet."""
        return pk.GraphSystem(
            pk.neighbour_sum(k * (p.neighbour - p)),
            [pk.Fixed(p, self.drop, where="inlet"), pk.Fixed(p, 0, where="outlet")],
        )

    def declare(self) -> pk.GraphProblem:
        """On one random network."""
        return self.equations().on(pore_network(self.n, self.seed))
