"""Several rewards to one: weighted sum, gates, and DRPO's advantages by domain. No torch.

Tables are (N, K): N responses in consecutive groups of one prompt each, K rewards, NaN where a reward does not apply
(None). It never counts as 0 in a mean; a response that no reward judges has the advantage 0, as has every response of a
group whose rewards are all equal. Deviations are TRL's (sample standard deviation, epsilon 1e-4). Left out: the
advantages of plain GRPO and GDPO, which TRL computes itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

Array = NDArray[np.float64]
EPSILON = 1e-4
ROUNDS = 20
"""k-means of the few groups of a batch has settled long before."""


def as_table(scores: Sequence[Sequence[float | None]]) -> Array:
    """Scores by reward (K lists of N) as an (N, K) table, None as NaN.

    >>> as_table([[1.0, None], [0.5, 0.0]]).tolist()
    [[1.0, 0.5], [nan, 0.0]]
    """
    return np.array([[np.nan if s is None else s for s in of_reward] for of_reward in scores], dtype=np.float64).T


def weighted_sum(table: Array, weights: Sequence[float]) -> Array:
    """Sum over the rewards that apply, (N,); NaN where none does."""
    total = np.nansum(table * np.asarray(weights, dtype=np.float64), axis=1)
    return np.where(np.isnan(table).all(axis=1), np.nan, total)


def normalised(table: Array, *, group_size: int) -> Array:
    """Each column less its group's mean, over a standard deviation plus 1e-4; exactly 0 where a group does not vary."""
    groups = table.reshape(-1, group_size, table.shape[1])
    centred = groups - _mean(groups)
    centred[np.broadcast_to(_is_constant(groups), centred.shape) & ~np.isnan(centred)] = 0.0
    return (centred / (_deviation(groups) + EPSILON)).reshape(table.shape)


def _mean(groups: Array) -> Array:
    """Mean over the responses of each group that are judged; 0 where none is."""
    count = (~np.isnan(groups)).sum(axis=1, keepdims=True)
    return np.nansum(groups, axis=1, keepdims=True) / np.maximum(count, 1)


def _deviation(groups: Array) -> Array:
    """Sample standard deviation of each group; 0 with fewer than two judged responses."""
    count = (~np.isnan(groups)).sum(axis=1, keepdims=True)
    squares = np.nansum((groups - _mean(groups)) ** 2, axis=1, keepdims=True)
    return np.sqrt(squares / np.maximum(count - 1, 1))


def _is_constant(groups: Array) -> NDArray[np.bool_]:
    low = np.where(np.isnan(groups), np.inf, groups).min(axis=1, keepdims=True)
    high = np.where(np.isnan(groups), -np.inf, groups).max(axis=1, keepdims=True)
    return high <= low


@dataclass(frozen=True)
class Gate:
    """``reward`` counts only where the reward ``needs`` gives ``at_least``; with ``multiply``, in its proportion."""

    reward: str
    needs: str
    at_least: float = 1.0
    multiply: bool = False

    def applied(self, score: float | None, needed: float | None, *, floor: float) -> float | None:
        """The gated score: ``floor`` (the least that the reward gives) where the gate is shut. None stays None.

        >>> Gate("box_overlap", "think_format").applied(0.8, 0.0, floor=0.0)
        0.0
        """
        if score is None or needed is None:
            return score
        if self.multiply:
            return floor + (score - floor) * min(1.0, max(0.0, needed))
        return score if needed >= self.at_least else floor


def domain_advantages(
    table: Array,
    weights: Sequence[float],
    domains: Sequence[str],
    *,
    group_size: int,
    clusters: int = 1,
    floor: float = 0.1,
) -> Array:
    """DRPO's advantages (QoQ-Med, arXiv 2506.00711): GRPO's, over temperatures of domain and cluster, (N,).

    T = max(sqrt(number of responses) x mean reward, ``floor``): what is frequent and already solved counts less. Number
    and mean are of the responses that are judged.
    Clusters are k-means of the mean reward vectors of a domain's groups. The whole is then divided by the batch's
    standard deviation. Rewards are shifted to be non-negative before T is taken, so no sign can turn.
    """
    total = weighted_sum(table, weights)
    plain = np.nan_to_num(normalised(total[:, None], group_size=group_size)[:, 0], nan=0.0)
    shifted = total - np.nanmin(total, initial=0.0)
    members = _members(table, np.asarray(domains), group_size=group_size, clusters=clusters)
    temperature = np.ones(len(total))
    for mask in members:
        judged = shifted[mask & ~np.isnan(total)]
        temperature[mask] *= max(judged.sum() / np.sqrt(max(len(judged), 1)), floor)
    scaled = plain / temperature
    spread = _deviation(scaled[None, :, None]).item()
    return scaled / spread if spread > 0 else np.zeros_like(scaled)


def _members(table: Array, domains: NDArray[np.str_], *, group_size: int, clusters: int) -> list[NDArray[np.bool_]]:
    """Masks of the responses of each domain, and of each cluster in it."""
    found: list[NDArray[np.bool_]] = []
    vectors = _mean(table.reshape(-1, group_size, table.shape[1]))[:, 0]
    for domain in np.unique(domains):
        inside = domains == domain
        found.append(inside)
        groups = np.flatnonzero(inside[::group_size])
        labels = cluster_labels(vectors[groups], clusters)
        found += [np.repeat(np.isin(np.arange(len(vectors)), groups[labels == k]), group_size) for k in set(labels)]
    return found


def cluster_labels(points: Array, clusters: int) -> NDArray[np.intp]:
    """k-means labels of points (rows), started from points far apart: no chance in it.

    >>> cluster_labels(np.array([[0.0], [0.1], [1.0]]), 2).tolist()
    [0, 0, 1]
    """
    centres = points[:1]
    while len(centres) < min(clusters, len(np.unique(points, axis=0))):
        far = ((points[:, None] - centres[None]) ** 2).sum(-1).min(axis=1)
        centres = np.vstack([centres, points[far.argmax()]])
    return kmeans2(points, centres, iter=ROUNDS, minit="matrix")[1].astype(np.intp)
