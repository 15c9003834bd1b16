"""The rows that an audit tries its attacks on: those that a recipe trains on, tasks mixed evenly."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_builders.schema import message_text
from rewards.attacks import Asked
from rewards.dialogue import Dialogue, read_dialogue
from rewards.facts import Facts
from rewards.rule_set import load_rule_set
from rewards.strict_yaml import InputError

Row = dict[str, Any]


def sampled_rows(
    file: Path,
    *,
    limit: int,
    seed: int,
    images: bool = False,
    places: Sequence[int] | None = None,
    needed: Sequence[str] = ("facts", "answer"),
) -> list[Row]:
    """At most ``limit`` rows that have what is ``needed``, spread evenly over the tasks, without their images.

    ``images``: with them, for rewards that look. ``places``: only of these rows.

    Raises: InputError if there is none.
    """
    import pyarrow.parquet as pq

    names = [n for n in pq.read_schema(file).names if n != "rejected_images" and (images or n != "images")]
    table = pq.read_table(file, columns=names)
    kept = table if places is None else table.take(list(places))
    rows = [row for row in kept.to_pylist() if all(row.get(column) for column in needed)]
    if not rows:
        raise InputError(
            f"{file}: no row that is trained on has {' and '.join(needed)}; an audit needs prompt rows of a built set."
        )
    by_task: dict[str, list[Row]] = {}
    for row in random.Random(seed).sample(rows, len(rows)):
        by_task.setdefault(row["task"], []).append(row)
    share = max(1, limit // len(by_task))
    return [row for task in sorted(by_task) for row in by_task[task][:share]]


def grid_of(file: Path) -> int:
    """The units of boxes, from the card beside a built data set; 100 without one."""
    for card in (file.parent / "card.json", file.parent.parent / "card.json"):
        if card.is_file():
            return int(json.loads(card.read_text(encoding="utf-8"))["spec"]["box_grid"])
    return 100


def asked_of(row: Row, grid: int) -> Asked:
    """A prompt row as attacks see it. A ``box_grid`` of the row wins over ``grid``; null: pixels of its first image."""
    boxes = None if row.get("boxes") is None else tuple((b[0], b[1], b[2], b[3]) for b in row["boxes"])
    return Asked(
        question=message_text(row["prompt"]),
        task=row["task"],
        answer=row["answer"],
        boxes=boxes,
        facts=Facts.model_validate_json(row["facts"]),
        rules=load_rule_set(row["rule_set"]),
        grid=_extent(row, grid),
        options=tuple(row.get("options") or ()),
    )


def _extent(row: Row, grid: int) -> int:
    if row.get("box_grid") is not None:
        return int(row["box_grid"])
    if "box_grid" in row and row.get("image_size"):
        return int(min(row["image_size"][0]))
    return grid


def asked_dialogue(row: Row) -> Dialogue:
    """A row's dialogue as attacks see it."""
    return read_dialogue(row["dialogue"])
