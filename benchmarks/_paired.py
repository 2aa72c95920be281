"""Paired comparisons over cells that come in clusters (data sets): means with bootstrap intervals.

In    differences, each with the cluster it belongs to.
Out   `Paired`: their mean over clusters, and a 95 % interval.
Next  benchmarks/stable_classification.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

__all__ = ["Paired", "cluster_bootstrap"]


@final
@dataclass(frozen=True)
class Paired:
    """Mean difference and its interval; `cells` of them in `clusters` clusters."""

    mean: float
    low: float
    high: float
    cells: int
    clusters: int

    def __str__(self) -> str:
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def cluster_bootstrap(
    differences: Mapping[str, Sequence[float]], *, draws: int = 10_000, seed: int = 0
) -> Paired:
    """The mean over clusters of the mean within each, resampled in two stages.

    Clusters are drawn with replacement, then cells within each drawn cluster: cells of one data set share
    its series, and are no independent evidence about the next data set. Four clusters are few: of 200 simulated
    experiments (normal effects of clusters and cells, nine cells each) the interval held the truth in 84 %.
    """
    groups = [np.asarray(v, float) for v in differences.values() if len(v)]
    rng = np.random.default_rng(seed)
    # (draws, clusters): the mean of one resample of each cluster, every time it is drawn.
    chosen = rng.integers(len(groups), size=(draws, len(groups)))
    means = np.empty(chosen.shape)
    for k, group in enumerate(groups):
        place = chosen == k
        again = rng.integers(len(group), size=(int(place.sum()), len(group)))
        means[place] = group[again].mean(1)
    low, high = np.quantile(means.mean(1), [0.025, 0.975])
    return Paired(
        float(np.mean([g.mean() for g in groups])),
        float(low),
        float(high),
        sum(map(len, groups)),
        len(groups),
    )
