"""Coordinate spaces: which units a model writes boxes in. Declared in the recipe, never guessed from the numbers.

``0-1`` … ``0-1024`` span the whole image on both axes (Qwen3-VL writes 0-1000, PaliGemma's and Kosmos-2's tokens
0-1024); ``pixels`` are those of an image of ``image_size``. The truth of a built data set is on its ``box_grid``.
"""

from collections.abc import Sequence
from typing import Literal

from rewards.box_text import Corners, Layout, written_boxes
from rewards.facts import Box
from rewards.strict_yaml import InputError

Space = Literal["pixels", "0-1", "0-100", "0-1000", "0-1024"]


def extent(space: Space, image_size: Sequence[float] | None = None) -> tuple[float, float]:
    """Width and height of the whole image in a space.

    Raises: InputError for ``pixels`` without an ``image_size``.

    >>> extent("0-1000"), extent("pixels", [640, 480])
    ((1000.0, 1000.0), (640, 480))
    """
    if space != "pixels":
        side = float(space[2:])
        return side, side
    if image_size is None or len(image_size) != 2 or min(image_size) <= 0:
        raise InputError("space 'pixels' needs image_size: [width, height], such as image_size: [640, 480].")
    return image_size[0], image_size[1]


def scaled(box: Box, source: tuple[float, float], target: tuple[float, float]) -> Box:
    """A box of an image of ``source`` (width, height) in the units of the same image at ``target``.

    >>> scaled((64, 48, 128, 96), (640, 480), (1000, 1000))
    (100.0, 100.0, 200.0, 200.0)
    """
    x, y = target[0] / source[0], target[1] / source[1]
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y


def half_open(box: Box) -> Box:
    """A box of an inclusive set (its last pixel is inside) in this project's half-open form.

    >>> half_open((0, 0, 9, 9))
    (0, 0, 10, 10)
    """
    return box[0], box[1], box[2] + 1, box[3] + 1


def in_truth_units(
    response: str,
    *,
    space: Space | None,
    grid: float,
    image_size: Sequence[float] | None = None,
    layout: Layout = "xyxy",
    corners: Corners = "reject",
) -> list[Box] | None:
    """Every box that a response states, in the truth's units; None where nothing looks like a box.

    ``space`` None: the response is in the truth's units already. Otherwise the truth spans 0..``grid`` on both axes.
    """
    written = written_boxes(response, layout=layout, corners=corners)
    if space is None or not written:
        return written
    source = extent(space, image_size)
    return [scaled(box, source, (grid, grid)) for box in written]


def true_boxes(boxes: Sequence[Sequence[float]]) -> list[Box]:
    """The boxes of a data row."""
    return [(b[0], b[1], b[2], b[3]) for b in boxes]
