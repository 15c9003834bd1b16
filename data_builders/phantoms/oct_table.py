"""The table of biomarkers and the reports that a clinic would keep of phantom OCT slices, as two CSV files.

Columns and values are those of RetinaVLM's specialist table (arXiv 2407.08410); stage and referral follow from the rule
sets. ``biomarkers.csv`` has a row a slice, ``reports.csv`` a report a slice in the rule set's words, varied by seed.
Left out: annotators, dates, and annotations that contradict the picture.
"""

import csv
import random
from collections.abc import Iterable, Mapping
from pathlib import Path

from data_builders.rendering.render import report
from data_builders.schema import Sample
from rewards.rules.facts import Facts, Finding
from rewards.rules.rule_set import load_rule_set
from rewards.rules.stages import all_scales, staged

REFERRAL = "retina_referral@2"
"""The policy of the column ``Referral recommendation``."""
PRESENCE = {
    "Drusen?": "drusen",
    "Drusen confluent?": "confluent_drusen",
    "PED?": "ped",
    "RPE disruption/ elevation": "rpe_elevation",
    "Double layer-sign (DLS)": "double_layer_sign",
    "Hypertrans-mission?": "hypertransmission",
    "Subretinal fluid?": "subretinal_fluid",
    "Intraretinal fluid?": "intraretinal_fluid",
    "Subretinal hyperreflective material (SHRM)?": "shrm",
    "Hyperreflective foci?": "hyperreflective_foci",
    "Pathology unrelated to AMD?": "other_pathology",
}
SIZE = {
    "Drusen size": "drusen",
    "PED size": "ped",
    "Hypertransmission severity": "hypertransmission",
    "Subretinal fluid volume": "subretinal_fluid",
    "Intraretinal fluid volume": "intraretinal_fluid",
}
KIND = {
    "PED type": {"serous_ped": "Serous", "drusenoid_ped": "Drusenoid", "fibrovascular_ped": "Fibrovascular"},
    "Hypertransmission type": {"irora": "iRORA", "crora": "cRORA"},
}
LOCATION = {"Drusen location": "drusen", "PED location": "ped", "SHRM location": "shrm"}
PLACES = {"temporal": "Temporal", "nasal": "Nasal", "foveal": "Fovea", None: "All"}


def table_row(sample: Sample) -> dict[str, str]:
    """One row of the table; an attribute of what is absent is empty.

    >>> from data_builders.sources.drawn.phantom_oct import phantom_oct
    >>> row = table_row(next(phantom_oct(patients=1)))
    >>> row["ImageId"], row["EyePosition"]
    ('o00000-right-0', 'right')
    """
    found = sample.facts.findings
    there = sample.facts.present()
    return {
        "ImageId": sample.id,
        "PatientId": sample.patient,
        "EyePosition": str(sample.facts.values["eye"]),
        **{column: "Y" if found[name].polarity == "present" else "N" for column, name in PRESENCE.items()},
        "Drusen number": _number(there.get("drusen")),
        **{column: (there[name].size or "").capitalize() if name in there else "" for column, name in SIZE.items()},
        **{column: _first(names, there) for column, names in KIND.items()},
        **{column: PLACES[there[name].side] if name in there else "" for column, name in LOCATION.items()},
        "RPE state": "Atrophy" if "rpe_atrophy" in there else "N",
        **stage_and_referral(sample.facts),
    }


def stage_and_referral(facts: Facts) -> dict[str, str]:
    """The two conclusions that the rule sets draw from the facts."""
    staging, referral = load_rule_set(facts.rule_set).staging, load_rule_set(REFERRAL).staging
    assert staging is not None
    assert referral is not None
    stage = all_scales(facts.record(), staging)[0]["stage"].words
    level = staged({**facts.record(), "stage": stage}, referral.scales["referral"]).words
    return {"AMD stage": stage, "Referral recommendation": level}


def _number(drusen: Finding | None) -> str:
    return "" if drusen is None else ("One", "Two", "Many")[min(len(drusen.boxes), 3) - 1]


def _first(names: Mapping[str, str], there: Mapping[str, Finding]) -> str:
    return next((word for name, word in names.items() if name in there), "")


def report_of(sample: Sample, *, seed: int = 0) -> str:
    """A specialist's report: what is there, three pertinent negatives, and the stage.

    >>> from data_builders.sources.drawn.phantom_oct import phantom_oct
    >>> report_of(next(phantom_oct(patients=1))).endswith(".")
    True
    """
    rng, rules = random.Random(f"{seed}/{sample.id}"), load_rule_set(sample.facts.rule_set)
    shown = {name: f for name, f in sample.facts.findings.items() if f.polarity == "present"}
    absent = [name for name, f in sample.facts.findings.items() if f.polarity == "absent" and name in PERTINENT]
    shown |= {name: sample.facts.findings[name] for name in rng.sample(absent, min(3, len(absent)))}
    words = report(sample.facts.model_copy(update={"findings": shown}), rules, rng=rng)
    return f"{words} {rng.choice(STAGE_WORDS).format(stage=stage_and_referral(sample.facts)['AMD stage'])}"


PERTINENT = (
    "drusen",
    "subretinal_fluid",
    "intraretinal_fluid",
    "shrm",
    "hyperreflective_foci",
    "hypertransmission",
    "ped",
)
"""Findings of which a report says that they are not there."""
STAGE_WORDS = ("The stage is {stage}.", "In summary, this is {stage}.", "Overall stage: {stage}.")


def write_tables(samples: Iterable[Sample], folder: Path, *, seed: int = 0) -> Path:
    """``biomarkers.csv`` and ``reports.csv`` in a folder, UTF-8, comma separated."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    reports: list[dict[str, str]] = []
    for sample in samples:
        rows.append(table_row(sample))
        reports.append({"ImageId": sample.id, "PatientId": sample.patient, "Annotation": report_of(sample, seed=seed)})
    for name, content in (("biomarkers.csv", rows), ("reports.csv", reports)):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(content[0]) if content else [])
            writer.writeheader()
            writer.writerows(content)
    return folder
