"""Figures of runs that differ only in their seed: the mean, with Student's 95 % interval over the runs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats


def mean_over_seeds(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, lower and upper end of Student's 95 % interval of at least two values.

    >>> mean, low, high = mean_over_seeds([1.0, 2.0, 3.0])
    >>> round(mean, 2), round(low, 2), round(high, 2)
    (2.0, -0.48, 4.48)
    """
    mean = float(np.mean(values))
    # Student's t with n - 1 degrees of freedom, since the spread over a few seeds is itself uncertain (Student 1908).
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def figures_over_seeds(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of nested dicts with the same keys, one with each ``{"value", "low", "high"}`` over the runs.

    A figure that a run lacks is None. What is no figure is left out.
    """
    first = runs[0]
    if "value" in first:
        values = [run["value"] for run in runs]
        if any(v is None for v in values):
            return {"value": None, "low": None, "high": None}
        return dict(zip(("value", "low", "high"), mean_over_seeds(values), strict=True))
    return {
        key: figures_over_seeds([run[key] for run in runs]) for key, value in first.items() if isinstance(value, dict)
    }
