"""JSON Lines read strictly: one object a line, and a fault is told with its line.

Left out: records that are set aside instead of refused (``data_builders/labelled.py`` does that itself).
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from rewards.printable import without_surrogates
from rewards.strict_yaml import InputError

HALF_CHARACTER = "\\ud"
"""Without it a line writes no half of a character, which no file could be written with."""


def json_lines(lines: Iterable[str], *, place: str = "line ") -> Iterator[tuple[int, dict[str, Any]]]:
    """Number (from 1) and object of each line that is not blank; a fault is told at ``place`` and the number.

    Raises: InputError naming the line that is not JSON, or not an object.

    >>> list(json_lines(['{"id": 1}', "", '{"id": 2}']))
    [(1, {'id': 1}), (3, {'id': 2})]
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as fault:
            raise InputError(f"{place}{number}: not JSON ({fault.msg}). Write one object a line.") from None
        except RecursionError:
            raise InputError(f"{place}{number}: nested too deeply to be read. Write one flat object a line.") from None
        except ValueError:  # Python reads no integer of more than 4,300 digits
            raise InputError(f"{place}{number}: holds a number of thousands of digits. Write it as text.") from None
        if HALF_CHARACTER in line.casefold() and _is_halved(json.dumps(row, ensure_ascii=False)):
            raise InputError(f"{place}{number}: holds half a character (\\ud800 to \\udfff). Remove it.")
        if not isinstance(row, dict):
            raise InputError(f"{place}{number}: expected an object, got {type(row).__name__}.")
        yield number, row


def _is_halved(text: str) -> bool:
    return without_surrogates(text) != text
