"""The units of the boxes in rows: their own columns or, in sets built before there were any, the grid in their card.

Left out: guesses. Rows without either share one unit with the answers to them.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from data_builders.cards import card_grid
from rewards.boxes.coordinate_space import BoxSpace, Units, outside
from rewards.config.input_error import InputError, nearest
from rewards.config.strict_yaml import read_yaml

UNIT_COLUMNS = ("target", "box_grid", "image_size")
"""What rows say of their question and of the units of its boxes."""
Row = dict[str, Any]


def with_units(rows: Sequence[Row], file: Path) -> list[Row]:
    """The rows of a file, each with ``box_grid``: its own, or that of the card where the file has no such column.

    Raises: InputError naming a row whose true boxes are not in these units.
    """
    known = not rows or "box_grid" in rows[0]
    units = {} if known else {"box_grid": card_grid(file)}
    found = [{**row, **units} for row in rows]
    if fault := next(truth_faults(found), None):
        raise InputError(f"{file}: {fault}")
    return found


def truth_faults(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Each row with a true box outside of its image."""
    for row in rows:
        units = Units.of(row)
        for box, image in zip(row.get("boxes") or [], row.get("box_images") or [1] * 10_000, strict=False):
            if fault := outside((box[0], box[1], box[2], box[3]), units, image):
                yield f"row {row['id']}: {fault}"
                break


def written_space(run: str) -> BoxSpace:
    """What a run was trained to write, by the recipe in its folder; as the truth (``grid``) for any other model."""
    return trained_space(run) or "grid"


def trained_space(run: str) -> BoxSpace | None:
    """The ``data.box_space`` of the recipe in a run's folder; None for any other model."""
    recipe = run_recipe(run)
    return known_space(str(recipe.get("data", {}).get("box_space") or "grid")) if recipe else None


def run_recipe(run: str) -> dict[str, dict[str, object]]:
    """The sections of the recipe in a run's folder, as it was resolved; empty for any other model."""
    files = (folder / "recipe.resolved.yaml" for folder in (Path(run), Path(run).parent))
    return next((read_yaml(file) for file in files if file.is_file()), {})


def known_space(name: str) -> BoxSpace:
    """The space of this name. Raises: InputError if there is none."""
    known = {space: space for space in get_args(BoxSpace)}
    if name not in known:
        raise InputError(f"box_space: no '{name}'.{nearest(name, list(known))} There: {', '.join(known)}.")
    return known[name]
