"""Graph classification sets in the text format of pytorch_DGCNN, and their folds.

In    a text file; class labels.
Out   `Graph`s with one-hot tags at the nodes and their class as a feature of the graph; folds.
Next  `problems.graph_classification`.

Line 1 is the number of graphs. A graph is a line `n label` and n lines `tag m nbr_1 .. nbr_m`, neighbours
counted from 0, perhaps followed by attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from pinnkit.declare.graph import Graph

__all__ = ["read_tu_file", "stratified_folds"]


def read_tu_file(path: str | PathLike[str]) -> list[Graph]:
    """The graphs of a file. Node feature `tag` (n, t), one-hot; graph feature `label`, from 0.

    Where all nodes have the same tag, the degree takes its place.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    name = Path(path).name
    at = 0

    def numbers() -> list[str]:
        nonlocal at
        if at >= len(lines):
            raise ValueError(f"{name} ends at line {at}, in the middle of a graph")
        at += 1
        return lines[at - 1].split()

    raw = []
    try:
        count = int(numbers()[0])
        for _ in range(count):
            n, label = (int(v) for v in numbers()[:2])
            tags, attributes, pairs = np.zeros(n, dtype=np.int64), [], []
            for i in range(n):
                row = numbers()
                tags[i], m = int(row[0]), int(row[1])
                pairs += [(i, int(j)) for j in row[2 : 2 + m]]
                attributes.append([float(v) for v in row[2 + m :]])
            raw.append((label, tags, attributes, pairs))
    except (ValueError, IndexError) as fault:
        if f"{name} ends" in str(fault):
            raise
        raise ValueError(f"line {at} of {name} is not in the format: {fault}") from fault
    return _graphs(raw, name)


def _graphs(raw: list[tuple[int, np.ndarray, list[list[float]], list[tuple[int, int]]]],
            name: str) -> list[Graph]:  # fmt: skip
    labels = {label: k for k, label in enumerate(sorted({r[0] for r in raw}))}
    columns = [_tags(r) for r in raw]
    if len(np.unique(np.concatenate(columns))) == 1:
        columns = [_degrees(r) for r in raw]
    kinds = {tag: k for k, tag in enumerate(np.unique(np.concatenate(columns)).tolist())}
    graphs = []
    for (label, _, attributes, pairs), tags in zip(raw, columns, strict=True):
        n = len(tags)
        hot = np.zeros((n, len(kinds)))
        hot[np.arange(n), [kinds[t] for t in tags.tolist()]] = 1.0
        # Every edge is listed at both of its ends; some files have slips.
        once = sorted({(min(i, j), max(i, j)) for i, j in pairs if i != j})
        if any(not 0 <= i <= j < n for i, j in once):
            raise ValueError(f"{name}: a neighbour is not among the {n} nodes of its graph")
        node = {"tag": hot}
        if attributes and attributes[0]:
            node["attribute"] = np.array(attributes)
        edges = np.array(once, dtype=np.int64).reshape(-1, 2).T
        graphs.append(Graph(edges, node=node, nodes=n, graph={"label": labels[label]}))
    return graphs


def _tags(record: tuple[int, np.ndarray, list[list[float]], list[tuple[int, int]]]) -> np.ndarray:
    return record[1]


def _degrees(
    record: tuple[int, np.ndarray, list[list[float]], list[tuple[int, int]]],
) -> np.ndarray:
    return np.bincount([i for i, _ in record[3]], minlength=len(record[1]))


def stratified_folds(
    labels: Sequence[int] | np.ndarray, folds: int = 10, *, seed: int = 0
) -> list[np.ndarray]:
    """The numbers of the samples in each fold: shuffled, every class spread evenly.

    >>> [sorted(f.tolist()) for f in stratified_folds([0, 0, 1, 1], 2)]
    [[0, 2], [1, 3]]
    """
    labels = np.asarray(labels)
    if folds < 2 or folds > len(labels):
        raise ValueError(f"folds={folds} must lie between 2 and the {len(labels)} samples")
    rng = np.random.default_rng(seed)
    which = np.empty(len(labels), dtype=np.int64)
    start = 0
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        # Classes go on where the last one ended, so that folds differ by one sample at most.
        which[members] = (start + np.arange(len(members))) % folds
        start += len(members)
    return [np.flatnonzero(which == k) for k in range(folds)]
