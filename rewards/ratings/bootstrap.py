"""The one bootstrap: cases that belong together are drawn together, and 95 % percentile intervals of what they give.

A ratio of sums takes counts, a matrix product for all resamples at once; what is no ratio of sums (ranks, calibration)
takes indices. The two draw from a seed in their own ways. Kept by hand: scipy.stats.bootstrap draws single cases, where
those of a patient stand or fall together.
Left out: intervals corrected for bias (BCa), which need the statistic once more without each patient.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

BOUNDS_95 = (0.025, 0.975)


def drawn_counts(num_clusters: int, *, num_resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each cluster (a patient, a case) is drawn in each resample: (resamples, clusters).

    >>> drawn_counts(3, num_resamples=2, seed=0).sum(axis=1).tolist()
    [3.0, 3.0]
    """
    if num_clusters == 0:
        return np.zeros((num_resamples, 0))
    even = np.full(num_clusters, 1.0 / num_clusters)
    return np.random.default_rng(seed).multinomial(num_clusters, even, size=num_resamples).astype(np.float64)


def drawn_indices(clusters: Sequence[Hashable], *, num_resamples: int, seed: int) -> list[NDArray[np.intp]]:
    """Indices of the cases in each resample, given the cluster of each case; none where all are of one cluster.

    >>> sorted(set(drawn_indices(["p", "q", "q"], num_resamples=1, seed=0)[0].tolist())) in ([0], [1, 2], [0, 1, 2])
    True
    """
    of_cluster: dict[Hashable, list[int]] = {}
    for index, cluster in enumerate(clusters):
        of_cluster.setdefault(cluster, []).append(index)
    groups = [np.array(indices) for indices in of_cluster.values()]
    if len(groups) < 2:
        return []
    rng = np.random.default_rng(seed)
    return [
        np.concatenate([groups[k] for k in rng.integers(len(groups), size=len(groups))]) for _ in range(num_resamples)
    ]


def interval(values: ArrayLike) -> tuple[float, float] | None:
    """The 95 % percentile interval of a statistic over its resamples; NaN is left out, None where nothing else is left.

    >>> interval([0.0, 1.0, float("nan")]), interval([])
    ((0.025, 0.975), None)
    """
    found = np.asarray(values, dtype=np.float64)
    seen = found[~np.isnan(found)]
    if not len(seen):
        return None
    low, high = np.quantile(seen, BOUNDS_95).tolist()
    return low, high
