"""Labelled images: a table of records, each with its images and label columns, under any rule set.

The table is JSON Lines or CSV. Reserved columns: ``id``, ``patient`` (both required), ``study``, ``images`` (a list of
files or, in CSV, names parted by ``;``), ``image_turns`` (for each image after the first, the turn of a dialogue that
it opens). Every other column is a value from which the rule set derives answers; an empty cell is not known.
Left out: boxes, and finding columns with side and size.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data_builders.imaging.images import ImageError, inside, open_image
from data_builders.schema import Quarantined, Sample
from rewards.config.csv_rows import Misfit, csv_rows
from rewards.config.input_error import InputError, nearest, nearest_file
from rewards.config.json_lines import json_value
from rewards.config.strict_yaml import regular
from rewards.rules.facts import Facts
from rewards.rules.rule_set import load_rule_set

LICENCE = "not known to clinalign: that of the table and its images"

RESERVED = ("id", "patient", "study", "images", "image_turns")
Record = dict[str, Any]


class Unusable(Exception):
    """Why one record cannot be used."""


def labelled(*, root: Path, rule_set: str, table: str = "labels.jsonl") -> Iterator[Sample | Quarantined]:
    """One sample for each record of ``root/table``; images are looked for inside ``root``.

    A record that lacks its id, its patient or an image, or whose values are not plain, is quarantined.

    Raises: InputError if there is no such table or rule set.
    """
    rules = load_rule_set(rule_set)
    cure = "Name it in 'table', and its folder in 'root'."
    needed = ("id", "patient", "images")
    for number, record in enumerate(label_records(Path(root) / table, needed=needed, cure=cure), start=1):
        name = (
            str(record.get("id") or f"{table} record {number}")
            if isinstance(record, dict)
            else f"{table} record {number}"
        )
        try:
            yield _sample(record, root=Path(root), rule_set=rules.id)
        except Unusable as reason:
            yield Quarantined(id=name, reason=str(reason))


def label_records(path: Path, *, needed: Sequence[str] = (), cure: str = "") -> Iterator[Any]:
    """Each record of a table, or why it has none (a text). ``needed``: columns without which a CSV file is refused.

    Raises: InputError if there is no such table; ``cure`` is what to do then.
    """
    if path.suffix == ".csv":
        rows = csv_rows(path, check=partial(_check_header, path, needed), cure=cure)
        yield from (str(row) if isinstance(row, Misfit) else _from_csv(row) for row in rows)
        return
    if not regular(path).is_file():
        raise InputError(f"{path}: no such file.{nearest_file(path)} {cure}".rstrip())
    with path.open("rb") as file:
        yield from (_from_json(line) for line in file if line.strip())


def _check_header(path: Path, needed: Sequence[str], header: list[str]) -> None:
    for name in needed:
        if name not in header:
            raise InputError(f"{path}: no column '{name}'.{nearest(name, header)} It has: {', '.join(header)[:300]}.")


def _from_json(line: bytes) -> Any:
    """The record, or why there is none."""
    try:
        return json_value(line, "", "")
    except InputError as fault:
        return str(fault).removeprefix(": ").strip()


def _from_csv(row: Record) -> Record:
    """A row with numbers as numbers, lists as lists, and empty cells left out."""
    record: Record = {key: _number(cell) for key, cell in row.items() if cell and key}
    for key in ("id", "patient", "study"):
        if key in record:
            record[key] = str(row[key])
    for key in ("images", "image_turns"):
        if row.get(key):
            record[key] = [
                _number(part.strip()) if key == "image_turns" else part.strip() for part in row[key].split(";")
            ]
    return record


def _number(cell: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def _sample(record: Any, *, root: Path, rule_set: str) -> Sample:
    if not isinstance(record, dict):
        raise Unusable(record if isinstance(record, str) else f"expected an object, got {type(record).__name__}")
    for key in ("id", "patient", "images"):
        if not record.get(key):
            raise Unusable(f"it has no '{key}'")
    turns = _turns(record)
    images = [_image(root, str(name), turn) for name, turn in zip(record["images"], (1, *turns), strict=True)]
    return Sample(
        id=str(record["id"]),
        patient=str(record["patient"]),
        study=str(record.get("study") or record["id"]),
        image=images[0],
        more_images=tuple(images[1:]),
        image_turns=turns,
        facts=Facts(rule_set=rule_set, values=_values(record)),
    )


def _turns(record: Record) -> tuple[int, ...]:
    """The turn that each image after the first opens; the first turn where nothing is said."""
    if not isinstance(record["images"], list):
        raise Unusable("'images' is no list")
    further = len(record["images"]) - 1
    turns = record.get("image_turns", [1] * further)
    if not isinstance(turns, list) or len(turns) != further or not all(isinstance(t, int) and t >= 1 for t in turns):
        raise Unusable(f"image_turns: got {turns}; give a turn from 1 for each image after the first ({further})")
    return tuple(turns)


def _image(root: Path, name: str, turn: int) -> Any:
    try:
        return open_image(inside(root, name))
    except (ImageError, InputError) as fault:
        raise Unusable(f"image of turn {turn}: {fault}") from None


def _values(record: Record) -> dict[str, Any]:
    values = {key: value for key, value in record.items() if key not in RESERVED and value is not None}
    for key, value in values.items():
        plain = isinstance(value, str | bool | int | float) or (
            isinstance(value, list) and all(isinstance(part, str) for part in value)
        )
        if not plain:
            raise Unusable(f"column '{key}': got {str(value)[:60]}; expected a text, a number, true or false, or texts")
    return values
