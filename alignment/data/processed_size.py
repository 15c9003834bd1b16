"""The size of an image as a model's processor resizes it: the units of models that write pixels of what they see.

Qwen2-VL and Qwen2.5-VL are such models. Known by asking the processor, so no formula of its resizing stands here.
Left out: processors that crop an image or cut it into tiles, in which a pixel of the image has no one place.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from alignment.metrics.evaluated_row import StoredImage
from data_builders.imaging.images import pixels
from rewards.config.input_error import InputError


class ProcessedSizes:
    """Of images of any size; each size is asked for once.

    Raises: InputError if the processor crops or tiles.
    """

    def __init__(self, processor: Any) -> None:
        self.images = processor.image_processor
        self.known = dict[tuple[int, int], list[int]]()
        self._fixed = self._fixed_size()

    def of(self, images: Sequence[StoredImage | Image.Image]) -> list[list[int]]:
        """[width, height] of each entry of a row's ``images``, decoded or as Parquet stores it."""
        return [self.of_size(pixels(image).size) for image in images]

    def of_size(self, size: tuple[int, int]) -> list[int]:
        """[width, height] of an image of this (width, height) once it is processed."""
        if size not in self.known:
            self.known[size] = self._fixed or self._asked(size)
        return self.known[size]

    def _asked(self, size: tuple[int, int]) -> list[int]:
        """By the grid of patches that the processor makes of a blank image (Qwen's way)."""
        blank = Image.fromarray(np.zeros((size[1], size[0], 3), dtype=np.uint8))
        _, high, wide = self.images(images=[blank], return_tensors="np")["image_grid_thw"][0].tolist()
        return [wide * self.images.patch_size, high * self.images.patch_size]

    def _fixed_size(self) -> list[int] | None:
        """The one size to which the processor brings every image; None if it keeps about the image's own.

        ``size`` and the ``do_`` switches are the image processors' own vocabulary (transformers 4 and 5).
        """
        settings, size = self.images, dict(self.images.size or {})
        if getattr(settings, "merge_size", None) and getattr(settings, "patch_size", None):
            return None
        cut = any(getattr(settings, switch, False) for switch in ("do_center_crop", "do_image_splitting", "do_pad"))
        if cut or not (size.get("height") and size.get("width")):
            raise InputError(
                f"data.box_space: processed is not supported for this processor ({type(settings).__name__}), which "
                "crops, pads or tiles images. Let the model write 0-1000 or pixels."
            )
        return [int(size["width"]), int(size["height"])]
