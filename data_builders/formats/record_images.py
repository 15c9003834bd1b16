"""The pictures that a record names or holds: paths, bytes, ``{bytes, path}`` structs, base64; opened upright.

Left out: addresses. clinalign downloads no picture: a row must not depend on what stands at an address tomorrow.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, cast
from unicodedata import normalize

from PIL import Image

from data_builders.imaging.images import UNREADABLE, ImageError, decoded, inside, open_image, upright
from rewards.config.input_error import InputError
from rewards.config.strict_yaml import regular
from rewards.row_types import shown

IMAGE_KEYS = ("images", "image", "image_path", "image_paths")
"""Where a record's pictures stand: the first of these that is not null."""
PICTURE_FILE = re.compile(r"[^\n]{1,400}\.(?:png|jpe?g|webp|bmp|tiff?|gif)", re.IGNORECASE)
ADDRESS = re.compile(r"(?:https?|ftp|s3|gs|hf)://")
DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,")
ENCODED = re.compile(r"(?:iVBORw0KGgo|/9j/)[A-Za-z0-9+/\s]{400,}={0,2}\s*")
"""PNG or JPEG in base64 without a name of what it is; no path is that long."""


class RecordError(ValueError):
    """Why one record cannot be read; the message says what came and what was expected."""


@dataclass(frozen=True)
class RecordImage:
    """A picture as a record gives it: ``name`` of its file (empty: none), and its ``content`` where that is held."""

    name: str
    content: bytes | None = None


def record_image(value: Any) -> RecordImage:
    """The picture that a value names or holds.

    Raises: RecordError if it is an address, or no picture at all.

    >>> record_image("a.png").name, record_image({"bytes": b"...", "path": "b.png"}).name
    ('a.png', 'b.png')
    """
    if isinstance(value, bytes) and value:
        return RecordImage("", value)
    if isinstance(value, dict):
        return _of_struct(cast(dict[str, Any], value))
    if not isinstance(value, str) or not value.strip():
        raise RecordError(f"an image is {shown(value)}; expected a path, bytes, or {{bytes, path}}")
    text = value.strip()
    if ADDRESS.match(text):
        raise RecordError(f"the image {text[:80]} is an address; save the picture, and name its file")
    if DATA_URI.match(text) or ENCODED.fullmatch(text):
        return RecordImage("", _decoded(text.partition(",")[2] or text))
    return RecordImage(text.removeprefix("file://"))


def _of_struct(given: dict[str, Any]) -> RecordImage:
    """Of ``{bytes, path}`` and its likes; fields that are null are not there."""
    content, name = given.get("bytes"), given.get("path") or given.get("url") or given.get("image")
    if content:
        held = content if isinstance(content, bytes) else _decoded(str(content))
        return RecordImage(name if isinstance(name, str) else "", held)
    if isinstance(name, str | bytes | dict):
        return record_image(name)
    raise RecordError(f"an image has neither bytes nor a path, but {', '.join(given) or 'nothing'}")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise RecordError(f"an image is no base64 ({text[:20]}...)") from None


def record_images(values: dict[str, Any]) -> list[RecordImage]:
    """The pictures of a record, in its order; none where it names none.

    Raises: RecordError for what is no picture, and where a picture stands under a key that is not read: it would
    become a text without its picture.
    """
    given = next((values[key] for key in IMAGE_KEYS if values.get(key) not in (None, "", [])), None)
    if given is not None:
        return [record_image(one) for one in cast("list[Any]", given if isinstance(given, list) else [given])]
    for key, value in values.items():
        if key not in IMAGE_KEYS and "im" in key.casefold() and _is_picture(value):
            raise RecordError(f"'{key}' names a picture, but pictures are read from {', '.join(IMAGE_KEYS)}; rename it")
    return []


def _is_picture(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_is_picture, cast(list[Any], value)))
    if isinstance(value, dict):
        return bool(cast(dict[str, Any], value).get("bytes"))
    return isinstance(value, str) and PICTURE_FILE.fullmatch(value) is not None


def opened_image(image: RecordImage, root: Path) -> Image.Image:
    """The picture, upright and decoded to its last byte; paths start in ``root`` and stay inside it.

    Raises: RecordError if it is not there, leads out of the root, or cannot be decoded.
    """
    try:
        if image.content is None:
            return upright(open_image(_file(root, image.name)))
        with Image.open(BytesIO(image.content)) as found:
            return upright(decoded(found))
    except (ImageError, InputError) as fault:
        raise RecordError(str(fault).rstrip(".")) from None
    except UNREADABLE as fault:
        raise RecordError(f"an image of {len(image.content or b'')} bytes cannot be opened ({fault})") from None


def image_bytes(image: RecordImage, root: Path) -> bytes:
    """The picture's file as it is.

    Raises: RecordError if it is not there, or leads out of the root.
    """
    if image.content is not None:
        return image.content
    try:
        return regular(_file(root, image.name)).read_bytes()
    except (OSError, InputError) as fault:
        why = (fault.strerror or "cannot be read").lower() if isinstance(fault, OSError) else str(fault).rstrip(".")
        raise RecordError(f"{image.name}: {why}") from None


def _file(root: Path, name: str) -> Path:
    """The file of this name in the root, or the one whose name is written otherwise.

    The accents of a name are one character or two, as the system that packed it has it, and Windows parts folders by
    a backslash.
    """
    spellings = (name, normalize("NFC", name), normalize("NFD", name), name.replace("\\", "/"))
    files = [inside(root, spelling) for spelling in dict.fromkeys(spellings)]
    return next((file for file in files if file.exists()), files[0])


def image_name(image: RecordImage) -> str:
    """What the picture is called: its file, or by what it holds."""
    return image.name or hashlib.sha256(image.content or b"").hexdigest()[:16]
