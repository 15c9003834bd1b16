"""The card of a built data set, ``card.json``: the one reader and the one writer.

``format`` says which columns and which sections of the card there are: 1 where a card has no such key (boxes in whole
numbers, no ``image_size`` beside instruction and preference rows), 2 since. Older ones are read, newer ones refused.
Left out: what stands in it, which is for who builds (``build.card``), and a value in place of what it does not say.
"""

import contextlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json
from rewards.rules.kept_files import known_in
from rewards.rules.known_files import KnownFile

CARD = "card.json"
FORMAT = 2
"""The format in which sets are written now."""
CURE = "Build the set anew."
RULES = "rules"
"""The key of a card under which stand the files of the user's own that rule the rows, with their SHA-256."""
POOL = ".counterparts.json"
"""What the card of a pool of answers ends with, beside the pool's file."""
Json = dict[str, Any]


def write_card(folder: Path, card: Json) -> None:
    """Writes the card of the rows in and below a folder, with the format of today."""
    content = json.dumps({"format": FORMAT, **card}, indent=2, sort_keys=True)
    (folder / CARD).write_text(content, encoding="utf-8")


def read_card(folder: Path | str) -> Json:
    """What the card of a built set says: counts, what was left out and why, licence, spec, SHA-256 of each file.

    Raises: InputError if there is none, it is no JSON object, or of a format that this version does not know.
    """
    card = Path(folder) / CARD
    content = read_json(card, CURE)
    if fault := format_fault(content, card):
        raise InputError(fault)
    return content


def format_fault(content: Json, card: Path) -> str | None:
    """Why a card's set cannot be read by this version; None where it can."""
    found = content.get("format", 1)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        return f"{card}: format: got {found!r}, expected a whole number such as {FORMAT}. {CURE}"
    if found <= FORMAT:
        return None
    return (
        f"{card}: the set is of format {found}, and this version reads up to {FORMAT}. Update clinalign, or build the "
        "set anew with this version."
    )


def refuse_newer(rows: Path) -> None:
    """Raises InputError if the set of these rows is of a newer format. What else ails its card, its readers tell."""
    folder = _folder_of_card(rows)
    if folder is None:
        return
    stamp = (folder / CARD).stat()
    if fault := _fault_of_file(folder / CARD, (stamp.st_size, stamp.st_mtime_ns)):
        raise InputError(fault)


@lru_cache(maxsize=32)  # one command opens the same rows many times
def _fault_of_file(card: Path, _stamp: tuple[int, int]) -> str | None:
    with contextlib.suppress(InputError):
        return format_fault(read_json(card, ""), card)
    return None


def rules_of_rows(rows: Path) -> dict[str, KnownFile]:
    """The files of the user's own that rule these rows, by name, as their folder keeps them; known from now on.

    Raises: InputError if one is missing or has changed, or a file of the same id with other content is known.
    """
    folder, pool = _folder_of_card(rows), rows.with_suffix(POOL)
    card = None if folder is None else folder / CARD
    found: dict[str, KnownFile] = {}
    for file in (card, pool if pool.is_file() else None):
        if file is not None:
            stamp = file.stat()
            listed = _listed_in(file, (stamp.st_size, stamp.st_mtime_ns))
            found |= known_in(file.parent, listed, cure=CURE)
    return found


@lru_cache(maxsize=32)
def _listed_in(card: Path, _stamp: tuple[int, int]) -> object:
    """What a card says that its folder keeps. What else ails it, its readers tell."""
    with contextlib.suppress(InputError):
        return read_json(card, "").get(RULES)
    return None


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
    folders = [above for path in (file, file.resolve()) for above in (path.parent, path.parent.parent)]
    folders += [folder.parent for folder in folders if folder.name == "quarantine"]
    return next((folder for folder in folders if (folder / CARD).is_file()), None)
