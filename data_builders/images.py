"""Image files: only from inside their root, fully decoded or refused, written to the same bytes each time."""

from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from rewards.strict_yaml import InputError


class ImageError(ValueError):
    """An image that cannot be used; the message says why."""


def inside(root: Path, name: str) -> Path:
    """The file ``name`` under ``root``.

    Raises: InputError if the name leads out of the root, by ``..``, an absolute path or a link.
    """
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise InputError(f"image path '{name}' leaves the data root {root}. Paths in data must stay inside it.")
    return path


def open_image(path: Path) -> Image.Image:
    """The image, decoded to its last byte.

    Raises: ImageError if it is missing, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image.copy()
    except FileNotFoundError:
        raise ImageError(f"{path.name}: no such file") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as fault:
        raise ImageError(f"{path.name}: unreadable image ({fault})") from None


def png_bytes(image: Image.Image) -> bytes:
    """The image as PNG, without metadata: the same pixels give the same bytes."""
    buffer = BytesIO()
    image.save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()
