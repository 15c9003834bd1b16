"""The card of a built data set, ``card.json``: the one reader and the one writer.

Left out: what stands in it, which is for who builds (``build.card``), and a value in place of what it does not say.
"""

import json
from pathlib import Path
from typing import Any

from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json

CARD = "card.json"
CURE = "Build the set anew."
Json = dict[str, Any]


def write_card(folder: Path, card: Json) -> None:
    """Writes the card of the rows in and below a folder."""
    (folder / CARD).write_text(json.dumps(card, indent=2, sort_keys=True), encoding="utf-8")


def read_card(folder: Path) -> Json:
    """The card of a built data set. Raises: InputError if there is none, or it is no JSON object."""
    return read_json(folder / CARD, CURE)


def card_of_rows(file: Path) -> Json | None:
    """The card beside a file of rows or one folder up, or there where a link leads; None for rows without one."""
    found = _folder_of_card(file)
    return None if found is None else read_card(found)


def card_grid(file: Path) -> int | None:
    """The units of boxes by the card of these rows: a grid x grid image; None where no card says it.

    Raises: InputError if the card says what is no whole number.
    """
    folder = _folder_of_card(file)
    spec = read_card(folder).get("spec") if folder else None
    grid = spec.get("box_grid") if isinstance(spec, dict) else None
    if folder and grid is not None and (not isinstance(grid, int) or isinstance(grid, bool)):
        raise InputError(f"{folder / CARD}: spec.box_grid: got {grid!r}, expected a whole number. {CURE}")
    return grid


def _folder_of_card(file: Path) -> Path | None:
    folders = (file.parent, file.parent.parent, file.resolve().parent, file.resolve().parent.parent)
    return next((folder for folder in folders if (folder / CARD).is_file()), None)
