"""Image files: only from inside their root, fully decoded or refused, written to the same bytes each time.

Left out: DICOM and volumes (a source reads those), and resizing (the model's processor does that).
"""

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageOps

from rewards.config.input_error import InputError
from rewards.config.strict_yaml import regular

PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
LYING = (5, 6, 7, 8)
"""EXIF orientations in which width and height change places."""
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What Pillow raises for a damaged file; its ``UnidentifiedImageError`` is an OSError."""


class ImageError(ValueError):
    """An image that cannot be used; the message says why."""


def inside(root: Path, name: str) -> Path:
    """The file ``name`` under ``root``.

    Raises: InputError if the name leads out of the root, by ``..``, an absolute path or a link.
    """
    try:
        path = (root / name).resolve()
    except (ValueError, RuntimeError, OSError):  # a null byte, or links that lead to themselves
        raise InputError(f"image path {name!r}: no path can be made of it. Mend it in the data.") from None
    if not path.is_relative_to(root.resolve()):
        raise InputError(f"image path '{name}' leaves the data root {root}. Paths must stay inside it.")
    return path


def open_image(path: Path) -> Image.Image:
    """The image, decoded to its last byte.

    Raises: ImageError if it is missing, truncated, no image or no regular file.
    """
    try:
        with Image.open(regular(path)) as image:
            return decoded(image).copy()
    except FileNotFoundError:
        raise ImageError(f"{path.name}: no such file") from None
    except ImageError as fault:
        raise ImageError(f"{path.name}: {fault}") from None
    except InputError:
        raise ImageError(f"{path.name}: not a regular file but a pipe, a device or a socket") from None
    except UNREADABLE as fault:
        raise ImageError(f"{path.name}: unreadable image ({fault})") from None


def decoded(image: Image.Image | None) -> Image.Image:
    """The same image with its pixels in memory: Pillow opens a truncated file without complaint.

    Raises: ImageError if there is no image, or any of its pixels is missing.
    """
    if image is None:
        raise ImageError("there is no image")
    try:
        image.load()
    except UNREADABLE as fault:
        image.close()
        raise ImageError(f"unreadable image ({fault})") from None
    if not image.width or not image.height:
        raise ImageError("the image has no pixels")
    return image


def is_turned(image: Image.Image) -> bool:
    """Whether an opened file's EXIF tag says that the picture stands otherwise than its pixels; no pixel is read."""
    if image.format == "PNG" and "exif" not in image.info:  # to ask it would read all of it
        return False
    return image.getexif().get(ExifTags.Base.Orientation, 1) > 1


def upright(image: Image.Image) -> Image.Image:
    """The opened file as it stands by its EXIF tag, as ``datasets`` decodes it."""
    return ImageOps.exif_transpose(image) if is_turned(image) else image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of ``upright``, by the header alone."""
    lies = is_turned(image) and image.getexif()[ExifTags.Base.Orientation] in LYING
    return (image.height, image.width) if lies else (image.width, image.height)


def png_bytes(image: Image.Image) -> bytes:
    """The image as PNG, without metadata: the same pixels give the same bytes.

    A colour space that PNG lacks (CMYK, YCbCr) becomes RGB.
    """
    bare = image.copy() if image.mode in PNG_MODES else image.convert("RGB")
    transparency = bare.info.get("transparency")
    bare.info = {} if transparency is None else {"transparency": transparency}
    buffer = BytesIO()
    bare.save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def pixels(image: Any) -> Image.Image:
    """The picture of an ``images`` entry: as ``datasets`` decodes it, or as Parquet stores it."""
    if isinstance(image, Image.Image):
        return image
    return upright(Image.open(BytesIO(image["bytes"]) if image["bytes"] else image["path"]))


def image_key(image: Image.Image) -> str:
    """A short name of the pixels, the same wherever the image comes from."""
    return hashlib.sha256(image.tobytes()).hexdigest()[:16]
