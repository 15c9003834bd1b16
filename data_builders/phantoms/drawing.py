"""What phantoms are drawn with: smooth steps and ridges, noise, and the box of what was drawn."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rewards.rules.facts import Box

Field = NDArray[np.floating[Any]]
"""One value a pixel, or one a row (n, 1) or a column (1, n) of pixels."""


@cache
def axis_of(size: int) -> Field:
    """Centres of pixels from -1 to 1."""
    return ((np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0).astype(np.float32)


def ramp(distance: Field, width: float) -> Field:
    """0 to 1 smoothly over ``width``, 0.5 where the distance is 0."""
    t = distance * np.float32(1.0 / width)
    t += np.float32(0.5)
    np.minimum(np.maximum(t, 0.0, out=t), 1.0, out=t)
    return t * t * (3.0 - 2.0 * t)


def bump(distance: Field, width: float) -> Field:
    """1 where the distance is 0, falling smoothly to 0 at ``width`` on either side."""
    t = distance * np.float32(1.0 / width)
    np.maximum(1.0 - t * t, 0.0, out=t)
    return t * t


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Field:
    """Noise of standard deviation about 0.7 that varies over ``size / cells`` pixels."""
    small = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)


def extent(strength: Field) -> Box:
    """The half-open box of the pixels with at least half the greatest strength."""
    inside = strength >= 0.5 * strength.max()
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
