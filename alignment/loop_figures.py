"""Figures of a stage that are not metrics of its answers: the blindness probe, the training log, equal recall.

A loop names them in ``metrics`` by paths: ``probe/lesion_noised/truth_logp`` (under that image),
``probe_drop/lesion_noised/truth_logp`` (that less the clean image), ``train/logps/chosen_drift`` (the last value
logged), ``equal_recall/hallucination_rate`` (where ``after`` omits as often as ``before``).
"""

import json
from pathlib import Path
from typing import Any

from alignment.operating_points import hallucination_at, read_points
from rewards.strict_yaml import InputError

EQUAL_RECALL = "equal_recall/hallucination_rate"
NAN = float("nan")


def is_figure(name: str) -> bool:
    """Whether a name in ``metrics`` is one of these."""
    return "/" in name


def figures(name: str, before: Path, after: Path) -> tuple[float, float]:
    """The figure of two stages' evaluation folders; NaN where it was not measured.

    Raises: InputError for a name that is none of these.
    """
    if name == EQUAL_RECALL:
        return _at_equal_recall(before, after)
    kind, _, rest = name.partition("/")
    if kind in ("probe", "probe_drop"):
        return _probed(before, kind, rest), _probed(after, kind, rest)
    if kind == "train":
        return _trained(before, rest), _trained(after, rest)
    raise InputError(f"compare: no figure '{name}'. Known: probe/..., probe_drop/..., train/..., {EQUAL_RECALL}.")


def _at_equal_recall(before: Path, after: Path) -> tuple[float, float]:
    start = next(point for point in read_points(before) if point.bias == 0)
    found = hallucination_at(read_points(after), start.omission_rate)
    return start.hallucination_rate, NAN if found is None else found


def _probed(folder: Path, kind: str, path: str) -> float:
    content: dict[str, Any] = json.loads((folder / "blindness.json").read_text(encoding="utf-8"))
    condition, _, metric = path.partition("/")
    found = content["metrics" if kind == "probe" else "drops"].get(condition, {}).get(metric)
    return NAN if found is None else float(found["value"])


def _trained(folder: Path, key: str) -> float:
    """The last value that the stage's training logged. 0 where it logged none, as a drift of the reference itself."""
    lines = (folder.parent / "log.jsonl").read_text(encoding="utf-8").splitlines()
    logged = [entry[key] for entry in map(json.loads, lines) if key in entry]
    return float(logged[-1]) if logged else 0.0
