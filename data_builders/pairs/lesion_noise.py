"""Lesion noise: the image side of MMedPO's preference data. A lesion is noised, all else stays to the last bit.

A heat map says where the lesion is (``lesion_heat.py``). A mask policy makes a mask of it, and the masked pixels are
noised: by the paper's diffusion blend (Zhu et al. 2024, section 3.1), or by the replacement that the released code
does in its place. Left out: inpainting (a healthy look-alike would need a generator of its own).
"""

import logging
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_builders.imaging.images import ImageError
from data_builders.pairs.lesion_heat import Heat, Mask, checked
from data_builders.pairs.settings import NoiseSettings

LARGEST_SHARE = 0.5
"""Above this share of noised pixels, the noise is no longer local."""
REPLACEMENT_STD = 10.0
"""Standard deviation of the released code's noise, in units of 0..255."""
PLAIN_MODES = ("L", "LA", "RGB", "RGBA", "I;16")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Noised:
    """A noised image of the same size. ``share`` of its pixels were noised, in (0, 1]."""

    image: Image.Image
    share: float


@dataclass
class NoiseTally:
    """What was noised, and what was not and why. ``shares``: of noised pixels, one an image."""

    shares: list[float] = field(default_factory=list[float])
    skipped: Counter[str] = field(default_factory=Counter[str])

    def report(self) -> dict[str, Any]:
        """The figures for a card; warns where more than half of an image was noised."""
        shares = np.array(self.shares or [0.0])
        too_large = int((shares > LARGEST_SHARE).sum())
        if too_large:
            log.warning(
                "lesion noise covers more than half of %d of %d images: it is no longer local. Tighten mask and level.",
                too_large,
                len(self.shares),
            )
        mean, median, largest = (float(figure) for figure in (shares.mean(), np.median(shares), shares.max()))
        return {
            "images": len(self.shares),
            "noised_share": {"mean": mean, "median": median, "max": largest},
            "above_half": too_large,
            "skipped": dict(self.skipped),
        }


@cache
def alpha_bar(num_steps: int = 1000) -> NDArray[np.floating[Any]]:
    """How much of the signal's power is left at each step (num_steps,): the sigmoid schedule inherited from POVID.

    >>> [round(float(alpha_bar()[t]), 6) for t in (0, 500, 999)]
    [0.999978, 0.744799, 0.081249]
    """
    logits = np.linspace(-6.0, 6.0, num_steps)
    beta = (5e-3 - 1e-5) / (1.0 + np.exp(-logits)) + 1e-5
    return np.cumprod(1.0 - beta)


def noised(image: Image.Image, heat: Heat, settings: NoiseSettings, rng: np.random.Generator) -> Noised | None:
    """The image with its lesion noised, or None where the heat shows no lesion.

    Raises: ImageError if the heat is not of the image's size, not finite or negative, or the image cannot be noised.
    """
    mask = mask_of(checked(heat, size=image.size), settings)
    if not mask.any():
        return None
    return noised_under(image, mask, settings, rng, heat=heat if settings.soft else None)


def noised_under(
    image: Image.Image,
    mask: Mask,
    settings: NoiseSettings,
    rng: np.random.Generator,
    *,
    heat: Heat | None = None,
) -> Noised:
    """The image with the pixels under a mask noised; all others, and any transparency, stay to the last bit."""
    bare = plain(image)
    pixels = np.array(bare)
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    colours = planes.shape[2] - (bare.mode in ("LA", "RGBA"))
    rows, columns = np.nonzero(mask)
    before = planes[rows, columns, :colours].astype(np.float32)
    low, high = _range_of(pixels)
    if settings.mode == "diffusion":
        strength = None if heat is None else (heat[rows, columns] / heat.max())[:, None]
        after = _blended(before, low, high, settings.step, rng, strength)
    else:
        std = np.float32(REPLACEMENT_STD * (high - low) / 255.0)
        after = std * rng.standard_normal(before.shape, dtype=np.float32) + np.float32(low)
    planes[rows, columns, :colours] = _stored(after, pixels.dtype, low, high, wrap=settings.wrap)
    return Noised(Image.fromarray(pixels), float(mask.mean()))


def _blended(
    before: NDArray[np.float32],
    low: float,
    high: float,
    step: int,
    rng: np.random.Generator,
    strength: NDArray[np.float32] | None,
) -> NDArray[np.floating[Any]]:
    """Sqrt(abar) x h + sqrt(1 - abar) eps h + x (1 - h), with x in [-1, 1] and eps ~ N(0, 1) (section 3.1)."""
    kept = np.float32(np.sqrt(alpha_bar()[step]))
    spread = np.float32(np.sqrt(1.0 - alpha_bar()[step]))
    middle, half = np.float32((high + low) / 2), np.float32(max((high - low) / 2, 0.5))
    x, noise = (before - middle) / half, rng.standard_normal(before.shape, dtype=np.float32)
    h = np.float32(1.0) if strength is None else strength
    return (x * (kept * h + (1 - h)) + spread * h * noise) * half + middle


def _stored(values: NDArray[Any], kind: np.dtype[Any], low: float, high: float, *, wrap: bool) -> NDArray[Any]:
    whole = np.rint(values).astype(np.int32)
    return (whole if wrap else np.clip(whole, round(low), round(high))).astype(kind)


def _range_of(pixels: NDArray[Any]) -> tuple[float, float]:
    """Black and white. A 16-bit file does not say how many of its bits are in use, so its own range is taken."""
    return (0.0, 255.0) if pixels.dtype == np.uint8 else (float(pixels.min()), float(pixels.max()))


def plain(image: Image.Image) -> Image.Image:
    """The image in a mode that can be noised: grey or colour, with or without transparency, or 16-bit grey.

    Palettes and other colour spaces become RGB (RGBA where transparent), black and white becomes grey.

    Raises: ImageError for floating-point pixels or whole numbers beyond 16 bits.
    """
    if image.mode in PLAIN_MODES:
        return image
    if image.mode in ("I", "I;16B", "I;16L", "I;16N"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"its pixels run from {values.min()} to {values.max()}, beyond 16 bits; rescale them")
        return Image.fromarray(values.astype(np.uint16))
    if image.mode == "F":
        raise ImageError("its pixels are floating-point numbers without a range; store them as 8 or 16 bits")
    if image.mode == "1":
        return image.convert("L")
    return image.convert("RGBA" if image.mode in ("PA", "RGBa") or "transparency" in image.info else "RGB")


def mask_of(heat: Heat, settings: NoiseSettings) -> Mask:
    """Which pixels are noised. A flat map points nowhere: none, but for ``mass``, where it means everywhere."""
    return _POLICIES[settings.mask](heat, settings.level)


def _mass(heat: Heat, level: float) -> Mask:
    if level >= 1.0:
        return heat > 0
    total = heat.sum(dtype=np.float64)
    # Pixels at or below this hold at most 1 - level of the heat together, so they are never needed.
    falling = np.sort(heat[heat > (1.0 - level) * total / heat.size])[::-1]
    if not falling.size:
        return heat > 0
    rank = int(np.searchsorted(np.cumsum(falling, dtype=np.float64), level * total))
    return heat >= falling[min(rank, falling.size - 1)]


def _quantile(heat: Heat, level: float) -> Mask:
    rank = int(level * (heat.size - 1))
    return (heat >= np.partition(heat, rank, axis=None)[rank]) & (heat > heat.min())


def _mean_std(heat: Heat, level: float) -> Mask:
    return heat > heat.mean(dtype=np.float64) + level * heat.std(dtype=np.float64)


def _box(heat: Heat, level: float) -> Mask:
    mask = np.zeros(heat.shape, dtype=bool)
    hot = (heat >= level * heat.max()) & (heat > heat.min())
    if hot.any():
        rows, columns = np.flatnonzero(hot.any(axis=1)), np.flatnonzero(hot.any(axis=0))
        mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return mask


_POLICIES = {"mass": _mass, "quantile": _quantile, "mean_std": _mean_std, "box": _box}


def elsewhere(mask: Mask, rng: np.random.Generator, *, tries: int = 16) -> Mask:
    """A control: the mask moved (cyclically) to where it meets the lesion least, without the lesion itself."""
    moves = rng.integers(0, mask.shape, size=(tries, 2))
    moved = [np.roll(mask, tuple(move), axis=(0, 1)) & ~mask for move in moves]
    return max(moved, key=lambda other: int(other.sum()))
