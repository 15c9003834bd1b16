"""The rows that an audit tries its attacks on: those that a recipe trains on, tasks mixed evenly."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment.config.box_units import with_units
from data_builders.schema import message_text
from rewards.attacks.attacks import PromptRow
from rewards.boxes.coordinate_space import Units
from rewards.config.input_error import InputError
from rewards.dialogues.dialogue import Dialogue, read_dialogue
from rewards.rules.facts import Facts
from rewards.rules.rule_set import load_rule_set

Row = dict[str, Any]


def sampled_rows(
    file: Path,
    *,
    limit: int,
    seed: int,
    images: bool = False,
    indices: Sequence[int] | None = None,
    needed: Sequence[str] = ("facts", "answer"),
) -> list[Row]:
    """At most ``limit`` rows that have what is ``needed``, spread evenly over the tasks, without their images.

    ``images``: with them, for rewards that look. ``indices``: only of these rows.

    Raises: InputError if there is none.
    """
    import pyarrow.parquet as pq

    names = [n for n in pq.read_schema(file).names if n != "rejected_images" and (images or n != "images")]
    table = pq.read_table(file, columns=names)
    kept = table if indices is None else table.take(list(indices))
    rows = [row for row in kept.to_pylist() if all(row.get(column) for column in needed)]
    if not rows:
        raise InputError(
            f"{file}: no row that is trained on has {' and '.join(needed)}; an audit needs prompt rows of a built set."
        )
    rows = with_units(rows, file)
    by_task: dict[str, list[Row]] = {}
    for row in random.Random(seed).sample(rows, len(rows)):
        by_task.setdefault(row["task"], []).append(row)
    share = max(1, limit // len(by_task))
    return [row for task in sorted(by_task) for row in by_task[task][:share]]


def prompt_row(row: Row) -> PromptRow:
    """A prompt row as attacks see it, boxes in the truth's units."""
    boxes = None if row.get("boxes") is None else tuple((b[0], b[1], b[2], b[3]) for b in row["boxes"])
    return PromptRow(
        question=message_text(row["prompt"]),
        task=row["task"],
        answer=row["answer"],
        boxes=boxes,
        facts=Facts.model_validate_json(row["facts"]),
        rules=load_rule_set(row["rule_set"]),
        grid=_extent(row),
        options=tuple(row.get("options") or ()),
    )


def _extent(row: Row) -> int:
    """The largest square within the image in the truth's units; 100 where the row has no boxes to ask for."""
    extent = Units.of(row).extent()
    if extent is not None:
        return int(min(extent))
    return int(max([100.0, *(value for box in row.get("boxes") or [] for value in box)]))


def row_dialogue(row: Row) -> Dialogue:
    """A row's dialogue as attacks see it."""
    return read_dialogue(row["dialogue"])
