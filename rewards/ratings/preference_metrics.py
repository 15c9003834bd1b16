"""How good a reward model is, from its scores alone: pairwise accuracy, calibration, length bias, best-of-n.

Pairs of images (clean and noised) are judged by the same ``pairwise_accuracy``. Left out: the model itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, gammaln
from scipy.stats import spearmanr

from rewards.ratings.agreement import wilson


@dataclass(frozen=True)
class Share:
    """A share of cases with its Wilson interval; NaN without a case."""

    value: float
    low: float
    high: float
    num_cases: int


def pairwise_accuracy(chosen: ArrayLike, rejected: ArrayLike) -> Share:
    """Share of pairs whose chosen side scores higher, ties as half. Shapes (pairs,).

    Raises: ValueError if the shapes differ or a score is not finite.

    >>> pairwise_accuracy([2.0, 1.0], [1.0, 1.0]).value
    0.75
    """
    return _share(_margins(chosen, rejected))


def _share(margins: np.ndarray) -> Share:
    points = float((margins > 0).sum() + (margins == 0).sum() / 2)
    return Share(points / len(margins) if len(margins) else math.nan, *wilson(points, len(margins)), len(margins))


def _margins(chosen: ArrayLike, rejected: ArrayLike) -> np.ndarray:
    c, r = np.asarray(chosen, float), np.asarray(rejected, float)
    if c.shape != r.shape or c.ndim != 1 or not np.isfinite(c).all() or not np.isfinite(r).all():
        raise ValueError(f"scores of shapes {c.shape} and {r.shape}: expected two equal lists of finite numbers.")
    return c - r


@dataclass(frozen=True)
class Calibration:
    """Of P(chosen wins) = sigmoid(margin): expected calibration error, Brier score, log loss; all 0 at best."""

    ece: float
    brier: float
    log_loss: float


def calibration(chosen: ArrayLike, rejected: ArrayLike, *, bins: int = 10) -> Calibration:
    """Calibration of a Bradley-Terry reward model on pairs.

    A pair says nothing of which side is named first, so each is counted in both orders; otherwise every outcome
    would be 1 and overconfidence would not show.
    """
    margins = _margins(chosen, rejected)
    if not len(margins):
        return Calibration(math.nan, math.nan, math.nan)
    p, won, bin_of = _binned(margins, bins)
    sizes = np.bincount(bin_of, minlength=bins)
    gaps = np.abs(np.bincount(bin_of, p, bins) - np.bincount(bin_of, won, bins))
    return Calibration(
        ece=float(gaps.sum() / sizes.sum()),
        brier=float(np.mean((p - won) ** 2)),
        log_loss=float(np.mean(np.logaddexp(0, -margins))),
    )


@dataclass(frozen=True)
class Bin:
    """A bin of sigmoid(margin): mean of what was predicted, share that was observed, cases."""

    predicted: float
    observed: float
    num_cases: int


def reliability(chosen: ArrayLike, rejected: ArrayLike, *, bins: int = 10) -> list[Bin]:
    """The bins behind ``calibration``'s ECE, empty ones left out; each pair is counted in both orders.

    >>> [(round(b.predicted, 3), b.observed, b.num_cases) for b in reliability([2.0, 0.0], [0.0, 2.0])]
    [(0.119, 0.5, 2), (0.881, 0.5, 2)]
    """
    p, won, bin_of = _binned(_margins(chosen, rejected), bins)
    return [
        Bin(float(p[bin_of == k].mean()), float(won[bin_of == k].mean()), int((bin_of == k).sum()))
        for k in np.unique(bin_of)
    ]


def _binned(margins: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted, won (0 or 1) and bin of each pair in both orders."""
    p = expit(np.concatenate([margins, -margins]))
    won = np.concatenate([np.ones(len(margins)), np.zeros(len(margins))])
    return p, won, np.minimum((p * bins).astype(int), bins - 1)


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rank correlation, in [-1, 1]; NaN where either does not vary.

    >>> rank_correlation([0.1, 0.2, 0.9], [1, 2, 3])
    1.0
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(spearmanr(a, b).statistic)  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True)
class LengthBias:
    """``correlation``: Spearman's, of a pair's lead in score and in length, in [-1, 1].

    ``chosen_longer`` and ``chosen_shorter``: accuracy where the chosen side is the longer, and the shorter one.
    """

    correlation: float
    chosen_longer: Share
    chosen_shorter: Share


def length_bias(
    chosen: ArrayLike, rejected: ArrayLike, chosen_lengths: ArrayLike, rejected_lengths: ArrayLike
) -> LengthBias:
    """Whether scores follow length rather than preference. A model without bias has two like accuracies."""
    margins, lead = _margins(chosen, rejected), _margins(chosen_lengths, rejected_lengths)
    return LengthBias(rank_correlation(lead, margins), _share(margins[lead > 0]), _share(margins[lead < 0]))


@dataclass(frozen=True)
class BestOf:
    """Of the sample that a reward model picks among n. ``kl``: log n - (n - 1) / n, how far picking moves a policy."""

    n: int
    gold: float
    proxy: float
    kl: float


def best_of_n(proxy: ArrayLike, gold: ArrayLike, ns: Sequence[int]) -> list[BestOf]:
    """Expected gold score of the best of n by ``proxy``, over all subsets of the samples; shapes (cases, samples).

    Exact: the k-th best of N is picked with probability C(N - k, n - 1) / C(N, n). Equal proxies share their gold.
    Gold that falls while proxy rises is over-optimisation. Raises: ValueError if shapes differ or an n exceeds N.

    >>> [round(b.gold, 3) for b in best_of_n([[1.0, 2.0, 3.0]], [[0.0, 0.0, 1.0]], [1, 2, 3])]
    [0.333, 0.667, 1.0]
    """
    p, g = np.asarray(proxy, float), np.asarray(gold, float)
    if p.shape != g.shape or p.ndim != 2 or not all(1 <= n <= p.shape[1] for n in ns):
        raise ValueError(f"best_of_n: scores of shapes {p.shape} and {g.shape} for n of {list(ns)}.")
    order = np.argsort(-p, axis=1, kind="stable")
    best = np.take_along_axis(p, order, 1)
    true = _shared(best, np.take_along_axis(g, order, 1))
    found: list[BestOf] = []
    for n in ns:
        weight = _pick_probabilities(p.shape[1], n)
        found.append(BestOf(n, float((true @ weight).mean()), float((best @ weight).mean()), math.log(n) - (n - 1) / n))
    return found


def _shared(proxy: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Gold averaged over samples of equal proxy in each case (both in falling order of proxy)."""
    shared = gold.copy()
    for case, row in enumerate(proxy):
        _, label = np.unique(-row, return_inverse=True)
        shared[case] = (np.bincount(label, gold[case]) / np.bincount(label))[label]
    return shared


def _pick_probabilities(total: int, n: int) -> np.ndarray:
    """Probability that the k-th best of ``total`` is the best of a random n of them, k = 1 ..."""
    rest = np.arange(total - 1, -1, -1, dtype=float)
    # gammaln is infinite at 0, -1 ...: where fewer than n - 1 samples are worse, the probability is 0
    log_choose = gammaln(rest + 1) - gammaln(n) - gammaln(rest - n + 2)
    return np.exp(log_choose - (gammaln(total + 1) - gammaln(n + 1) - gammaln(total - n + 1)))
