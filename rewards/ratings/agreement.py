"""Agreement between judges, or of a judge with experts; and what gives a judge away: position bias, intransitivity.

Ratings are numbers or names; None is a missing rating. Left out: tests against chance (see the intervals).
"""

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np
from scipy.stats import norm

Label = TypeVar("Label", bound=Hashable)
Weighting = Literal["none", "linear", "quadratic"]
Level = Literal["nominal", "ordinal", "interval"]


def wilson(successes: float, total: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's (1927) score interval of a proportion; (0, 1) without any trial. Half successes (ties) may be counted.

    >>> [round(v, 4) for v in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    if total == 0:
        return 0.0, 1.0
    z = float(norm.ppf(0.5 + confidence / 2))
    p = successes / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def percent_agreement(a: Sequence[Label | None], b: Sequence[Label | None]) -> tuple[float, float, float]:
    """Share of cases rated alike by both, with its Wilson interval; NaN where no case has both ratings."""
    pairs = _both(a, b)
    alike = sum(x == y for x, y in pairs)
    return (alike / len(pairs) if pairs else math.nan, *wilson(alike, len(pairs)))


def cohen_kappa(
    a: Sequence[Label | None],
    b: Sequence[Label | None],
    *,
    labels: Sequence[Label] | None = None,
    weighting: Weighting = "none",
) -> float:
    """Cohen's kappa (1960; weighted, 1968) of two raters, at most 1; NaN where chance alone explains all.

    ``labels``: all categories, in order where weighted (by default those that occur, sorted).

    >>> round(cohen_kappa(["y", "y", "n", "n"], ["y", "n", "n", "n"]), 3)
    0.5
    """
    pairs = _both(a, b)
    names = list(labels) if labels is not None else sorted({x for pair in pairs for x in pair}, key=_order)
    index = {name: k for k, name in enumerate(names)}
    table = np.zeros((len(names), len(names)))
    for x, y in pairs:
        table[index[x], index[y]] += 1
    distance = _distance(len(names), weighting)
    expected = np.outer(table.sum(1), table.sum(0)) / max(1, len(pairs))
    disagreement = float((distance * expected).sum())
    return 1 - float((distance * table).sum()) / disagreement if disagreement else math.nan


def _distance(count: int, weighting: Weighting) -> np.ndarray:
    apart = np.abs(np.arange(count)[:, None] - np.arange(count)[None, :])
    return {"none": (apart > 0).astype(float), "linear": apart.astype(float), "quadratic": apart.astype(float) ** 2}[
        weighting
    ]


def fleiss_kappa(ratings: Sequence[Sequence[Label]]) -> float:
    """Fleiss' kappa (1971): one row a case, each rated by equally many raters; NaN where chance alone explains all.

    Raises: ValueError if the cases have different numbers of ratings, or fewer than two.
    """
    raters = {len(row) for row in ratings}
    if len(raters) != 1 or min(raters) < 2:
        raise ValueError(f"fleiss_kappa: cases have {sorted(raters)} ratings; each needs the same number, at least 2.")
    n = raters.pop()
    counts = [Counter(row) for row in ratings]
    agreed = float(np.mean([(sum(c * c for c in row.values()) - n) / (n * (n - 1)) for row in counts]))
    total = sum((Counter(row) for row in counts), Counter[Label]())
    chance = sum((c / (n * len(counts))) ** 2 for c in total.values())
    return (agreed - chance) / (1 - chance) if chance < 1 else math.nan


def krippendorff_alpha(ratings: Sequence[Sequence[Label | None]], *, level: Level = "nominal") -> float:
    """Krippendorff's alpha (2011): one row a case, None where a rater is missing; NaN where nothing varies.

    ``level``: how far two values are apart. Cases with fewer than two ratings do not count.
    """
    rows = [[x for x in row if x is not None] for row in ratings]
    rows = [row for row in rows if len(row) > 1]
    values = sorted({x for row in rows for x in row}, key=_order)
    index = {value: k for k, value in enumerate(values)}
    coincidence = np.zeros((len(values), len(values)))
    for row in rows:
        counts = np.bincount([index[x] for x in row], minlength=len(values)).astype(float)
        coincidence += (np.outer(counts, counts) - np.diag(counts)) / (len(row) - 1)
    marginal = coincidence.sum(0)
    distance = _level_distance(values, marginal, level)
    expected = float((distance * np.outer(marginal, marginal)).sum()) / max(1.0, float(marginal.sum()) - 1)
    return 1 - float((distance * coincidence).sum()) / expected if expected else math.nan


def _level_distance(values: Sequence[Hashable], marginal: np.ndarray, level: Level) -> np.ndarray:
    count = len(values)
    if level == "nominal":
        return 1 - np.eye(count)
    if level == "interval":
        numbers = np.array([float(value) for value in values])  # pyright: ignore[reportArgumentType]
        return (numbers[:, None] - numbers[None, :]) ** 2
    below = np.cumsum(marginal) - marginal / 2
    return (below[:, None] - below[None, :]) ** 2


def position_bias(there: Sequence[float | None], back: Sequence[float | None]) -> tuple[float, float, float]:
    """Share of pairs whose verdict changes with the order alone, with its Wilson interval; NaN without a pair.

    ``there``: score of the first answer as shown first; ``back``: score of the second answer of the swapped pair's
    first place, that is, of the other answer. A judge without bias has ``back = 1 - there``.

    >>> position_bias([1.0, 1.0, 0.5], [0.0, 1.0, 0.5])[0]
    0.3333333333333333
    """
    pairs = _both(there, back)
    changed = sum(x != 1 - y for x, y in pairs)
    return (changed / len(pairs) if pairs else math.nan, *wilson(changed, len(pairs)))


def intransitive_share(beats: Mapping[tuple[str, str], float]) -> float:
    """Share of fully compared triples that run in a circle (a beats b, b beats c, c beats a); NaN without a triple.

    ``beats[a, b]``: mean score of a against b; more than one half beats.
    """
    score = {**{(b, a): 1 - s for (a, b), s in beats.items()}, **beats}
    names = sorted({name for pair in score for name in pair})
    triples = [
        (score[a, b] - 0.5, score[b, c] - 0.5, score[c, a] - 0.5)
        for i, a in enumerate(names)
        for j, b in enumerate(names[i + 1 :], start=i + 1)
        for c in names[j + 1 :]
        if (a, b) in score and (b, c) in score and (c, a) in score
    ]
    circles = sum(min(t) > 0 or max(t) < 0 for t in triples)
    return circles / len(triples) if triples else math.nan


def _both(a: Sequence[Label | None], b: Sequence[Label | None]) -> list[tuple[Label, Label]]:
    return [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]


def _order(value: Hashable) -> tuple[int, float, str]:
    """Numbers by size, then everything else by name."""
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))
