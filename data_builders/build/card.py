"""The card of a built data set: what is in it, what was left out and why, and how to build the same again."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_builders.build.build_spec import BuildSpec
from data_builders.curriculum.rows import CurriculumBuild
from data_builders.digest import sha256
from data_builders.pairs.lesion_noise import NoiseTally
from data_builders.schema import Quarantined
from data_builders.splits.splits import check_disjoint
from rewards.config.strict_yaml import InputError, nearest

LICENCES = {
    "phantom_chest": "drawn by clinalign; no restriction",
    "phantom_marrow": "drawn by clinalign; no restriction",
    "phantom_oct": "drawn by clinalign; no restriction",
    "lidc_ct": "LIDC-IDRI, CC BY 3.0, doi 10.7937/K9/TCIA.2015.LO9QL9SX; read from installed packages",
    "bccd": "BCCD_Dataset, MIT",
    "table": "not known to clinalign: that of the table and its images",
    "labelled": "not known to clinalign: that of the table and its images",
    "vqa_rad": "VQA-RAD, CC0 1.0 by the card of its copy on the Hugging Face hub; see source: osf.io/89kps",
    "slake": "SLAKE: see source: med-vqa.com/slake",
    "path_vqa": "PathVQA, MIT by the card of its copy on the Hugging Face hub; images and captions belong to the "
    "publishers of two textbooks and to PEIR; see source: github.com/UCSD-AI4H/PathVQA",
    "iu_xray": "Indiana University chest X-rays: see source: openi.nlm.nih.gov/faq",
    "released_pairs": "as the file that was read",
}


@dataclass
class Tally:
    """What a build has met so far.

    ``scenarios``: dialogues by scenario. ``paraphrases``: used, and refused by reason.
    ``rows`` by (kind, split, task), ``placed`` rows by (patient, split), ``not_asked`` questions by reason,
    ``refused`` rejected answers by reason, ``asked`` how often each question of written samples,
    ``assign`` the split of patients that are not left to the hash.
    """

    num_samples: int = 0
    rows: Counter[tuple[str, str, str]] = field(default_factory=Counter[tuple[str, str, str]])
    placed: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    rule_sets: set[str] = field(default_factory=set[str])
    quarantined: list[Quarantined] = field(default_factory=list[Quarantined])
    not_asked: Counter[str] = field(default_factory=Counter[str])
    scenarios: Counter[str] = field(default_factory=Counter[str])
    paraphrases: Counter[str] = field(default_factory=Counter[str])
    refused: Counter[str] = field(default_factory=Counter[str])
    noise: NoiseTally = field(default_factory=NoiseTally)
    asked: Counter[tuple[str, ...]] = field(default_factory=Counter[tuple[str, ...]])
    curriculum: CurriculumBuild | None = None
    assign: dict[str, str] = field(default_factory=dict[str, str])

    def check(self, spec: BuildSpec) -> None:
        """Raises InputError if there is nothing, too much is unusable, a patient is in two splits or pinned in vain."""
        source, num_unusable = f"source {spec.source.name}", len(self.quarantined)
        first = "; ".join(f"{q.id}: {q.reason}" for q in self.quarantined[:3])
        share = num_unusable / max(1, self.num_samples + num_unusable)
        if self.num_samples and share > spec.max_quarantined:
            raise InputError(
                f"{source}: {num_unusable} records ({share:.1%}) cannot be used, more than max_quarantined "
                f"{spec.max_quarantined:.1%}. First: {first}. Mend them, or raise max_quarantined."
            )
        if not self.rows:
            raise InputError(f"{source}: the data set is empty: {self._why_empty(spec, first)}.")
        patients = sorted({patient for patient, _ in self.placed})
        for pinned in spec.assign:
            if pinned not in patients:
                raise InputError(
                    f"assign: {source} has no patient '{pinned}' with a record that can be used."
                    f"{nearest(pinned, patients)} Mend the name, or remove it."
                )
        check_disjoint(self.placed.elements())

    def _why_empty(self, spec: BuildSpec, first: str) -> str:
        if not self.num_samples:
            unusable = f"all {len(self.quarantined)} records are quarantined. First: {first}"
            return unusable if first else "the source yields nothing. Look at its knobs"
        splits = sorted({split for _, split in self.placed})
        asked = sorted({split for named in spec.rows.values() for split in named})
        return (
            f"its {self.num_samples} images fell into {', '.join(splits)}, and 'rows' asks for "
            f"{', '.join(asked) or 'nothing'}. Take more patients, or change splits, rows or tasks"
        )


def card_of(spec: BuildSpec, folder: Path, tally: Tally, preference: dict[str, Any]) -> dict[str, Any]:
    """The card of the data set whose Parquet files lie in ``folder``. ``preference``: figures of those rows."""
    files = sorted(folder.glob("*/*.parquet"))
    return {
        "counts": _nested(tally.rows),
        "images": tally.num_samples,
        "patients": dict(Counter(split for _, split in sorted(tally.placed))),
        "quarantined": {"count": len(tally.quarantined), "records": [vars(q) for q in tally.quarantined]},
        "not_asked": dict(tally.not_asked),
        "scenarios": dict(sorted(tally.scenarios.items())),
        "paraphrases": dict(sorted(tally.paraphrases.items())),
        "refused": dict(tally.refused),
        "repeated_questions": sum(tally.asked.values()) - len(tally.asked),
        "preference": preference,
        "lesion_noise": tally.noise.report() if spec.lesion_noise else None,
        **({"curriculum": tally.curriculum.card()} if tally.curriculum else {}),
        "licence": LICENCES[spec.source.name],
        "seed": spec.seed,
        "rule_sets": sorted(tally.rule_sets),
        "sha256": {file.relative_to(folder).as_posix(): sha256(file) for file in files},
        "spec": spec.model_dump(mode="json"),
    }


def _nested(rows: Counter[tuple[str, str, str]]) -> dict[str, dict[str, dict[str, int]]]:
    """Row counts as ``table[kind][split][task]``."""
    table: dict[str, dict[str, dict[str, int]]] = {}
    for (kind, split, task), number in sorted(rows.items()):
        table.setdefault(kind, {}).setdefault(split, {})[task] = number
    return table
