"""Which split each patient of a build goes to, where the spec asks for the same mix of stages in all (``stratify``).

The source is read once before, for the facts alone. Where the output folder holds a data set of the same shares, its
patients stay where they are (``splits.json``), so a data set can grow. Left out: strata of written rows without facts.
"""

import json
from pathlib import Path

from data_builders.build.build_spec import BuildSpec
from data_builders.schema import Sample
from data_builders.splits.stratified import Unit, stratified, units_of
from rewards.config.json_lines import read_json
from rewards.rules.facts import Facts
from rewards.rules.guidelines import Contradictory, worked_out
from rewards.rules.rule_set import load_rule_set

FILE = "splits.json"


def placements(spec: BuildSpec, out: Path) -> dict[str, str]:
    """The split of every patient that is not left to the hash: pinned ones, and all of them with ``stratify``."""
    if spec.stratify is None:
        return dict(spec.assign)
    order: list[str] = []
    rows: list[dict[str, object]] = []
    for sample in spec.source.samples():
        if isinstance(sample, Sample):
            order = order or _levels(sample.facts, spec.stratify)
            rows.append({"patient": sample.patient, "id": sample.id, "stratum": _stratum(sample.facts, spec.stratify)})
    units = [Unit(unit.name.partition(" ")[2], unit.stratum) for unit in units_of(rows, stratum="stratum", order=order)]
    return stratified(units, spec.splits, key=str(spec.seed), kept=_kept(spec, out / FILE) | spec.assign)


def write_placements(spec: BuildSpec, placed: dict[str, str], folder: Path) -> None:
    """``splits.json``: the split of each patient, and what they were placed by."""
    if spec.stratify is not None:
        content = {"by": _by(spec), "patients": placed}
        (folder / FILE).write_text(json.dumps(content, indent=0, sort_keys=True) + "\n", encoding="utf-8")


def _by(spec: BuildSpec) -> dict[str, object]:
    return {"seed": spec.seed, "splits": dict(spec.splits), "stratify": spec.stratify}


def _kept(spec: BuildSpec, file: Path) -> dict[str, str]:
    """The placements of the data set that is there, if it was placed by the same seed, shares and column."""
    before = read_json(file, "Remove it, or build with --fresh.") if file.is_file() else {}
    return before["patients"] if before.get("by") == _by(spec) else {}


def _levels(facts: Facts, column: str) -> list[str]:
    staging = load_rule_set(facts.rule_set).staging
    return staging.scales[column].names if staging and column in staging.scales else []


def _stratum(facts: Facts, column: str) -> str:
    """A column of the facts, or the level on a scale of their rule set; empty where it is not known."""
    known = facts.record().get(column)
    if known is not None or not _levels(facts, column):
        return "" if known is None else str(known)
    try:
        return worked_out(facts, [facts.rule_set]).scales[column].level
    except Contradictory:
        return ""
