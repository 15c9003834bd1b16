"""What a built data set has in two splits at once: patients, studies, rows, images, near-identical images, reports.

Reads the Parquet files of a folder, each picture decoded once. A leak is an error; or, by ``quarantine``, the rows that
stand on the side of training are taken out and kept beside. Left out: the same words under different images where
templates write them (rows that say ``generator`` or come from a phantom): equal words are their nature.
"""

# pyarrow comes without types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from data_builders.row_checks import open_parquet
from data_builders.schema import message_text
from data_builders.splits.near_images import MAX_DISTANCE, dhash, near_pairs
from rewards.config.input_error import InputError
from rewards.config.json_lines import json_reply

Kind = Literal["patient", "study", "row", "image", "near_image", "report"]
COLUMNS = ("id", "patient", "study", "source", "split", "task", "provenance", "images", "completion", "answer")
LEAST_WORDS = 12
"""A report of fewer words says nothing by being equal to another."""
BATCH = 2048
HELD_OUT = re.compile(r"test|val|eval|dev|held", re.IGNORECASE)


@dataclass(frozen=True)
class Leak:
    """One thing that is in several splits: what it is, and the rows that hold it, by split."""

    kind: Kind
    what: str
    rows: dict[str, list[str]]

    def __str__(self) -> str:
        total = sum(map(len, self.rows.values()))
        return f"{self.kind.replace('_', '-')} {self.what} is in {' and '.join(sorted(self.rows))} ({total} rows)"


@dataclass
class _Index:
    """Rows by what they hold and split. ``pictures``: the hash of each picture, by the SHA-256 of its file."""

    held: defaultdict[tuple[Kind, str], defaultdict[str, list[str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    pictures: dict[str, Any] = field(default_factory=dict[str, Any])
    num_rows: int = 0

    def add(self, row: dict[str, Any]) -> None:
        self.num_rows += 1
        for kind, what in _held(row, self.pictures):
            self.held[kind, what][row["split"]].append(row["id"])


@dataclass(frozen=True)
class LeakAudit:
    """What was found in how many rows and pictures."""

    leaks: list[Leak]
    num_rows: int
    num_pictures: int

    def check(self, folder: Path) -> None:
        """Raises: InputError with the first leak of each kind, and how many there are."""
        if not self.leaks:
            return
        first = {leak.kind: leak for leak in reversed(self.leaks)}
        counts = {kind: sum(leak.kind == kind for leak in self.leaks) for kind in first}
        lines = [f"{folder}: {leak}; {counts[kind]} such." for kind, leak in sorted(first.items())]
        raise InputError("\n".join([*lines, "Split by patient and build again, or take the rows out: --quarantine."]))


def audit_splits(folder: Path, *, max_distance: int = MAX_DISTANCE) -> LeakAudit:
    """Every leak between the splits of a built data set. ``max_distance``: bits of 256 in which near images differ.

    Raises: InputError if there are no rows.
    """
    index = _Index()
    for file in _files(folder):
        for row in _rows(file):
            index.add(row)
    if not index.num_rows:
        raise InputError(f"{folder}: no rows in any Parquet file. Name a folder that `clinalign build` wrote.")
    leaks = [Leak(kind, what, dict(by_split)) for (kind, what), by_split in index.held.items() if len(by_split) > 1]
    leaks += _near_images(index, max_distance)
    order = {kind: rank for rank, kind in enumerate(("patient", "study", "row", "image", "near_image", "report"))}
    return LeakAudit(sorted(leaks, key=lambda leak: (order[leak.kind], leak.what)), index.num_rows, len(index.pictures))


def _files(folder: Path) -> list[Path]:
    """The rows' files, not those that were quarantined."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Name one that `clinalign build` wrote.")
    return sorted(path for path in folder.rglob("*.parquet") if "quarantine" not in path.parts)


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    reader = open_parquet(file)
    columns = [name for name in COLUMNS if name in reader.schema_arrow.names]
    if "split" not in columns or "patient" not in columns:
        raise InputError(f"{file}: no columns 'patient' and 'split'; these are not the rows of a build.")
    for batch in reader.iter_batches(BATCH, columns=columns):
        yield from batch.to_pylist()


def _held(row: dict[str, Any], pictures: dict[str, Any]) -> Iterator[tuple[Kind, str]]:
    """All of a row that may be in one split only."""
    if row["patient"]:
        yield "patient", row["patient"]
    if row.get("study"):
        yield "study", row["study"]
    yield "row", row["id"]
    for image in row.get("images") or []:
        if image["bytes"] is None:
            raise InputError(
                f"row {row['id']}: its image '{image['path']}' is named and not held. Build the set from its file: "
                "source: {name: chats, file: ...}."
            )
        name = hashlib.sha256(image["bytes"]).hexdigest()[:16]
        if name not in pictures:
            pictures[name] = _hash(image["bytes"])
        yield "image", name
    words = _report(row)
    if len(words.split()) >= LEAST_WORDS:
        yield "report", hashlib.sha256(words.encode()).hexdigest()[:16]


def _hash(content: bytes) -> Any:
    try:
        with Image.open(BytesIO(content)) as image:
            return dhash(image)
    except OSError:
        return None


def _report(row: dict[str, Any]) -> str:
    """The words of a report as a person wrote it, folded; empty where templates wrote it."""
    if "report" not in row.get("task", "") or str(row.get("source", "")).startswith("phantom"):
        return ""
    notes = json_reply(row.get("provenance") or "{}")  # other programs' need not be JSON
    if isinstance(notes, dict) and "generator" in notes:
        return ""
    text = message_text(row["completion"]) if row.get("completion") else row.get("answer") or ""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _near_images(index: _Index, max_distance: int) -> Iterator[Leak]:
    """Pictures of different files and splits that look alike, each pair as a leak."""
    splits = {what: by_split for (kind, what), by_split in index.held.items() if kind == "image"}
    names = [name for name, found_in in splits.items() if index.pictures[name] is not None and len(found_in) == 1]
    if not names:
        return
    group = {split: k for k, split in enumerate(sorted({split for name in names for split in splits[name]}))}
    groups = [group[next(iter(splits[name]))] for name in names]
    hashes = np.stack([index.pictures[name] for name in names])
    for one, other, distance in near_pairs(hashes, groups, max_distance=max_distance):
        rows = {**splits[names[one]], **splits[names[other]]}
        yield Leak("near_image", f"{names[one]} ~ {names[other]} ({distance} of 256 bits)", rows)


def quarantine(folder: Path, leaks: Sequence[Leak]) -> int:
    """Takes the rows of leaks out of the splits for training and returns how many; they go to ``quarantine/``.

    A leak between splits none of which is held out by its name (test, val, eval) loses its rows in all but the largest.
    """
    reasons: dict[str, str] = {}
    for leak in leaks:
        for split in _losing(leak):
            reasons |= {row: str(leak) for row in leak.rows[split]}
    if not reasons:
        return 0
    out = folder / "quarantine"
    out.mkdir(exist_ok=True)
    with (out / "reasons.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": row, "reason": why}) + "\n" for row, why in sorted(reasons.items()))
    return sum(_split_file(file, folder, out, set(reasons), _losing_splits(leaks)) for file in _files(folder))


def _losing(leak: Leak) -> list[str]:
    held_out = [split for split in leak.rows if HELD_OUT.search(split)]
    keep = held_out or [max(leak.rows, key=lambda split: (len(leak.rows[split]), split))]
    losing = [split for split in leak.rows if split not in keep]
    return losing or sorted(held_out)[1:]


def _losing_splits(leaks: Sequence[Leak]) -> set[str]:
    return {split for leak in leaks for split in _losing(leak)}


def _split_file(file: Path, folder: Path, out: Path, ids: set[str], splits: set[str]) -> int:
    """Moves rows out of a file, which is replaced once its new content is whole."""
    table = pq.read_table(file)
    leaves = [
        row in ids and split in splits
        for row, split in zip(table["id"].to_pylist(), table["split"].to_pylist(), strict=True)
    ]
    if not any(leaves):
        return 0
    target = out / file.relative_to(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    _replace(target, _with_earlier(target, table.filter(pa.array(leaves))))
    _replace(file, table.filter(pa.array([not leaving for leaving in leaves])))
    return sum(leaves)


def _with_earlier(target: Path, table: pa.Table) -> pa.Table:
    """The rows behind those that an earlier quarantine took out of the same split."""
    if not target.is_file():
        return table
    earlier, ids = pq.read_table(target), set(table["id"].to_pylist())
    kept = earlier.filter(pa.array([row not in ids for row in earlier["id"].to_pylist()]))
    return pa.concat_tables([kept, table], promote_options="default")


def _replace(file: Path, table: pa.Table) -> None:
    fresh = file.with_suffix(".fresh")
    pq.write_table(table, fresh, compression="zstd")
    fresh.replace(file)
