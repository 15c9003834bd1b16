"""JSON Lines read strictly: one object a line, and a fault is told with its line.

Left out: records that are set aside instead of refused (``data_builders/labelled.py`` does that itself).
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from rewards.strict_yaml import InputError


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
        if not isinstance(row, dict):
            raise InputError(f"{place}{number}: expected an object, got {type(row).__name__}.")
        yield number, row
