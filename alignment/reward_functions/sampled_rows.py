"""The rows that an audit tries its attacks on: those that a recipe trains on, tasks mixed evenly."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment.config.box_units import with_units
from alignment.config.data_entries import rows_at
from data_builders.schema import message_text
from rewards.attacks.attacks import PromptRow
from rewards.boxes.coordinate_space import Units
from rewards.config.input_error import InputError
from rewards.dialogues.dialogue import Dialogue, read_dialogue
from rewards.rules.facts import Facts
from rewards.rules.rule_set import load_rule_set

Row = dict[str, Any]
DRAWN_IN = 100


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

    names = [name for name in pq.read_schema(file).names if name not in ("images", "rejected_images")]
    table = pq.read_table(file, columns=names)
    at = list(range(len(table)) if indices is None else indices)
    kept = [(k, row) for k, row in zip(at, table.take(at).to_pylist(), strict=True) if all(map(row.get, needed))]
    if not kept:
        raise InputError(
            f"{file}: no row that is trained on has {' and '.join(needed)}; an audit needs prompt rows of a built set."
        )
    rows = with_units([row for _, row in kept], file)
    by_task: dict[str, list[int]] = {}
    for one in random.Random(seed).sample(range(len(rows)), len(rows)):
        by_task.setdefault(rows[one]["task"], []).append(one)
    share = max(1, limit // len(by_task))
    drawn = [one for task in sorted(by_task) for one in by_task[task][:share]]
    if not images or "images" not in pq.read_schema(file).names:
        return [rows[one] for one in drawn]
    shown = rows_at(file, [kept[one][0] for one in drawn], ["images"])
    return [rows[one] | pictures for one, pictures in zip(drawn, shown, strict=True)]


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
    """The largest square within the image in the truth's units, in which attacks draw.

    Where the row does not say its units, a square of 100, or as large as the true boxes need.
    """
    extent = Units.of(row).extent()
    if extent is not None:
        return int(min(extent))
    return int(max([DRAWN_IN, *(value for box in row.get("boxes") or [] for value in box)]))


def row_dialogue(row: Row) -> Dialogue:
    """A row's dialogue as attacks see it."""
    return read_dialogue(row["dialogue"])
