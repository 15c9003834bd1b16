"""JSON of others read strictly: files of an object or a list, JSON Lines, replies; a fault is told with its place.

A byte order mark, Windows line ends and blank lines are passed over. What JSON cannot hold (NaN, Infinity), and what no
reader holds (numbers of thousands of digits, nesting beyond ``MAX_NESTING``), is refused. Nothing else reads JSON that
another program wrote; a test holds it.
Left out: records that are set aside instead of refused (``data_builders/sources/images/labelled.py`` does that itself).
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from rewards.config.encodings import conversion
from rewards.config.input_error import InputError, nearest_file
from rewards.config.printable import without_surrogates
from rewards.config.strict_yaml import line_of_byte, regular, unreadable

HALF_CHARACTER = "\\ud"
"""Without it a line writes no half of a character, which no file could be written with."""
MAX_NESTING = 100
ONE_A_LINE = "Write one object a line."


def json_lines(
    lines: Iterable[str | bytes], *, location: str = "line ", strict: bool = True, cure: str = ONE_A_LINE
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number (from 1) and object of each line that is not blank; a fault is told at ``location`` and the number.

    Raises: InputError naming the line that is not UTF-8, not JSON, or not an object.

    >>> list(json_lines(['{"id": 1}', "", b'{"id": 2}']))
    [(1, {'id': 1}), (3, {'id': 2})]
    """
    for number, line in enumerate(lines, start=1):
        text = _text(line, f"{location}{number}")
        if number == 1:
            text = text.removeprefix("\ufeff")
        if text.strip():
            yield number, _of_kind(dict, text, f"{location}{number}", cure, strict)


def read_json(path: Path, cure: str) -> dict[str, Any]:
    """The object in a JSON file; ``cure``: what to do about one that is damaged. NaN is read, as Python writes it.

    Raises: InputError if the file is missing, or does not hold one JSON object.
    """
    return _of_kind(dict, _text(_content(path, cure), str(path)), str(path), cure, strict=False)


def read_json_list(path: Path, cure: str, *, strict: bool = True) -> list[Any]:
    """The list in a JSON file. ``strict``: NaN, which only Python writes, is refused.

    Raises: InputError if the file is missing, or does not hold one JSON list.
    """
    return _of_kind(list, _text(_content(path, cure), str(path)), str(path), cure, strict)


def read_json_lines(path: Path, cure: str) -> list[dict[str, Any]]:
    """The objects of a file of JSON Lines that clinalign wrote (NaN is read).

    Raises: InputError if the file is missing, or naming the line that is no JSON object.
    """
    lines = _content(path, cure).split(b"\n")
    return [row for _, row in json_lines(lines, location=f"{path}:", strict=False, cure=cure)]


def json_value(text: str | bytes, location: str, cure: str, *, strict: bool = True) -> Any:
    """Whatever a JSON text holds. ``strict``: NaN and numbers beyond a float are refused.

    Raises: InputError if it is not UTF-8, not JSON, nests too deeply, or holds what cannot be written again.

    >>> json_value("[1, null]", "row 3", "")
    [1, None]
    """
    content = _text(text, location).removeprefix("\ufeff")
    try:
        value = json.loads(content, **STRICT) if strict else json.loads(content)
    except json.JSONDecodeError as fault:
        where = f", line {fault.lineno}" if "\n" in content.strip() else ""
        raise InputError(f"{location}: not JSON ({fault.msg}{where}). {cure}") from None
    except RecursionError:
        raise InputError(f"{location}: not JSON that can be read (nested too deeply). {cure}") from None
    except ValueError as fault:  # of the two functions below, and of numbers with thousands of digits
        raise InputError(f"{location}: not JSON ({str(fault).partition(';')[0]}). {cure}") from None
    if content.count("[") + content.count("{") > MAX_NESTING and _is_nested(value):
        raise InputError(f"{location}: not JSON that can be read (nested too deeply). {cure}")
    if HALF_CHARACTER in content.casefold() and _is_halved(json.dumps(value, ensure_ascii=False)):
        raise InputError(f"{location}: holds half a character (\\ud800 to \\udfff). Remove it.")
    return value


def json_reply(text: str | bytes) -> Any:
    """What the JSON of a reply holds; None where it is not JSON. For what a model wrote and nobody can mend.

    >>> json_reply('{"score": 1}'), json_reply("[" * 100_000), json_reply("9" * 5000)
    ({'score': 1}, None, None)
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # a ValueError also of an integer of 5,000 digits, and of bytes of no encoding
        return None


def _content(path: Path, cure: str) -> bytes:
    if not regular(path).is_file():
        raise InputError(f"{path}: no such file.{nearest_file(path)} {cure}")
    try:
        return path.read_bytes()
    except OSError as fault:
        raise InputError(unreadable(path, fault)) from None


def _text(line: str | bytes, location: str) -> str:
    if isinstance(line, str):
        return line
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as fault:
        number = line_of_byte(fault)
        where = f"line {number}, byte" if number > 1 else "byte"
        raise InputError(
            f"{location}: not UTF-8 ({where} {fault.start + 1}). Save it as UTF-8. {conversion(fault)}"
        ) from None


def _of_kind(kind: type, text: str, location: str, cure: str, strict: bool) -> Any:
    value = json_value(text, location, cure, strict=strict)
    if not isinstance(value, kind):
        wanted = "an object" if kind is dict else "a list"
        raise InputError(f"{location}: expected {wanted}, got {type(value).__name__}. {cure}")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON, write null")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _is_nested(value: Any) -> bool:
    """Whether it nests beyond ``MAX_NESTING``; level by level, since Python's own stack ends early."""
    level = [value]
    for _ in range(MAX_NESTING):
        level = [part for one in level for part in _parts(one) if isinstance(part, dict | list)]
    return bool(level)


def _parts(value: Any) -> Iterable[Any]:
    """What stands in a list or an object; nothing in any other value."""
    if isinstance(value, dict):
        return cast(dict[str, Any], value).values()
    return cast(list[Any], value) if isinstance(value, list) else ()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values, none of which stands there twice: one of the two would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key '{twice[:40]}' stands there twice")
    return found


STRICT: dict[str, Any] = {"parse_constant": _no_constant, "parse_float": _finite, "object_pairs_hook": _once}


def _is_halved(text: str) -> bool:
    return without_surrogates(text) != text
