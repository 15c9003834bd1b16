"""Prompt rows as they are evaluated: checked, with their units."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pyarrow.parquet as pq

from alignment.config.box_units import UNIT_COLUMNS, with_units
from alignment.config.data_entries import parquet
from alignment.data.processed_size import ProcessedSizes
from alignment.metrics.evaluated_row import EvaluatedRow
from data_builders.build.written_rows import UNKNOWN
from data_builders.imaging.images import pixels
from data_builders.row_checks import Check, check_rows
from data_builders.schema import message_text
from rewards.answers.final_answer import final_words
from rewards.boxes.coordinate_space import BoxSpace
from rewards.boxes.geometry import parse_boxes
from rewards.config.input_error import InputError

Drawn = TypeVar("Drawn")

COLUMNS = ("images", "prompt", "answer", "boxes", "facts", "rule_set", "task", "patient", "id")


CURRICULUM_COLUMNS = ("stage", "capability", "guidelines", "provenance")
SHARED_COLUMNS = ("answers", "options", "box_images", "regions", "attributes", "may_leave", "dialogue")
"""What rows have where their set knows it; a set of format 1 has fewer of these."""


def file_with(data: str, columns: Sequence[str], check: Check, *, what: str) -> Path:
    """The Parquet file of a data entry that has these columns, its rows checked. ``what``: what such rows are called.

    Raises: InputError if there is no such file, a column is missing, or a row holds what it cannot hold.
    """
    file = parquet(data)
    names = pq.read_schema(file).names
    if missing := [column for column in columns if column not in names]:
        raise InputError(f"{file}: not {what}: no column {', '.join(missing)} among {', '.join(names)}.")
    check_rows(file, check)
    return file


def checked_file(data: Path) -> Path:
    """The Parquet file of a data entry whose rows can be evaluated, all of them checked.

    Raises: InputError if there are none, a column is missing, or a row holds what it cannot hold.
    """
    file = file_with(str(data), COLUMNS, Check(("images", "prompt", "task"), blocks=True), what="prompt rows")
    if not pq.read_metadata(file).num_rows:
        raise InputError(f"{file}: holds no rows to evaluate. Check the split's share in the spec.")
    return file


def read_rows(data: Path) -> list[EvaluatedRow]:
    """The prompt rows of a data entry (``data/x/prompt/test``), images still encoded (see ``pixels``).

    Raises: InputError as ``checked_file`` does.
    """
    file = checked_file(data)
    names = pq.read_schema(file).names
    more = [name for name in (*CURRICULUM_COLUMNS, *UNIT_COLUMNS, *SHARED_COLUMNS) if name in names]
    rows = pq.read_table(file, columns=[*COLUMNS, *more]).to_pylist()
    return cast(list[EvaluatedRow], with_units([{**_with_known_facts(row)} for row in rows], file))


def written_rows(rows: list[EvaluatedRow], box_space: BoxSpace, processor: Any) -> list[EvaluatedRow]:
    """The rows with the units in which a model states boxes (columns ``box_space`` and ``processed_size``)."""
    if box_space == "grid":
        return rows
    sizes = ProcessedSizes(processor) if box_space == "processed" else None
    stated: list[EvaluatedRow] = [{**row, "box_space": box_space} for row in rows]
    return [{**row, "processed_size": sizes.of(row["images"])} for row in stated] if sizes else stated


def _with_known_facts(row: EvaluatedRow) -> EvaluatedRow:
    """The row; where it has no facts or no rule set, what stands for "not known"."""
    return {**row, "facts": row["facts"] or UNKNOWN.to_json(), "rule_set": row["rule_set"] or ""}


def read_reference(data: Path) -> list[EvaluatedRow]:
    """Prompt rows as they are, or instruction rows with what their completions say: habits of the annotators too.

    Raises: InputError if the entry holds neither.
    """
    file = parquet(str(data))
    names = pq.read_schema(file).names
    if "completion" not in names:
        return read_rows(data)
    if lacking := [c for c in COLUMNS if c not in names and c not in ("images", "answer", "boxes")]:
        raise InputError(f"{file}: no column {', '.join(lacking)} among {', '.join(names)}; build the set anew.")
    check_rows(file, Check(("prompt", "completion", "task"), blocks=True))
    wanted = [c for c in (*COLUMNS, "completion") if c in names and c != "images"]  # habits need no image
    rows = pq.read_table(file, columns=wanted).to_pylist()
    return [_as_taught(_with_known_facts(row)) for row in rows]


def _as_taught(row: EvaluatedRow) -> EvaluatedRow:
    words = final_words(message_text(row.get("completion", [])))
    boxes = parse_boxes(words) if row["task"] == "box" else None
    return {**row, "answer": words, "boxes": None if boxes is None else [[*box] for box in boxes]}


def limited(rows: list[Drawn], *, limit: int | None, seed: int) -> list[Drawn]:
    """At most ``limit`` rows, or indices of them, drawn at random and left in their order."""
    if limit is None or limit >= len(rows):
        return rows
    if limit < 1:
        raise InputError(f"limit: got {limit}; an evaluation needs at least 1 row.")
    kept = np.random.default_rng(seed).choice(len(rows), size=limit, replace=False)
    return [rows[n] for n in sorted(kept)]


def decoded_row(row: EvaluatedRow) -> EvaluatedRow:
    """The row with its images as pixels."""
    return {**row, "images": [pixels(image).convert("RGB") for image in row["images"]]}
