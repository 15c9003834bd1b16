"""Figures of a stage that are not metrics of its answers: the blindness probe, the training log, equal recall.

A loop names them in ``metrics`` by paths: ``probe/lesion_noised/truth_logp`` (under that image),
``probe_drop/lesion_noised/truth_logp`` (that less the clean image), ``train/logps/chosen_drift`` (the last value
logged), ``equal_recall/hallucination_rate`` (where ``after`` omits as often as ``before``).
"""

from pathlib import Path

from alignment.evaluation.blindness import CONDITIONS
from alignment.evaluation.operating_points import FILE, hallucination_at, read_points
from alignment.metrics.metric_names import fault_of_metric
from rewards.config.input_error import InputError, nearest
from rewards.config.json_lines import read_json, read_json_lines

EQUAL_RECALL = "equal_recall/hallucination_rate"
KINDS = ("probe", "probe_drop", "train", "equal_recall")
OF_THE_REFERENCE = "_drift"
"""How the names of logged figures end that are 0 of a stage which logs none: how far it is from its own start."""
NAN = float("nan")


def is_figure(name: str) -> bool:
    """Whether a name in ``metrics`` is one of these. A guideline in brackets may have a ``/`` too."""
    return "/" in name.partition("[")[0]


def fault_of_name(name: str) -> str | None:
    """Why there can be no metric or figure of this name, with the nearest one; None if there can.

    What a training logs is not known before it has run: of ``train/...`` only that something is named.
    """
    if not is_figure(name):
        return fault_of_metric(name)
    kind, _, rest = name.partition("/")
    if kind not in KINDS:
        known = ", ".join(("probe/...", "probe_drop/...", "train/...", EQUAL_RECALL))
        return f"no figure '{name}'.{nearest(kind, [*KINDS]) or f' Known: {known}.'}"
    if kind == "equal_recall":
        return None if name == EQUAL_RECALL else f"no figure '{name}'. There is: {EQUAL_RECALL}."
    if kind == "train":
        return None if rest else f"no figure '{name}'. Write train/KEY with a key of the stage's log.jsonl."
    return _fault_of_probe(name, kind, *rest.partition("/")[::2])


def _fault_of_probe(name: str, kind: str, condition: str, metric: str) -> str | None:
    if (kind, condition) == ("probe_drop", "clean"):
        return f"no figure '{name}': a drop is what another image has less than the clean one."
    if condition not in CONDITIONS:
        hint = nearest(condition, [*CONDITIONS]) or f" Known: {', '.join(CONDITIONS)}."
        return f"no figure '{name}': the probe has no image '{condition}'.{hint}"
    fault = fault_of_metric(metric)
    return None if fault is None else f"no figure '{name}': {fault}"


def figures(name: str, before: Path, after: Path) -> tuple[float, float]:
    """The figure of two stages' evaluation folders; NaN where no row or step has it.

    Raises: InputError for a name that is none of these, or that neither stage's training logs.
    """
    fault = fault_of_name(name) if is_figure(name) else f"'{name}' is no figure."
    if fault is not None:
        raise InputError(f"compare: {fault}")
    kind, _, rest = name.partition("/")
    if kind == "equal_recall":
        return _at_equal_recall(before, after)
    if kind == "train":
        return _trained(before, after, rest)
    return _probed(before, kind, rest), _probed(after, kind, rest)


def _at_equal_recall(before: Path, after: Path) -> tuple[float, float]:
    start = next(point for point in read_points(_there(before / FILE).parent) if point.bias == 0)
    found = hallucination_at(read_points(_there(after / FILE).parent), start.omission_rate)
    return start.hallucination_rate, NAN if found is None else found


def _probed(folder: Path, kind: str, path: str) -> float:
    content = read_json(_there(folder / "blindness.json"), "Evaluate again.")
    condition, _, metric = path.partition("/")
    found = content["metrics" if kind == "probe" else "drops"].get(condition, {}).get(metric)
    return NAN if found is None else float(found["value"])


def _trained(before: Path, after: Path, key: str) -> tuple[float, float]:
    """The last value that each stage's training logged; where only one logs it, NaN (0 for a drift) of the other."""
    logs = [_there(folder.parent / "log.jsonl") for folder in (before, after)]
    entries = [read_json_lines(log, "Train the stage anew.") for log in logs]
    first, second = ([entry[key] for entry in log if key in entry] for log in entries)
    if not first and not second:
        known = sorted({name for log in entries for entry in log for name in entry})
        hint = nearest(key, known) or f" Logged: {', '.join(known)}."
        raise InputError(f"compare: no figure 'train/{key}': neither {before.parent} nor {after.parent} logs it.{hint}")
    other = 0.0 if key.endswith(OF_THE_REFERENCE) else NAN
    return float(first[-1]) if first else other, float(second[-1]) if second else other


def _there(file: Path) -> Path:
    """The file.

    Raises: InputError where an evaluation was made before the loop asked for this figure.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file. Remove {file.parent} and run the loop again; its training is kept.")
    return file
