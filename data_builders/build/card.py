"""The card of a built data set: what is in it, what was left out and why, and how to build the same again."""

from collections import Counter
from pathlib import Path
from typing import Any

from data_builders.build.build_spec import BuildSpec
from data_builders.build.tally import Tally
from data_builders.cards import RULES
from data_builders.digest import sha256


def card_of(
    spec: BuildSpec, folder: Path, tally: Tally, preference: dict[str, Any], rules: dict[str, str]
) -> dict[str, Any]:
    """The card of the data set whose Parquet files lie in ``folder``.

    ``preference``: figures of those rows. ``rules``: the files of the user's own that rule the set, as it keeps them.
    """
    files = sorted(folder.glob("*/*.parquet"))
    return {
        "counts": _nested(tally.rows),
        "images": tally.num_samples,
        "patients": "unknown" if tally.unknown_patients else dict(Counter(s for _, s in sorted(tally.placed))),
        "quarantined": {"count": len(tally.quarantined), "records": [vars(q) for q in tally.quarantined]},
        "not_asked": dict(tally.not_asked),
        "scenarios": dict(sorted(tally.scenarios.items())),
        "paraphrases": dict(sorted(tally.paraphrases.items())),
        "refused": dict(tally.refused),
        "repeated_questions": sum(tally.asked.values()) - len(tally.asked),
        "preference": preference,
        "lesion_noise": tally.noise.report() if spec.lesion_noise else None,
        **({"notes": dict(sorted(tally.notes.items()))} if tally.notes else {}),
        **({"curriculum": tally.curriculum.card()} if tally.curriculum else {}),
        "licence": spec.source.licence,
        "seed": spec.seed,
        "rule_sets": sorted(tally.rule_sets),
        **({RULES: rules} if rules else {}),
        "sha256": {file.relative_to(folder).as_posix(): sha256(file) for file in files},
        "spec": spec.model_dump(mode="json"),
    }


def _nested(rows: Counter[tuple[str, str, str]]) -> dict[str, dict[str, dict[str, int]]]:
    """Row counts as ``table[kind][split][task]``."""
    table: dict[str, dict[str, dict[str, int]]] = {}
    for (kind, split, task), number in sorted(rows.items()):
        table.setdefault(kind, {}).setdefault(split, {})[task] = number
    return table
