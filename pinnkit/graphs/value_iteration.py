"""Graph value iteration: optimal values of random deterministic decision processes.

In    a number of states and of actions, a seed.
Out   directed `Graph`s with the reward on every arc and the optimal value V at every node.
Next  `problems.graph_value_iteration` learns V from the rewards.

    V(s) = max over arcs s' -> s of r + gamma V(s')

Values flow along the arcs, from sender to receiver, which is the direction messages take here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pinnkit.declare.graph import Graph

__all__ = ["best_arcs", "make_decision_graph", "optimal_values", "policy_accuracy", "sample_graphs"]


def sample_graphs(
    count: int,
    *,
    states: tuple[int, int] = (20, 49),
    actions: tuple[int, int] = (5, 9),
    discount: float = 0.9,
    seed: int = 0,
) -> list[Graph]:
    """`count` graphs whose numbers of states and actions are uniform in the closed ranges."""
    rng = np.random.default_rng(seed)
    return [
        make_decision_graph(
            int(rng.integers(states[0], states[1] + 1)),
            int(rng.integers(actions[0], actions[1] + 1)),
            discount=discount,
            rng=rng,
        )
        for _ in range(count)
    ]


def make_decision_graph(
    states: int, actions: int, *, discount: float = 0.9, rng: np.random.Generator
) -> Graph:
    """Every state gets `actions` arcs from other states, drawn with replacement; rewards in (-1, 1).

    >>> graph = make_decision_graph(20, 5, rng=np.random.default_rng(0))
    >>> graph
    Graph(20 nodes, 100 arcs; node: V; edge: r)
    """
    if states < 2 or actions < 1:
        raise ValueError(f"states={states} must be at least 2 and actions={actions} at least 1")
    receivers = np.repeat(np.arange(states), actions)
    senders = rng.integers(0, states - 1, size=states * actions)
    senders = senders + (senders >= receivers)  # any state but the receiver
    rewards = rng.uniform(-1, 1, size=states * actions)
    edges = np.stack([senders, receivers])
    values = optimal_values(edges, rewards, states, discount=discount)
    return Graph(edges, node={"V": values}, edge={"r": rewards}, directed=True)


def optimal_values(
    edges: np.ndarray,  # shape: (2, A)
    rewards: np.ndarray,  # shape: (A,)
    states: int,
    *,
    discount: float = 0.9,
    tol: float = 1e-10,
) -> np.ndarray:  # shape: (N,)
    """Iterated until the error, at most discount / (1 - discount) of the last change, is below tol."""
    values = np.zeros(states)
    change = np.inf
    while change * discount / (1 - discount) > tol:
        new = np.full(states, -np.inf)
        np.maximum.at(new, edges[1], rewards + discount * values[edges[0]])
        new[np.isinf(new)] = 0.0  # a state nothing leads to
        change = float(np.abs(new - values).max(initial=0.0))
        values = new
    return values


def best_arcs(graph: Graph, values: np.ndarray, *, discount: float = 0.9) -> np.ndarray:  # (N,)
    """At every state the arc that is best if `values` are right; -1 where none arrives."""
    senders, receivers = graph.edges
    worth = graph.edge["r"] + discount * values[senders]
    order = np.lexsort((-worth, receivers))
    first = np.r_[True, np.diff(receivers[order]) > 0] if len(order) else np.zeros(0, bool)
    best = np.full(graph.n_nodes, -1)
    best[receivers[order[first]]] = order[first]
    return best


def policy_accuracy(
    graphs: Sequence[Graph], predicted: Sequence[np.ndarray], *, discount: float = 0.9
) -> np.ndarray:  # shape: (len(graphs),)
    """Per graph the share of states whose greedy arc is the optimal one."""
    return np.array(
        [
            np.mean(
                best_arcs(g, v, discount=discount) == best_arcs(g, g.node["V"], discount=discount)
            )
            for g, v in zip(graphs, predicted, strict=True)
        ]
    )
