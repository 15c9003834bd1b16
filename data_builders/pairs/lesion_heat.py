"""Where a lesion is: heat maps ``(image, finding) -> (heat, score)``, and those that need no model.

Given boxes and given masks are here; a VLM's attention and CLIP-like similarity are in
``alignment/models/heat_maps.py``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_builders.imaging.images import ImageError
from rewards.rules.facts import Box, Facts

Heat = NDArray[np.float32]
"""One value a pixel (height, width), not negative; 0 where nothing points to the lesion."""
Mask = NDArray[np.bool_]


class HeatMap(Protocol):
    """Where a finding is (None: any finding), and how sure that is, in [0, 1]."""

    def __call__(self, image: Image.Image, finding: str | None) -> tuple[Heat, float]:
        """The heat (height, width) of the image's size, and the score."""
        ...


def checked(heat: Heat, *, size: tuple[int, int]) -> Heat:
    """The same heat map.

    Raises: ImageError if it is not of this size (width, height), not finite, or negative.
    """
    if heat.shape != (size[1], size[0]):
        found = " x ".join(str(side) for side in reversed(heat.shape))
        raise ImageError(f"its heat map is {found}, but the image is {size[0]} x {size[1]} pixels")
    if not np.isfinite(heat).all():
        raise ImageError("its heat map holds values that are not numbers")
    if heat.min() < 0:
        raise ImageError("its heat map holds negative values")
    return heat


@dataclass(frozen=True)
class GivenBoxes:
    """A heat map from known boxes: 1 within the boxes of a finding, 0 outside; sure of it (score 1).

    ``grid``: the boxes are in units of a grid x grid image; None: in pixels. ``findings``: only these (None: all).
    """

    facts: Facts
    grid: int | None = None
    findings: tuple[str, ...] | None = None

    def __call__(self, image: Image.Image, finding: str | None = None) -> tuple[Heat, float]:
        """The heat of one finding, or of every finding; the score is 0 where there is no box."""
        boxes = list(self._boxes(finding))
        scale = (1.0, 1.0) if self.grid is None else (image.width / self.grid, image.height / self.grid)
        return heat_of_boxes(boxes, size=image.size, scale=scale), float(bool(boxes))

    def _boxes(self, finding: str | None) -> Iterable[Box]:
        for name, known in self.facts.present().items():
            if finding in (None, name) and (self.findings is None or name in self.findings):
                yield from known.boxes


@dataclass(frozen=True)
class GivenMasks:
    """A heat map from known masks (height, width) by finding, such as a reader's contour; sure of it (score 1)."""

    masks: dict[str, NDArray[Any]]

    def __call__(self, image: Image.Image, finding: str | None = None) -> tuple[Heat, float]:
        """The mask of one finding, or of all together; the score is 0 where there is none.

        Raises: ImageError if a mask is of another size than the image.
        """
        heats = [
            checked(np.asarray(m, np.float32), size=image.size) for n, m in self.masks.items() if finding in (None, n)
        ]
        heat = np.maximum.reduce(heats) if heats else np.zeros((image.height, image.width), np.float32)
        return heat, float(bool(heats))


def heat_of_boxes(boxes: Iterable[Box], *, size: tuple[int, int], scale: tuple[float, float] = (1.0, 1.0)) -> Heat:
    """1 in every pixel that a box touches, 0 elsewhere; boxes times ``scale`` are in pixels of ``size``.

    >>> heat_of_boxes([(1, 0, 2, 2)], size=(3, 2)).tolist()
    [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]
    """
    heat = np.zeros((size[1], size[0]), np.float32)
    for x1, y1, x2, y2 in boxes:
        left, top = max(0, int(np.floor(x1 * scale[0]))), max(0, int(np.floor(y1 * scale[1])))
        heat[top : int(np.ceil(y2 * scale[1])), left : int(np.ceil(x2 * scale[0]))] = 1.0
    return heat
