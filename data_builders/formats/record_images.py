"""The pictures that a record names or holds: paths, bytes, ``{bytes, path}`` structs, base64; opened upright.

Left out: addresses. clinalign downloads no picture: a row must not depend on what stands at an address tomorrow.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, cast
from unicodedata import normalize

import numpy as np
from PIL import Image

from data_builders.imaging.images import UNREADABLE, ImageError, decoded, inside, png_bytes, upright
from rewards.config.input_error import InputError
from rewards.config.strict_yaml import regular
from rewards.row_types import shown

IMAGE_KEYS = ("images", "image", "image_path", "image_paths")
"""Where a record's pictures stand: the first of these that is not null."""
REJECTED_KEYS = ("rejected_images", "rejected_image")
NO_IMAGE_KEYS = ("id", "study", "patient", "question", "answer", *REJECTED_KEYS, "mirror_images")
"""Keys that may be called like a picture's file and are none of a record's own."""
PICTURE_FILE = re.compile(r"[^\n]{1,400}\.(?:png|jpe?g|webp|bmp|tiff?|gif|dcm|dicom|nii(?:\.gz)?)", re.IGNORECASE)
ADDRESS = re.compile(r"(?:https?|ftp|s3|gs|hf)://")
DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,")
ENCODED = re.compile(r"(?:iVBORw0KGgo|/9j/)[A-Za-z0-9+/\s]{400,}={0,2}\s*")
"""PNG or JPEG in base64 without a name of what it is; no path is that long."""
LONGEST_NAME = 500
IN_TEXT = re.compile(r"<img>([^<>]+)</img>", re.IGNORECASE)
LAYERED = ("TIFF", "GIF", "WEBP", "PNG")
"""Formats of which one file may hold several pictures (a phone's MPO does too: its second is a preview)."""


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
    first = next((key for key in IMAGE_KEYS if values.get(key) not in (None, "", [])), None)
    given = [] if first is None else values[first]
    images = [record_image(one) for one in cast("list[Any]", given if isinstance(given, list) else [given])]
    for key, value in values.items():
        if key not in (first, *NO_IMAGE_KEYS) and _is_picture(value) and _is_another(key, value, images):
            known = f"from {first} here" if key in IMAGE_KEYS else f"from {', '.join(IMAGE_KEYS)}"
            raise RecordError(f"'{key}' names a picture, but pictures are read {known}; rename it, or leave it out")
    return images


def _is_another(key: str, value: Any, images: list[RecordImage]) -> bool:
    """Whether a picture is none of those that are read: without any, it is; beside them, by its key and its name."""
    if not images or "im" not in key.casefold():
        return not images
    known = {Path(image.name).name for image in images}
    is_held = any(image.content is not None for image in images)  # whose name may be that of another key
    return not is_held and not {Path(name).name for name in picture_names(value)} & known


def _is_picture(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_is_picture, cast(list[Any], value)))
    if isinstance(value, dict):
        given = cast(dict[str, Any], value)
        return bool(given.get("bytes")) or _is_picture(given.get("path"))
    if isinstance(value, bytes):
        return bool(value)
    return isinstance(value, str) and PICTURE_FILE.fullmatch(value) is not None


def picture_names(value: Any, *, is_named: bool = False) -> Iterator[str]:
    """Every text in a record that is called like a picture's file, or stands where those are (``is_named``)."""
    if isinstance(value, dict):
        for key, one in cast(dict[str, Any], value).items():
            yield from picture_names(one, is_named=key in (*IMAGE_KEYS, *REJECTED_KEYS))
    elif isinstance(value, list):
        for one in cast(list[Any], value):
            yield from picture_names(one, is_named=is_named)
    elif isinstance(value, str):
        is_name = (is_named and len(value) < LONGEST_NAME) or PICTURE_FILE.fullmatch(value)
        yield from [value] if is_name else IN_TEXT.findall(value)


def opened_image(image: RecordImage, root: Path) -> Image.Image:
    """The picture, upright and decoded to its last byte; paths start in ``root`` and stay inside it.

    Raises: RecordError if it is not there, leads out of the root, or cannot be decoded.
    """
    try:
        source = picture_file(root, image.name) if image.content is None else BytesIO(image.content)
        with Image.open(regular(source) if isinstance(source, Path) else source) as found:
            if (number := _num_pictures(found)) > 1:
                raise RecordError(f"{image.name or 'an image'}: holds {number} pictures; save each as a file")
            return _in_8_bits(upright(decoded(found)).copy())
    except RecordError:  # a ValueError too, but complete
        raise
    except FileNotFoundError:
        raise RecordError(f"{image.name}: no such file") from None
    except ImageError as fault:
        raise RecordError(f"{image.name}: {fault}".removeprefix(": ")) from None
    except InputError as fault:
        raise RecordError(str(fault).rstrip(".")) from None
    except UNREADABLE as fault:
        if image.content is None:
            raise RecordError(f"{image.name}: unreadable image ({fault})") from None
        raise RecordError(f"an image of {len(image.content)} bytes cannot be opened ({fault})") from None


def _num_pictures(image: Image.Image) -> int:
    return int(getattr(image, "n_frames", 1)) if image.format in LAYERED else 1


def _is_deep(image: Image.Image) -> bool:
    """Whether its grey values may go beyond 255."""
    return image.mode == "F" or image.mode.startswith("I")


def _in_8_bits(image: Image.Image) -> Image.Image:
    """A grey image of 8 bits, of a deeper one by its own range: every processor would cut that off at 255.

    Raises: RecordError if not every value is a number.
    """
    if not _is_deep(image):
        return image
    values = np.asarray(image, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise RecordError("an image has grey values that are no numbers (NaN or infinite); save it anew")
    return Image.fromarray(np.rint(255 * (values - low) / max(high - low, 1e-9)).astype(np.uint8))


def image_bytes(image: RecordImage, root: Path) -> bytes:
    """The picture's file as it is; of a grey one of more than 8 bits, what ``opened_image`` makes of it.

    Raises: RecordError if it is not there, leads out of the root, or holds several pictures.
    """
    content = _content(image, root)
    try:
        with Image.open(BytesIO(content)) as found:
            is_as_it_is = not _is_deep(found) and _num_pictures(found) == 1
    except UNREADABLE:  # told where it is opened
        return content
    return content if is_as_it_is else png_bytes(opened_image(RecordImage(image.name, content), root))


def _content(image: RecordImage, root: Path) -> bytes:
    if image.content is not None:
        return image.content
    try:
        return regular(picture_file(root, image.name)).read_bytes()
    except (OSError, InputError) as fault:
        why = (fault.strerror or "cannot be read").lower() if isinstance(fault, OSError) else str(fault).rstrip(".")
        raise RecordError(f"{image.name}: {why}") from None


def picture_file(root: Path, name: str) -> Path:
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
