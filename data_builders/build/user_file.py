"""Rows of one file of the user's, built where a recipe names that file in place of rows: one split, found again later.

Left out: splits, and whatever else a build spec says; who wants to evaluate on the same file builds it by a spec.
"""

# pyarrow comes without types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec
from data_builders.build.parquet_rows import holds_messages, house_rows, is_of_house, write_rows
from data_builders.build.written_rows import SPLITS_LEFT, fault_of_written, written_rows
from data_builders.cards import CARD, read_card
from data_builders.digest import sha256
from data_builders.formats.messages import SHAPES, Shape, shape_of
from data_builders.formats.preference_formats import format_of, read_pairs
from data_builders.formats.record_images import picture_file, picture_names
from data_builders.formats.records import Record, records
from data_builders.row_checks import open_parquet
from data_builders.schema import RowKind, Written
from data_builders.sources.source import Source, sources
from rewards.config.input_error import InputError

TEXT_FILES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")
SAVED = ("state.json", "dataset_dict.json")
SOURCES: dict[RowKind, str] = {"instruction": "chats", "prompt": "chats", "preference": "preferences"}
READING = 1
"""Counted up where records are read otherwise than before, so that rows of an older reading are not found again."""
LOOKED_AT = 1000
"""So many records show the shape of a file."""
OF_PAIRS = ("chosen", "rejected", "rejected_response", "rejected_messages", "rejected_conversations")
"""Keys that only preference pairs have."""
OF_BUILT = ("facts", "provenance", "split")
"""Columns that rows of a build have, and no other program's."""
OF_HOUSE = ("kind", "mirror_images")
"""Columns of preference rows that no other program writes."""
WRITTEN_FOR: dict[Shape, str] = {
    "conversations": "LLaVA, ShareGPT",
    "messages": "ms-swift, TRL, OpenAI",
    "query": "ms-swift",
    "prompt": "TRL",
    "instruction": "Alpaca",
    "question": "questions and answers",
}


@dataclass(frozen=True)
class UserRows:
    """Rows made of a user's file, and a sentence on what was seen and made."""

    entry: str
    sentence: str


def user_file(entry: str, columns: Collection[str]) -> Path | None:
    """The user's file that a data entry names; None for Parquet that holds rows of the house with these columns.

    >>> user_file("own.json", ["prompt"]).name, user_file("data/x/instruction/train", ["prompt"])
    ('own.json', None)
    """
    path = Path(entry)
    if path.suffix.lower() in TEXT_FILES:
        return path
    if path.is_dir():
        return path if any((path / name).is_file() for name in SAVED) else None
    file = path if path.suffix == ".parquet" else Path(f"{entry}.parquet")
    if not file.is_file():
        return None
    schema = open_parquet(file).schema_arrow
    if {*OF_BUILT} <= {*schema.names}:  # what it lacks of the columns is told of it, not made up
        return None
    if not holds_messages(schema, columns):
        return file if shape_of(dict.fromkeys(schema.names, True)) or format_of(schema.names) else None
    return None if is_of_house(schema) else file


def rows_of_file(file: Path, kind: RowKind, columns: Collection[str], folder: Path, split: str = "train") -> UserRows:
    """The rows of a kind that a user's file makes, under ``folder``, made once for its content.

    Parquet that has the ``columns`` keeps all others; of anything else, and of pairs, a set of one split is built.

    Raises: InputError if its shape is not known or is that of another kind, or too many records cannot be read.
    """
    seen = f"{READING} {_digest(file)} {_pictures_digest(file)}"
    seen += "" if split == "train" else f" {split}"
    name = f"{file.stem}-{kind}-{hashlib.sha256(seen.encode()).hexdigest()[:12]}"
    if _keeps_columns(file, kind, columns):
        return _rewritten(file, folder / f"{name}.parquet")
    shape, out = _shape(file, kind), folder / name
    rows = out / kind / f"{split}.parquet"
    done = "found" if rows.is_file() and (out / CARD).is_file() else "built once"
    if done != "found":
        _check_one_split(file)
        build(spec_of(file, kind, out, split), inputs=[file])
    card, number = read_card(out), pq.read_metadata(rows).num_rows
    left_out = card["quarantined"]["count"]
    notes = [f"{left_out} records left out (see {out / CARD})"] if left_out else []
    notes += ["patients unknown"] if card["patients"] == "unknown" else []
    counted = {note: count for note, count in card.get("notes", {}).items() if note != SPLITS_LEFT}
    notes += [f"{count} {note}" for note, count in counted.items() if kind == "preference"]
    more = "".join(f", {note}" for note in notes)
    return UserRows(str(rows.with_suffix("")), f"{file}: {shape}; {done} as {rows}: {number} {kind} rows{more}.")


def _check_one_split(file: Path) -> None:
    """Raises InputError for a file that holds several splits of its own: its test rows would be trained on."""
    found = [(one.values.get("split"), one.split) for one in records(file) if isinstance(one, Record)]
    splits = sorted({str(given or folder or "") for given, folder in found})
    if len(splits) > 1:
        named = ", ".join(split or "(none)" for split in splits)
        folders = sorted({folder for _, folder in found if folder})
        cure = f"Name one ({file / folders[-1]})" if folders else "Name a file with one of them"
        raise InputError(f"{file}: holds the splits {named}. {cure}, or build it by a spec with source_splits.")


def _keeps_columns(file: Path, kind: RowKind, columns: Collection[str]) -> bool:
    """Whether a file is Parquet of rows; of pairs: with columns that ``preferences`` lacks."""
    if file.suffix != ".parquet" or not file.is_file():
        return False
    schema = open_parquet(file).schema_arrow
    return holds_messages(schema, columns) and (kind != "preference" or bool({*OF_HOUSE} & {*schema.names}))


def _rewritten(file: Path, rows: Path) -> UserRows:
    done = "found" if rows.is_file() else "written once"
    if done != "found":
        _check_one_split(file)
        write_rows(file, rows)
    number = pq.read_metadata(rows).num_rows
    form = f"messages of blocks and images with their bytes {done} as {rows}: {number} rows, other columns as they are"
    return UserRows(str(rows.with_suffix("")), f"{file}: Parquet of rows; {form}.")


def rows_in_memory(file: Path, kind: RowKind, columns: Collection[str]) -> Iterator[dict[str, Any]]:
    """The rows of a kind that a user's file makes, one after the other; nothing is written.

    Records that cannot be read are left out, so that a row has the number that it has in training.

    Raises: InputError as ``rows_of_file`` does.
    """
    if _keeps_columns(file, kind, columns):
        yield from house_rows(file)
        return
    _shape(file, kind)
    spec, seen = spec_of(file, kind, Path("unwritten")), set[str]()
    for sample in spec.source.samples():
        if isinstance(sample, Written) and sample.id not in seen and fault_of_written(sample) is None:
            seen.add(sample.id)
            yield from (row for _, row in written_rows(sample, spec, "train"))


def spec_of(file: Path, kind: RowKind, out: Path, split: str = "train") -> BuildSpec:
    """What to build of a user's file: all of it, in one split."""
    name = SOURCES[kind]
    if name not in sources():
        raise InputError(f"{file}: {kind} rows are made of it by a build spec only; see `clinalign build`.")
    source = Source.model_validate({"name": name, "file": str(file)})
    return BuildSpec(source=source, output=str(out), splits={split: 1.0}, rows={kind: [split]}, tasks={})


def holds_pairs(file: Path) -> bool:
    """Whether a user's file holds preference pairs rather than answers."""
    return bool(_keys_of_pairs(_first_records(file)))


def _first_records(file: Path) -> list[dict[str, Any]]:
    return [record.values for record in islice(records(file), LOOKED_AT) if isinstance(record, Record)]


def _keys_of_pairs(first: Iterable[dict[str, Any]]) -> list[str]:
    return [key for key in OF_PAIRS if any(values.get(key) is not None for values in first)]


def _shape(file: Path, kind: RowKind) -> str:
    """In which shape the first records are, in words.

    Raises: InputError if none is in a known one, or they are pairs where answers are needed.
    """
    first = _first_records(file)
    keys = Counter(key for values in first for key, value in values.items() if value is not None)
    seen = ", ".join(key for key, _ in keys.most_common(12)) or "no record that can be read"
    pairs = _keys_of_pairs(first)
    if pairs and kind != "preference":
        raise InputError(
            f"{file}: holds preference pairs (keys {', '.join(pairs)}), and {kind} rows are needed. Train them with "
            "method dpo, or leave these keys out."
        )
    if kind == "preference":
        read_pairs(file)  # which refuses what is none; the card's notes say the shape
        return "preference pairs"
    found: list[Shape] = [shape for shape in map(shape_of, first) if shape is not None]
    shapes = Counter(found)
    if not found:
        known = ", ".join(f"{shape} ({WRITTEN_FOR[shape]})" for shape in SHAPES)
        raise InputError(f"{file}: no record has a shape that is known. Seen: {seen}. Known by the key: {known}.")
    return "shape " + " and ".join(f"{shape} ({WRITTEN_FOR[shape]})" for shape, _ in shapes.most_common())


def _pictures_digest(file: Path) -> str:
    """Of the pictures that records name: their names, sizes and times, and which are not there."""
    named = {name for one in records(file) if isinstance(one, Record) for name in picture_names(one.values)}
    found = hashlib.sha256()
    for name in sorted(named):
        stamp = _stamp(file.parent, name)
        found.update(f"{name} {stamp}\n".encode(errors="replace"))
    return found.hexdigest()


def _stamp(folder: Path, name: str) -> tuple[int, int] | None:
    """Size and time of a picture; None where there is none."""
    try:
        status = picture_file(folder, name.removeprefix("file://")).stat()
    except (OSError, ValueError):  # a ValueError also of a name that leads out of the folder
        return None
    return status.st_size, status.st_mtime_ns


def _digest(file: Path) -> str:
    """SHA-256 of a file, or of all files of a saved folder."""
    if file.is_file():
        return sha256(file)
    parts = [f"{path.relative_to(file)} {sha256(path)}" for path in sorted(file.rglob("*")) if path.is_file()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
