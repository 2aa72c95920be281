"""Optimal values of random decision processes, the second task of convergent graph solvers."""

from __future__ import annotations

import pinnkit as pk
from pinnkit.graphs.value_iteration import best_arcs, policy_accuracy, sample_graphs

__all__ = ["GraphValueIteration", "best_arcs", "policy_accuracy", "sample_graphs"]

V = pk.node_field("V")
r = pk.edge_feature("r")


@pk.problem
class GraphValueIteration(pk.ProblemClass):
    """V(s) = max over arcs s' -> s of r + discount V(s'): Bellman's equation of a deterministic process.

    Directed graphs with parallel arcs; rewards on arcs, values at nodes. It contracts by the discount, but
    it is not linear: which arc is best depends on the values. `SparseFixedPoint` solves it by Newton's
    method, which here is policy iteration. `graphs` draws the published distribution; `sample_graphs`
    gives other sizes, and the exact values as node feature V; `policy_accuracy` scores predicted values
    by the arcs they choose.

    Args:
        discount: Of values one arc further.
    """

    discount: float = 0.9
    citation = (
        "J. Park, J. Choo, J. Park: Convergent Graph Solvers. "
        "International Conference on Learning Representations (2022)."
    )

    def declare(self) -> pk.GraphSystem:
        """Bellman's equation."""
        return pk.GraphSystem([V - pk.neighbour_max(r + self.discount * V.neighbour)])

    def graphs(self, count: int = 64, seed: int = 0) -> list[pk.Graph]:
        """20 to 49 states with 5 to 9 incoming arcs each, rewards uniform in (-1, 1)."""
        return sample_graphs(count, discount=self.discount, seed=seed)
