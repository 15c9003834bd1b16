"""JSON read strictly: files of one object, and JSON Lines of one object a line; a fault is told with its line.

A byte order mark, Windows line ends and blank lines are passed over. What JSON cannot hold (NaN, Infinity), and what no
reader holds (numbers of thousands of digits, thousandfold nesting), is refused.
Left out: records that are set aside instead of refused (``data_builders/labelled.py`` does that itself).
"""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from rewards.printable import without_surrogates
from rewards.strict_yaml import InputError, nearest_file

HALF_CHARACTER = "\\ud"
"""Without it a line writes no half of a character, which no file could be written with."""


def json_lines(lines: Iterable[str | bytes], *, place: str = "line ") -> Iterator[tuple[int, dict[str, Any]]]:
    """Number (from 1) and object of each line that is not blank; a fault is told at ``place`` and the number.

    Raises: InputError naming the line that is not UTF-8, not JSON, or not an object.

    >>> list(json_lines(['{"id": 1}', "", b'{"id": 2}']))
    [(1, {'id': 1}), (3, {'id': 2})]
    """
    for number, line in enumerate(lines, start=1):
        text = _text(line, f"{place}{number}")
        if number == 1:
            text = text.removeprefix("\ufeff")
        if text.strip():
            yield number, _object(text, f"{place}{number}", "Write one object a line.")


def read_json(path: Path, cure: str) -> dict[str, Any]:
    """The object in a JSON file; ``cure``: what to do about one that is damaged. NaN is read, as Python writes it.

    Raises: InputError if the file is missing, or does not hold one JSON object.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file.{nearest_file(path)} {cure}")
    return _object(_text(path.read_bytes(), str(path)).removeprefix("\ufeff"), str(path), cure, strict=False)


def _text(line: str | bytes, place: str) -> str:
    if isinstance(line, str):
        return line
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise InputError(f"{place}: not UTF-8 (byte {fault.start + 1}). Save it as UTF-8.") from None


def _object(text: str, place: str, cure: str, *, strict: bool = True) -> dict[str, Any]:
    try:
        row = json.loads(text, **STRICT) if strict else json.loads(text)
    except json.JSONDecodeError as fault:
        raise InputError(f"{place}: not JSON ({fault.msg}). {cure}") from None
    except RecursionError:
        raise InputError(f"{place}: not JSON that can be read (nested too deeply). {cure}") from None
    except ValueError as fault:  # of the two functions above, and of numbers with thousands of digits
        raise InputError(f"{place}: not JSON ({str(fault).partition(';')[0]}). {cure}") from None
    if HALF_CHARACTER in text.casefold() and _is_halved(json.dumps(row, ensure_ascii=False)):
        raise InputError(f"{place}: holds half a character (\\ud800 to \\udfff). Remove it.")
    if not isinstance(row, dict):
        raise InputError(f"{place}: expected an object, got {type(row).__name__}. {cure}")
    return cast(dict[str, Any], row)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON, write null")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values, none of which stands there twice: one of the two would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key '{twice[:40]}' stands there twice")
    return found


STRICT: dict[str, Any] = {"parse_constant": _no_constant, "parse_float": _finite, "object_pairs_hook": _once}


def _is_halved(text: str) -> bool:
    return without_surrogates(text) != text
