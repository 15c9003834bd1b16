"""Rows of a CSV file by its header, where nothing shifts in silence.

A column that stands twice, an open quote and a wrong encoding are refused; a row with more cells than the header, or
fewer, comes as a ``Misfit``. Left out: types of cells, and other dialects than a separator of one character.
"""

import codecs
import csv
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from rewards.config.encodings import conversion
from rewards.config.input_error import InputError, nearest_file
from rewards.config.strict_yaml import line_of_byte, regular, unreadable

Row = dict[str, str]


class Misfit(str):
    """Why one row cannot be read: its cells are not as many as the columns."""


def any_header(_: list[str]) -> None:
    """A check of a header that lets every one pass."""


def csv_rows(
    path: Path,
    *,
    check: Callable[[list[str]], None] = any_header,
    separator: str = ",",
    encoding: str | None = None,
    cure: str = "",
) -> Iterator[Row | Misfit]:
    """Each row as its cells by column, or why it has none. ``check`` sees the header before the first row.

    ``encoding``: that of the source's key of this name; None where it has no such key and only UTF-8 is read.

    Raises: InputError if there is no such file, it is empty, has a column twice, leaves a quote open or is in another
    encoding.
    """
    with opened(path, encoding=encoding, cure=cure) as file:
        yield from (row for _, row in _rows(path, file, separator, check))


def numbered_rows(path: Path, *, separator: str = ",", cure: str = "") -> Iterator[tuple[int, Row | Misfit]]:
    """As ``csv_rows``, in UTF-8, each row with the line (from 1) that it begins on, columns without blanks around."""
    with opened(path, encoding=None, cure=cure) as file:
        rows = _rows(path, file, separator, lambda header: _check_once(path, [name.strip() for name in header]))
        for line, row in rows:
            yield line, row if isinstance(row, Misfit) else {name.strip(): cell for name, cell in row.items()}


@contextmanager
def opened(path: Path, *, encoding: str | None, cure: str) -> Generator[Iterator[str]]:
    """The lines of a table, read as it is in ``encoding``. ``cure``: what to do where it is not there.

    Raises: InputError if it is no regular file, may not be read, or is in another encoding, naming the line.
    """
    if not regular(path).is_file():
        raise InputError(f"{path}: no such file.{nearest_file(path)} {cure}".rstrip())
    try:
        is_utf8 = codecs.lookup(encoding or "utf-8").name == "utf-8"
        with path.open(encoding="utf-8-sig" if is_utf8 else encoding, newline="") as file:
            yield file
    except UnicodeDecodeError:
        raise InputError(f"{path}: {_not_encoded(path, encoding)}") from None
    except LookupError:
        raise InputError(f"{path}: not {encoding} (unknown encoding). Set encoding, such as utf-8 or cp1252.") from None
    except OSError as fault:
        raise InputError(unreadable(path, fault)) from None


def _rows(
    path: Path, file: Iterator[str], separator: str, check: Callable[[list[str]], None]
) -> Iterator[tuple[int, Row | Misfit]]:
    header: list[str] = []
    for number, (line, cells) in enumerate(_cells(path, file, separator)):
        if number == 0:
            header = cells
            if not any(header):
                break
            _check_once(path, header)
            check(header)
        elif len(cells) == len(header):
            yield line, dict(zip(header, cells, strict=True))
        else:
            yield line, Misfit(_misfit(number, line, len(cells), len(header), separator))
    if not any(header):
        raise InputError(
            f"{path}: it is empty, or its first line is; expected a line of column names, and a line for each record."
        )


def _cells(path: Path, file: Iterator[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row that is not empty, and the line that it begins on."""
    lines = _Lines(file)
    reader = csv.reader(lines, delimiter=separator)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as fault:
            raise InputError(
                f"{path}: line {line}: not readable as CSV ({fault}). Mend the quotes there: one may be left open."
            ) from None
        if lines.ended:  # a whole row never asks for a further line
            raise InputError(f"{path}: line {line}: a quote is opened that is never closed. Close it, or remove it.")
        if cells:
            yield line, cells


class _Lines:
    """Lines of a file, and whether more than all of them were asked for."""

    def __init__(self, file: Iterator[str]) -> None:
        self.file, self.ended = file, False

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        try:
            return next(self.file)
        except StopIteration:
            self.ended = True
            raise


def _check_once(path: Path, header: list[str]) -> None:
    twice = next((name for k, name in enumerate(header) if name and name in header[:k]), None)
    if twice is not None:
        raise InputError(f"{path}: the column '{twice}' stands there twice. Rename or remove one of the two.")


def _misfit(number: int, line: int, cells: int, columns: int, separator: str) -> str:
    cure = f"put a cell that holds '{separator}' in quotes" if cells > columns else "write empty cells too"
    return f"row {number} (line {line}) has {cells} cells, the header {columns}; {cure}, and close every quote"


def _not_encoded(path: Path, encoding: str | None) -> str:
    """Where a file is not in its encoding; read again, since a stream tells no place in the whole."""
    expected, cure = (
        encoding or "UTF-8",
        "Save it as UTF-8" + (", or set encoding, such as cp1252." if encoding else "."),
    )
    try:
        path.read_bytes().decode(encoding or "utf-8")
    except UnicodeDecodeError as fault:
        line, byte = line_of_byte(fault), fault.object[fault.start]
        hint = "" if encoding else f" {conversion(fault)}"
        return f"line {line}: not {expected} (byte {fault.start} of the file is {byte:#04x}). {cure}{hint}"
    return f"not {expected}. {cure}"
