"""Units of boxes: those of a row's truth, and those in which a model writes. Declared, never guessed from the numbers.

The truth spans 0..``box_grid`` on both axes or, without a grid, the pixels of ``image_size``. ``data.box_space`` of a
recipe says what the model writes: ``grid`` (as the truth), ``0-1`` ... ``0-1024`` over the whole image (Qwen3-VL
writes 0-1000), ``pixels`` of the image, or ``processed``: pixels of the image as its processor resized it (Qwen2.5-VL).
PaliGemma's and Kosmos-2's tokens are 0-1024. A row with neither grid nor size shares one unit with the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from rewards.config.input_error import InputError
from rewards.reading.box_text import located_boxes, written_boxes
from rewards.rules.facts import Box

BoxSpace = Literal["grid", "0-1", "0-100", "0-1000", "0-1024", "pixels", "processed"]
Extent = tuple[float, float]
Sizes = Sequence[Sequence[float]]
"""[width, height] of each image of a row."""
HALF_A_PIXEL = 0.5
"""By how much a true box may stand out of its image."""


@dataclass(frozen=True)
class Units:
    """The units of one row. ``processed_size``: of each image as the processor resizes it (``data.box_space``)."""

    space: BoxSpace = "grid"
    box_grid: int | None = None
    image_size: Sizes | None = None
    processed_size: Sizes | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any], space: BoxSpace | None = None) -> "Units":
        """The units in a row's columns; ``space`` where the row does not say what is written to it (``box_space``)."""
        sizes = (row.get(name) for name in ("box_grid", "image_size", "processed_size"))
        return cls(space or row.get("box_space") or "grid", *sizes)

    def extent(self, image: int = 1) -> Extent | None:
        """Width and height of an image (counted from 1) in the truth's units; None where the row does not say.

        >>> Units(box_grid=100).extent(), Units(image_size=[[640, 480]]).extent()
        ((100.0, 100.0), (640.0, 480.0))
        """
        if self.box_grid is not None:
            return float(self.box_grid), float(self.box_grid)
        if self.image_size:
            return _size(self.image_size, image)
        return self._written(image) if self.space.startswith("0-") else None

    def scale(self, image: int = 1) -> Extent:
        """By what the model's numbers are multiplied, along x and y, to be in the truth's units.

        Raises: InputError for a space whose extent the row does not tell.
        """
        if self.space == "grid":
            return 1.0, 1.0
        truth = self.extent(image)
        if (self.box_grid is None and not self.image_size) or truth is None:
            raise InputError(
                f"box_space '{self.space}' says what is written, and the row has neither 'box_grid' nor 'image_size', "
                "the units of its true boxes. Add one of the two, or leave box_space out where both are in one unit."
            )
        written = self._written(image)
        return truth[0] / written[0], truth[1] / written[1]

    def read(self, box: Box, image: int = 1) -> Box:
        """A box as written, in the truth's units.

        >>> Units("pixels", box_grid=100, image_size=[[640, 480]]).read((320, 240, 640, 480))
        (50.0, 50.0, 100.0, 100.0)
        """
        x, y = self.scale(image)
        return (box[0] * x, box[1] * y, box[2] * x, box[3] * y) if (x, y) != (1.0, 1.0) else box

    def _written(self, image: int) -> Extent:
        if self.space.startswith("0-"):
            side = float(self.space[2:])
            return side, side
        sizes = self.processed_size if self.space == "processed" else self.image_size
        if sizes:
            return _size(sizes, image)
        column = "processed_size (known in training and eval)" if self.space == "processed" else "image_size"
        raise InputError(f"box_space '{self.space}' needs the column {column}: [[width, height]] of each image.")


def _size(sizes: Sizes, image: int) -> Extent:
    """The size of an image, or of the first where a box names one that the row does not have."""
    width, height = sizes[image - 1 if 0 < image <= len(sizes) else 0]
    if width <= 0 or height <= 0:
        raise InputError(f"image_size: got {[width, height]}; expected [width, height] in pixels, both above 0.")
    return float(width), float(height)


def answered_boxes(response: str, units: Units) -> list[Box] | None:
    """Every box that a response states, in the truth's units; None where it states neither boxes nor that none is.

    >>> answered_boxes("[0.5,0.5,1,1]", Units("0-1", box_grid=100))
    [(50.0, 50.0, 100.0, 100.0)]
    """
    written = written_boxes(response)
    return [units.read(box) for box in written] if written and units.space != "grid" else written


def true_boxes(boxes: Sequence[Sequence[float]], units: Units, images: Sequence[int] | None = None) -> list[Box]:
    """The boxes of a data row. ``images``: the image of each, counted from 1 (None: the first).

    Raises: InputError for one that is not inside its image, whose units are then wrong.
    """
    found = [(b[0], b[1], b[2], b[3]) for b in boxes]
    for box, image in zip(found, images or [1] * len(found), strict=True):
        if fault := outside(box, units, image):
            raise InputError(fault)
    return found


def outside(box: Box, units: Units, image: int = 1) -> str | None:
    """Why a true box is none, or cannot be in the units of its row; None if it is and can.

    >>> outside((0, 0, 10, 640), Units(box_grid=100))
    'its true box [0, 0, 10, 640] is not inside 100 x 100, which its box_grid or image_size says.'
    """
    if not (all(map(isfinite, box)) and box[0] < box[2] and box[1] < box[3]):
        return f"its true box {whole(box)} is none: expected x1 < x2 and y1 < y2, all finite."
    extent = units.extent(image)
    if extent is None:
        return None
    slack = HALF_A_PIXEL if units.box_grid is None and units.image_size else 1e-6 * extent[0]
    if min(box) >= -slack and max(box[0], box[2]) <= extent[0] + slack and max(box[1], box[3]) <= extent[1] + slack:
        return None
    return (
        f"its true box {whole(box)} is not inside {extent[0]:g} x {extent[1]:g}, which its box_grid or image_size says."
    )


def whole(box: Sequence[float]) -> list[float]:
    """The numbers of a box as they are printed: without a point where they are whole.

    >>> whole((10.0, 20.0, 30.5, 40.0))
    [10, 20, 30.5, 40]
    """
    return [int(v) if isfinite(v) and v == int(v) else v for v in box]


def in_written_units(answer: str, units: Units, images: Sequence[int] | None = None) -> str:
    """An answer whose boxes are in the truth's units, as a model writes it that states them in ``units.space``.

    ``images``: the image of each box, counted from 1 (None: the first).

    >>> in_written_units("nodule [[10,20,30,40]]", Units("0-1000", box_grid=100))
    'nodule [[100,200,300,400]]'
    """
    if units.space == "grid" or units.extent() is None:
        return answer
    digits = 4 if units.space == "0-1" else 0
    parts, end = list[str](), 0
    for number, located in enumerate(located_boxes(answer)):
        scale = units.scale(images[number] if images and number < len(images) else 1)
        numbers = (v / s for v, s in zip(located.box, scale * 2, strict=True))
        parts += [answer[end : located.start], "[" + ",".join(f"{round(v, digits):g}" for v in numbers) + "]"]
        end = located.end
    return "".join([*parts, answer[end:]])
