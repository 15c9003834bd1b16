"""The records of any file that a user may hold, in their order, each with where it stands or why it cannot be read.

A JSON list, JSON Lines, Parquet, CSV (``.tsv``: parted by tabs), and a folder that ``datasets`` saved; which of them
it is, is seen by the content, but for CSV. What a record says is for ``messages.py``.
Left out: compressed files, and folders of Parquet files (name one of them).
"""

# pyarrow comes without types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from data_builders.row_checks import open_parquet
from rewards.config.csv_rows import Misfit, numbered_rows
from rewards.config.input_error import InputError, nearest_file
from rewards.config.json_lines import json_reply, json_value, read_json, read_json_list
from rewards.config.strict_yaml import regular, unreadable

AT_ONCE = 64
"""So many rows of a Parquet or Arrow file are held at once."""
SEPARATORS = {".csv": ",", ".tsv": "\t"}
LISTS = (
    *("images", "options", "answers", "boxes", "messages", "conversations", "history"),
    *("rejected_images", "rejected_messages", "rejected_conversations"),
)
"""Columns of a CSV that may hold a list, in JSON."""
SEVERAL = ("rejected", "rejected_response")
"""Columns of texts that may hold a list of texts."""
TURNS = ("prompt", "completion", "chosen", *SEVERAL)
"""Columns of texts that may hold a list of turns."""
OPENS_TURNS = re.compile(r"\[\s*\{\s*[\"'](?:role|from|content|value)[\"']\s*:")
"""How such a list begins, whether it is JSON or not."""
PARTED = ("images", "options", "answers", "rejected_images")
"""Those of them that may hold texts parted by ``;`` too."""
CURE = "Name a JSON list, JSON Lines, Parquet, CSV, or a folder that `datasets` saved."
OPENING_LENGTH = 4096
BOM = b"\xef\xbb\xbf"
Json = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """What one record holds. ``location``: where it stands, such as ``line 3``; ``split``: of a saved ``DatasetDict``.

    Lines are counted from 1, as editors do; records without lines from 0, as Python does.
    """

    location: str
    values: Json
    split: str | None = None


@dataclass(frozen=True)
class Unreadable:
    """Why there is no record where one should stand."""

    location: str
    reason: str


def records(path: Path) -> Iterator[Record | Unreadable]:
    """Each record of a file or of a saved data set, or why there is none.

    Raises: InputError if it is missing, of no known kind, damaged as a whole, or empty.
    """
    number = 0
    for number, found in enumerate(_records(Path(path)), start=1):  # noqa: B007 (the count is used below)
        yield found
    if not number:
        raise InputError(f"{path}: holds no records. {CURE}")


def _records(path: Path) -> Iterator[Record | Unreadable]:
    if regular(path).is_dir():
        return _saved(path)
    opening = _opening(path)
    if opening.startswith(b"PAR1"):
        return _of_batches(open_parquet(path).iter_batches(AT_ONCE))
    if path.suffix.lower() in SEPARATORS:
        return _csv(path)
    if opening.startswith((b"\xff\xfe", b"\xfe\xff")):
        json_value(opening, str(path), CURE)  # which names the encoding
    first = opening.removeprefix(BOM).lstrip()[:1]
    if first == b"[":
        return _json_list(path)
    if first == b"{" or path.suffix.lower() in (".json", ".jsonl", ".ndjson"):
        return _json_lines(path)
    what = "it is empty" if not opening.strip() else f"it opens with {opening[:12]!r}, which is none of the known kinds"
    raise InputError(f"{path}: {what}. {CURE}")


def _opening(path: Path) -> bytes:
    if not path.is_file():
        raise InputError(f"{path}: no such file.{nearest_file(path)} {CURE}")
    try:
        with path.open("rb") as file:
            return file.read(OPENING_LENGTH)
    except OSError as fault:
        raise InputError(unreadable(path, fault)) from None


def _json_list(path: Path) -> Iterator[Record | Unreadable]:
    for index, value in enumerate(read_json_list(path, "Write a list of records.")):
        yield _of_object(value, f"record {index}")


def _json_lines(path: Path) -> Iterator[Record | Unreadable]:
    """The objects of lines that end in a line feed alone: in their texts, U+2028 and U+0085 are words."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            content = line.strip()
            if content.removeprefix(BOM) == b"{":
                raise InputError(
                    f"{path}: line {number} opens an object and does not end it. Write one object a line, or a list "
                    "of objects."
                )
            if content:
                yield _of_line(content, f"line {number}")


def _of_line(line: bytes, location: str) -> Record | Unreadable:
    try:
        return _of_object(json_value(line, "", "Write one object a line."), location)
    except InputError as fault:
        return Unreadable(location, str(fault).removeprefix(": "))


def _of_object(value: Any, location: str) -> Record | Unreadable:
    if not isinstance(value, dict):
        return Unreadable(location, f"expected an object, got {type(value).__name__}")
    return Record(location, cast(Json, value))


def _csv(path: Path) -> Iterator[Record | Unreadable]:
    """The cells of each row by column; an empty cell is not known, as a null is."""
    for line, row in numbered_rows(path, separator=SEPARATORS[path.suffix.lower()], cure=CURE):
        if isinstance(row, Misfit):
            yield Unreadable(f"line {line}", str(row))
        else:
            yield _of_cells(row, f"line {line}")


def _of_cells(row: dict[str, str], location: str) -> Record | Unreadable:
    try:
        return Record(location, {name: _cell(name, cell) for name, cell in row.items() if name})
    except InputError as fault:
        return Unreadable(location, str(fault).rstrip("."))


def _cell(name: str, cell: str) -> Any:
    text = cell.strip()
    if name in TURNS and (listed := _texts_or_turns(name, text)) is not None:
        return listed
    if name in LISTS and text.startswith("["):
        return json_value(text, f"column '{name}'", "Write a list in JSON.")
    if name in PARTED and text:
        return [part.strip() for part in text.split(";")]
    return cell if text else None


def _texts_or_turns(name: str, text: str) -> list[Any] | None:
    """A JSON list of turns, or of several rejected texts; None of anything else: a box, say, is an answer itself."""
    if OPENS_TURNS.match(text):
        return json_value(text, f"column '{name}'", "Write a list in JSON.")
    value = json_reply(text) if name in SEVERAL and text.startswith("[") else None
    is_texts = isinstance(value, list) and value and all(isinstance(one, str) for one in cast(list[Any], value))
    return cast(list[Any], value) if is_texts else None


def _of_batches(batches: Iterator[pa.RecordBatch], split: str | None = None) -> Iterator[Record]:
    index = 0
    for batch in batches:
        names = _class_names(batch.schema)
        for start in range(0, batch.num_rows, AT_ONCE):
            for row in batch.slice(start, AT_ONCE).to_pylist():
                for name, known in names.items():
                    if isinstance(row[name], int) and 0 <= row[name] < len(known):
                        row[name] = known[row[name]]
                yield Record(f"record {index}" if split is None else f"{split} record {index}", row, split)
                index += 1


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Of each column that ``datasets`` stores as numbers of classes, their names."""
    noted = {name: feature for name, feature in features_of(schema).items() if name in schema.names}
    classes = {k: v.get("names") for k, v in noted.items() if isinstance(v, dict) and v.get("_type") == "ClassLabel"}
    return {name: names for name, names in classes.items() if isinstance(names, list)}


def features_of(schema: pa.Schema) -> Json:
    """What ``datasets`` noted of the columns."""
    note = (schema.metadata or {}).get(b"huggingface")
    content = json_value(note, "the file's note of `datasets`", "Write the file anew.") if note else {}
    info = content.get("info") if isinstance(content, dict) else None
    features = info.get("features") if isinstance(info, dict) else None
    return cast(Json, features) if isinstance(features, dict) else {}


def _saved(folder: Path) -> Iterator[Record | Unreadable]:
    """The rows of a folder of ``Dataset.save_to_disk``, or of each split of one of ``DatasetDict.save_to_disk``."""
    if (folder / "dataset_dict.json").is_file():
        splits = read_json(folder / "dataset_dict.json", "Save the data set anew.").get("splits")
        if not isinstance(splits, list) or not all(map(_is_name, cast(list[Any], splits))):
            raise InputError(f"{folder / 'dataset_dict.json'}: names no splits. Save the data set anew.")
        for split in cast(list[str], splits):
            yield from _of_batches(_arrow_batches(folder / split), split)
    elif (folder / "state.json").is_file():
        yield from _of_batches(_arrow_batches(folder))
    else:
        raise InputError(f"{folder}: a folder without state.json or dataset_dict.json, so not of `datasets`. {CURE}")


def _arrow_batches(folder: Path) -> Iterator[pa.RecordBatch]:
    state = read_json(folder / "state.json", "Save the data set anew.")
    files = state.get("_data_files")
    names = [file.get("filename") for file in files if isinstance(file, dict)] if isinstance(files, list) else []
    if not names or not all(map(_is_name, names)) or state.get("_indices_data_files"):
        raise InputError(f"{folder / 'state.json'}: names no files of rows. Save the data set anew (save_to_disk).")
    for name in names:
        file = folder / str(name)
        try:
            with pa.memory_map(str(regular(file))) as source, pa.ipc.open_stream(source) as stream:
                yield from stream
        except (pa.ArrowException, OSError) as fault:
            raise InputError(f"{file}: not a whole Arrow file ({str(fault)[:160]}). Save the data set anew.") from None


def _is_name(value: Any) -> bool:
    """Whether this names something in a folder, and nothing outside it."""
    return isinstance(value, str) and value not in ("", ".", "..") and Path(value).name == value
