"""What is told of a data set beyond the machine that holds it: counts, licence, hashes. Never an id, a reason, a path.

A card counts only where it is the card of these very rows, by SHA-256. Left out: the gallery, and the spec.
"""

from pathlib import Path
from typing import Any

from alignment.provenance.released_fields import DATA, LICENCE, OWN_LICENCE
from alignment.provenance.released_forms import LEFT_OUT, OTHER
from data_builders.cards import card_of_rows

Json = dict[str, Any]


def data_summary(data: Path, digest: str) -> Json:
    """The rows of an entry with this SHA-256: source, kind, split, counts, licence, as far as their card tells it."""
    file = data if data.suffix == ".parquet" else data.with_name(f"{data.name}.parquet")
    kind, split = file.parent.name, file.stem
    summary: Json = {"kind": kind, "split": split, "sha256": digest}
    card = card_of_rows(file) if file.is_file() else None
    if card is not None and _entry(card, "sha256").get(f"{kind}/{split}.parquet") == digest:
        summary |= {
            "source": _entry(card, "spec", "source").get("name"),
            "licence": _published_licence(card.get("licence")),
            "rows": _entry(card, "counts", kind, split),
            "images": card.get("images"),
            "patients": _entry(card, "patients").get(split),
            "quarantined": _entry(card, "quarantined").get("count"),
            "not_asked": _sum(card, "not_asked"),
            "refused": _sum(card, "refused"),
            "rule_sets": card.get("rule_sets"),
        }
    return DATA(summary)


def _published_licence(licence: object) -> object:
    """A licence of a known form; of another that there is one: its words could name a hospital or a person."""
    return OWN_LICENCE if licence and LICENCE(licence) is LEFT_OUT else licence


def _entry(card: Json, *path: str) -> Json:
    """What stands in a card under these keys; nothing where it is no mapping."""
    found: Any = card
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _sum(card: Json, key: str) -> int:
    return sum(count for count in _entry(card, key).values() if isinstance(count, int))


def data_name(summary: Json) -> str:
    """The rows by source, kind and split.

    >>> data_name({"source": "phantom_chest", "kind": "prompt", "split": "test"})
    'phantom_chest, prompt rows, split test'
    >>> data_name({"split": "other"})
    'rows without a card of clinalign'
    """
    parts = [summary.get("source"), f"{summary['kind']} rows" if "kind" in summary else "rows"]
    if not parts[0]:
        parts = [f"{parts[1]} without a card of clinalign"]
    split = summary.get("split", OTHER)
    return ", ".join([*map(str, parts), *([f"split {split}"] if split != OTHER else [])])


def data_sentence(summary: Json) -> str:
    """What a model card says of a data set.

    >>> data_sentence({"source": "bccd", "kind": "prompt", "rows": {"box": 3}, "patients": 2, "sha256": "ab"})
    'bccd, prompt rows: 3 rows (3 box), 2 patients. Licence: not stated. SHA-256 `ab`.'
    """
    rows, unusable = summary.get("rows") or {}, summary.get("quarantined")
    counted = ", ".join(f"{number} {task}" for task, number in sorted(rows.items()))
    parts = [
        f": {sum(rows.values())} rows ({counted})" if rows else "",
        f", {summary['patients']} patients" if summary.get("patients") is not None else "",
        f", {unusable} records of the source left out as unusable" if unusable else "",
        f". Licence: {summary.get('licence') or 'not stated'}.",
        f" Rule sets: {', '.join(summary['rule_sets'])}." if summary.get("rule_sets") else "",
        f" SHA-256 `{summary.get('sha256') or 'not known'}`.",
    ]
    return data_name(summary) + "".join(parts)
