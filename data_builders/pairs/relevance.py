"""Clinical relevance: from the scores of rejected answers to the weights of preference pairs.

A score says how much a pair matters: the severity of the error by the rule set, the visual tool's confidence, or the
verdict of judges (a mapping from row ids). MMedPO (Zhu et al. 2024, sections 3.2 and App. B) normalises scores in
words that contradict each other, and its code not at all: the four readings are all here.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from data_builders.pairs.settings import Missing, Normalisation
from rewards.config.input_error import InputError

LOW, HIGH = 0.75, 1.25
"""Bounds of a normalised weight (App. B: alpha and beta)."""
MEAN, VARIANCE = 1.0, 0.1
"""What the weights should have (App. B)."""
Weights = NDArray[np.float64]


def weights_of(scores: Sequence[float], reading: Normalisation) -> Weights:
    """The weights of one group of scores in [0, 1], by one reading of the paper.

    ``raw``: the scores (the released code). ``text``: clip(z-score), section 3.2 to the letter. ``appendix``:
    clip((s - 1) / sqrt 0.1), App. B to the letter, which is 0.75 for every score. ``sensible``:
    clip(1 + sqrt 0.1 x z-score), which has the mean and variance that App. B asks for. z-scores take the population's
    standard deviation; where all scores are equal, ``text`` and ``sensible`` weigh 1.

    Raises: InputError for a score that is not a number in [0, 1].

    >>> weights_of([0.2, 0.4, 0.8, 1.0, 1.0], "sensible").round(6).tolist()
    [0.75, 0.75, 1.116775, 1.25, 1.25]
    """
    s = _checked(scores)
    if reading == "raw":
        return s
    if reading == "appendix":
        return np.clip((s - MEAN) / np.sqrt(VARIANCE), LOW, HIGH)
    if not s.size or np.ptp(s) < 1e-12:
        return np.ones_like(s)
    z = (s - s.mean()) / s.std()
    return np.clip(z if reading == "text" else MEAN + np.sqrt(VARIANCE) * z, LOW, HIGH)


def _checked(scores: Sequence[float]) -> Weights:
    s = np.asarray(scores, np.float64)
    wrong = np.flatnonzero(~((s >= 0) & (s <= 1)))
    if wrong.size:
        raise InputError(
            f"relevance: score number {wrong[0]} is {s[wrong[0]]:g}, outside 0 to 1 ({wrong.size} such). "
            "If the scores have another scale, such as 0 to 10, name it in 'scale'."
        )
    return s


def grouped_weights(scores: Sequence[float], groups: Sequence[Hashable], reading: Normalisation) -> Weights:
    """The weights, with the mean and deviation of each group (a data set and kind of pair) taken by itself."""
    indices: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        indices[group].append(index)
    weights = np.zeros(len(scores))
    for of_group in indices.values():
        weights[of_group] = weights_of([scores[index] for index in of_group], reading)
    return weights


def scaled_scores(
    ids: Sequence[str], verdicts: Mapping[str, float | None], *, scale: float = 1.0, missing: Missing = "error"
) -> list[float]:
    """The score in [0, 1] of each row id, from verdicts on a scale of 0 to ``scale``.

    A verdict that is missing or None is an error, or becomes 1.0, or the mean of those that are there.

    Raises: InputError naming the first id without a verdict, or whose verdict is not on the scale.
    """
    found = {i: verdict for i in ids if (verdict := verdicts.get(i)) is not None}
    for i, verdict in found.items():
        if not 0 <= verdict <= scale:
            raise InputError(
                f"relevance: row '{i}' has score {verdict:g}, outside 0 to {scale:g}. Mend it, or 'scale'."
            )
    lacking = [i for i in ids if i not in found]
    if lacking and missing == "error":
        raise InputError(
            f"relevance: row '{lacking[0]}' has no score ({len(lacking)} such of {len(ids)}). "
            "Score it, or set missing to 'one' or 'mean'."
        )
    mean = float(np.mean(list(found.values()))) / scale if found else 1.0
    other = mean if missing == "mean" else 1.0
    return [found[i] / scale if i in found else other for i in ids]


def effective_sample_size(weights: Sequence[float] | Weights) -> float:
    """Kish's: (sum w)^2 / sum w^2, from 0 (no weight at all) to the number of rows (all weights equal).

    >>> effective_sample_size([1.0, 1.0, 0.0, 0.0])
    2.0
    """
    w = np.asarray(weights, np.float64)
    squares = float((w**2).sum())
    return float(w.sum()) ** 2 / squares if squares else 0.0


def weight_report(weights: Sequence[float] | Weights) -> dict[str, float]:
    """Figures for a card: number, mean, extremes, zeros, and the effective share of rows."""
    w = np.asarray(weights, np.float64)
    if not w.size:
        return {"rows": 0}
    return {
        "rows": len(w),
        "mean": float(w.mean()),
        "min": float(w.min()),
        "max": float(w.max()),
        "zero": int((w == 0).sum()),
        "effective_share": effective_sample_size(w) / len(w),
    }
