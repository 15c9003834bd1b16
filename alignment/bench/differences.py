"""Whether two methods of the bench learn alike: their losses, gradient norms and weights, and what these are worth.

A difference says nothing where both are 0, so each stands beside the largest of what it is a difference of.
"""

from pathlib import Path
from typing import Any

import numpy as np

REACHED = {"loss": "losses", "grad_norm": "grad_norms"}
"""What a step reports, and what a list of it is called."""


def differences(stock: list[dict[str, Any]], ours: list[dict[str, Any]]) -> dict[str, float]:
    """The largest difference of a loss and of a gradient norm over the steps, beside the largest of stock's.

    >>> differences([{"loss": -2.0}, {"loss": 0.5}], [{"loss": -2.0}, {"loss": 0.75}])
    {'largest_loss_difference': 0.25, 'largest_loss': 2.0}
    """
    found: dict[str, float] = {}
    for name in (name for name in REACHED if name in stock[0]):
        turns = [(s[name], o[name]) for s, o in zip(stock, ours, strict=True)]
        found[f"largest_{name}_difference"] = max(abs(s - o) for s, o in turns)
        found[f"largest_{name}"] = max(abs(s) for s, _ in turns)
    return found


def weights_compared(stock: str | None, ours: str | None) -> dict[str, float]:
    """The largest difference of a weight after the last step, and of one of stock's before the first and after it."""
    if stock is None or ours is None:
        return {}
    after = _weights(stock, "after")
    return {
        "largest_weight_difference": _largest_difference(after, _weights(ours, "after")),
        "largest_weight_change": _largest_difference(after, _weights(stock, "before")),
    }


def _weights(folder: str, name: str) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(Path(folder) / name / "model.safetensors")


def _largest_difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)
