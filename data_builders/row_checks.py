"""Rows of a data file checked before anything is computed from them: columns, types, and the headers of their pictures.

One pass in small batches; of a picture only its header is read, but of ``PIXEL_ROWS`` rows spread over the file every
pixel. Left out: chat templates and image sizes that a model cannot take (``alignment.data.processor_checks``).
"""

# pyarrow comes without types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import contextlib
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from data_builders.cards import refuse_newer, rules_of_rows
from data_builders.imaging.images import UNREADABLE, ImageError, decoded, upright_size
from rewards.config.input_error import InputError
from rewards.config.strict_yaml import regular
from rewards.dialogues.dialogue import read_dialogue
from rewards.row_types import KINDS, MESSAGES, is_messages, row_faults, shown
from rewards.rules.known_files import known_ids

PICTURES = ("images", "rejected_images", "mirror_images")
SAID = ("prompt", "completion", "chosen", "rejected")
SHOWN = 5
PIXEL_ROWS = 32
BATCH = 64
Row = dict[str, Any]
Size = tuple[int, int]


@dataclass(frozen=True)
class Check:
    """What is asked of a file. ``needed``: columns that no row may leave null; ``blocks``: content must be blocks.

    ``pixels``: of how many rows every pixel is read (None: of all). ``row``: only this one.
    """

    needed: tuple[str, ...] = ()
    blocks: bool = False
    pixels: int | None = PIXEL_ROWS
    row: int | None = None


def check_rows(file: Path, check: Check = Check()) -> None:
    """Raises InputError that names the first rows with a fault, each with its cure, and how many there are in all."""
    if faults := file_faults(file, check):
        raise InputError("\n".join(faults))


def file_faults(file: Path, check: Check = Check()) -> tuple[str, ...]:
    """A line for each of the first rows with a fault, and one for the rest; nothing for a sound file."""
    stamp = file.stat()
    rules_of_rows(file)
    return _file_faults(file.resolve(), str(file), (stamp.st_size, stamp.st_mtime_ns), check, tuple(known_ids()))


def open_parquet(file: Path) -> pq.ParquetFile:
    """The Parquet file, and the rule sets of the user's own that its folder keeps known from now on.

    Raises: InputError if it is damaged or none, its set is of a newer format than is known, or as ``rules_of_rows``.
    """
    refuse_newer(file)
    rules_of_rows(file)
    try:
        return pq.ParquetFile(regular(file))
    except (pa.ArrowException, OSError) as fault:
        raise InputError(f"{file}: {_damaged(fault)}") from None


def _damaged(fault: BaseException) -> str:
    return (
        f"not a whole Parquet file ({str(fault).splitlines()[0][:160] or type(fault).__name__}). Build or copy it anew."
    )


@lru_cache(maxsize=32)  # a recipe is read several times in one command
def _file_faults(
    file: Path, name: str, _stamp: tuple[int, int], check: Check, _known: tuple[str, ...]
) -> tuple[str, ...]:
    lines: list[str] = []
    number = 0
    memory = _Memory()
    try:
        for place, row, decode in _rows(open_parquet(file), check):
            faults = list(_faults(row, memory, check, decode=decode))
            number += bool(faults)
            if faults and number <= SHOWN:
                lines.append(f"{name}: row {_row_name(row, place)}: {faults[0]}")
    except (pa.ArrowException, OSError) as fault:
        return (f"{name}: {_damaged(fault)}",)
    if number > SHOWN:
        lines.append(f"{name}: {number} rows have such faults; the first {SHOWN} are named.")
    return tuple(lines)


def _row_name(row: Mapping[str, Any], place: int) -> str:
    return str(row["id"]) if row.get("id") is not None else f"{place} (counted from 0)"


def _rows(opened: pq.ParquetFile, check: Check) -> Iterator[tuple[int, Row, bool]]:
    """Place and known columns of each row, and whether all of its pixels are to be read."""
    names = opened.schema_arrow.names
    wanted = [name for name in names if name in KINDS or name in PICTURES]
    spread = _spread(opened.metadata.num_rows, check.pixels)
    place = 0
    for batch in opened.iter_batches(BATCH, columns=wanted):
        if check.row is not None and not place <= check.row < place + batch.num_rows:
            place += batch.num_rows
            continue
        for row in batch.to_pylist():
            if check.row in (None, place):
                yield place, row, spread is None or place in spread or check.row is not None
            place += 1


def _spread(rows: int, number: int | None) -> Collection[int] | None:
    """Places of ``number`` rows spread over all; None for all.

    >>> sorted(_spread(100, 4))
    [0, 33, 66, 99]
    """
    if number is None or number >= rows:
        return None
    return {round(k * (rows - 1) / max(1, number - 1)) for k in range(number)}


def _faults(row: Row, memory: "_Memory", check: Check, *, decode: bool) -> Iterator[str]:
    yield from memory.id_faults(row)
    yield from (f"'{name}': null; this row needs it." for name in check.needed if name in row and row[name] is None)
    said = {name: row[name] for name in SAID if row.get(name) is not None}
    yield from row_faults({name: value for name, value in row.items() if name not in PICTURES and name not in said})
    wrong = [f"'{k}': got {shown(v)}; expected {MESSAGES.wanted}." for k, v in said.items() if not is_messages(v)]
    yield from wrong or _message_faults(said, blocks=check.blocks)
    for column in PICTURES:
        if row.get(column) is None:
            continue
        if not isinstance(row[column], list):
            yield f"'{column}': got {shown(row[column])}; expected a list of pictures, [] for none."
            continue
        found = memory.sizes(row[column], decode=decode)
        unreadable = [(k, reason) for k, reason in enumerate(found) if isinstance(reason, str)]
        yield from (f"{column}[{k}]: {reason}" for k, reason in unreadable)
        if column == "images" and not unreadable and not wrong:
            yield from _image_faults(row, said, len(found))
            yield from _size_faults(row.get("image_size"), found)


class _Memory:
    """What rows before have shown: their ids, and the pictures of the last one, which the next one often shares."""

    def __init__(self) -> None:
        self.ids: set[Any] = set()
        self.last: dict[bool, tuple[Any, list[Size | str]]] = {}

    def id_faults(self, row: Row) -> Iterator[str]:
        """A row without a name where rows have names, and one that has another row's."""
        name = row.get("id")
        if "id" in row and name is None:
            yield "'id': null; every row needs a name of its own."
        elif isinstance(name, str | int):
            if name in self.ids:
                yield f"'id': '{name}' names another row too; give every row a name of its own."
            self.ids.add(name)

    def sizes(self, images: list[Any], *, decode: bool) -> list[Size | str]:
        """Of each picture its size, or what is wrong with it."""
        before, found = self.last.get(decode, (None, []))
        if images != before:
            found = [_size(image, decode=decode) for image in images]
            self.last[decode] = images, found
        return found


def _message_faults(said: Mapping[str, Any], *, blocks: bool) -> Iterator[str]:
    for name, messages in said.items():
        if blocks and any(isinstance(message["content"], str) for message in messages):
            yield f"'{name}': its content is a text; expected blocks, as in {MESSAGES.wanted}."
        if name == "prompt" and messages[-1]["role"] not in ("user", "tool"):
            yield f"'prompt': ends with the role '{messages[-1]['role']}'; expected 'user', whom the answer follows."
        if name != "prompt" and messages[0]["role"] != "assistant":
            yield f"'{name}': opens with the role '{messages[0]['role']}'; expected 'assistant'."


def _size(image: Any, *, decode: bool) -> Size | str:
    """The size of a picture by its header, or what is wrong with it."""
    if not isinstance(image, dict) or not (image.get("bytes") or image.get("path")):
        return f"{_emptiness(image)}; expected {{bytes, path}}. Write its bytes into the row, or leave it out."
    given = cast(dict[str, Any], image)
    source: Any = given.get("bytes") or given.get("path")
    if isinstance(source, str) and not Path(source).is_file():
        return f"no file {source} (from the working directory), and no bytes. Write the picture's bytes into the row."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as opened:
                if decode:
                    decoded(opened)
                return upright_size(opened)
    except ImageError as fault:
        return f"{fault}. Write the picture anew, or leave the row out."
    except UNREADABLE as fault:
        why = str(fault) if isinstance(fault, Image.DecompressionBombError) else "not a picture that can be opened"
        return f"{why} ({len(source)} bytes). Write the picture anew, or leave the row out."


def _emptiness(image: Any) -> str:
    if isinstance(image, dict):
        return "neither bytes nor path" if cast(dict[str, Any], image).get("bytes") is None else "0 bytes"
    return f"got {shown(image)}"


def _image_faults(row: Row, said: Mapping[str, Any], number: int) -> Iterator[str]:
    """Pictures that do not go with the words, the sizes or the boxes of the row."""
    messages = [message for name in ("prompt", "completion") for message in said.get(name, ())]
    if messages and not any(isinstance(message["content"], str) for message in messages):
        blocks = sum(block["type"] == "image" for message in messages for block in message["content"])
        blocks += 0 if row.get("completion") else _later_images(row.get("dialogue"))
        if blocks != number:
            yield (
                f"'images': {number} pictures for {blocks} image blocks in its messages; expected as many. "
                'Write one {"type": "image"} for each picture, where it stands.'
            )
    stated, numbers = row.get("image_size"), row.get("box_images")
    if isinstance(stated, list) and len(stated) != number:
        yield f"'image_size': holds {len(stated)} sizes for {number} pictures; expected one for each."
    if isinstance(numbers, list) and any(isinstance(n, int) and n > max(1, number) for n in numbers):
        yield f"'box_images': names image {max(numbers)} of {number}; count images from 1."


@lru_cache(maxsize=1024)  # the rows of one image share them
def _later_images(dialogue: Any) -> int:
    """How many images open later turns of a dialogue that is still to be held; of one that is damaged, none."""
    with contextlib.suppress(ValueError):  # of a damaged one another fault tells
        return sum(turn.images for turn in read_dialogue(dialogue).turns[1:]) if isinstance(dialogue, str) else 0
    return 0


def _size_faults(stated: Any, found: list[Any]) -> Iterator[str]:
    """Declared sizes that are not the pictures': boxes would be read in the units of another picture."""
    if stated is None or not KINDS["image_size"].holds(stated) or len(stated) != len(found):
        return
    for k, (recorded, size) in enumerate(zip(stated, found, strict=True)):
        if tuple(recorded) != size:
            yield (
                f"'image_size': [{recorded[0]}, {recorded[1]}] for images[{k}], which is {size[0]} wide and {size[1]} "
                "high (upright, by its EXIF tag). Mend the size, and boxes in its pixels with it."
            )
