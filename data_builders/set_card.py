"""The card of a built data set, ``card.json``, read from wherever its rows lie.

``format`` says which columns and which sections of the card there are: 1 where a card has no such key (boxes in whole
numbers, no ``image_size`` beside instruction and preference rows), 2 since. Older ones are read, newer ones refused.
"""

import contextlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json

CARD = "card.json"
FORMAT = 2
"""The format in which sets are written now."""
Json = dict[str, Any]


def card_beside(rows: Path) -> Path | None:
    """The card beside a file of rows or one folder up; None without one."""
    found = (folder / CARD for folder in (rows.parent, rows.parent.parent))
    return next((card for card in found if card.is_file()), None)


def read_card(card: Path) -> Json:
    """What a card says.

    Raises: InputError if it is missing, damaged, or of a format that this version does not know.
    """
    content = read_json(card, "Build the set anew.")
    if fault := format_fault(content, card):
        raise InputError(fault)
    return content


def format_fault(content: Json, card: Path) -> str | None:
    """Why a card's set cannot be read by this version; None where it can."""
    found = content.get("format", 1)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        return f"{card}: format: got {found!r}, expected a whole number such as {FORMAT}. Build the set anew."
    if found <= FORMAT:
        return None
    return (
        f"{card}: the set is of format {found}, and this version reads up to {FORMAT}. Update clinalign, or build the "
        "set anew with this version."
    )


def refuse_newer(rows: Path) -> None:
    """Raises InputError if the set of these rows is of a newer format. What else ails its card, its readers tell."""
    card = card_beside(rows)
    if card is None:
        return
    stamp = card.stat()
    if fault := _fault_of_file(card, (stamp.st_size, stamp.st_mtime_ns)):
        raise InputError(fault)


@lru_cache(maxsize=32)  # one command opens the same rows many times
def _fault_of_file(card: Path, _stamp: tuple[int, int]) -> str | None:
    with contextlib.suppress(InputError):
        return format_fault(read_json(card, ""), card)
    return None
