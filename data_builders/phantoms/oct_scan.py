"""Drawing a phantom OCT B-scan: retinal layers, their lesions, and the exact box of each.

Lengths are in pixels of a 128-pixel image and scale with ``size``; y points down, so a lesion lifts layers to smaller
y. Each column has four curves: Bruch's membrane, the retinal pigment epithelium (RPE) above it, the outer edge of the
neurosensory retina above that, and the inner limiting membrane (ILM). What lies between two curves is a lesion.
Left out: vessels' shadows, motion artefacts, vitreous traction, the optic disc.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_builders.phantoms.drawing import Field, bump, extent, ramp, smooth_noise
from rewards.rules.facts import Box

Eye = Literal["left", "right"]
Curve = NDArray[np.floating[Any]]
"""One value a column."""

PICTURE_SIZE = 128
FOVEA_WIDTH = 12.0
"""Half-width of what counts as the fovea, and of the foveal pit."""
LAYERS = (
    (-0.10, 0.05), (0.00, 0.62), (0.05, 0.70), (0.09, 0.22), (0.12, 0.32), (0.15, 0.20), (0.38, 0.16), (0.42, 0.50),
    (0.48, 0.46), (0.52, 0.24), (0.62, 0.24), (0.66, 0.50), (0.76, 0.46), (0.80, 0.34), (0.88, 0.36), (0.91, 0.80),
    (1.00, 0.78), (1.03, 0.05),
)  # fmt: skip
"""Brightness by depth: 0 at the outer edge (ellipsoid zone), 1 at the ILM (nerve fibres); dark: the nuclear layers."""
OUTER_NUCLEAR = 0.40
"""Depth up to which the outer layers reach; at the fovea they fill most of the retina."""


@dataclass(frozen=True)
class Lesion:
    """One lesion: its centre column, half-width and height in pixels of a 128-pixel image.

    ``kind``: a finding's name. ``texture``: which kind of PED (``serous``, ``drusenoid``, ``fibrovascular``) or of
    hypertransmission (``irora``, ``crora``). ``lift``: for cysts and foci, how far above the outer edge they lie, as a
    share of the retina's thickness.
    """

    kind: str
    x: float
    half_width: float
    height: float
    texture: str = ""
    lift: float = 0.0


@dataclass(frozen=True)
class Retina:
    """What is one eye's own, apart from lesions. Thicknesses and depths in pixels, ``nasal`` is 1 to the right."""

    texture_seed: int
    eye: Eye
    fovea: float
    thickness: float
    pit: float
    choroid: float

    @property
    def nasal(self) -> int:
        """1 where the nose is to the right of the picture (a right eye), else -1."""
        return 1 if self.eye == "right" else -1


@dataclass
class _Scan:
    """One image while it is drawn: coordinates and the curves, in pixels of a 128-pixel image."""

    x: Curve
    y: Field
    bruch: Curve
    rpe: Curve
    outer: Curve
    ilm: Curve
    film: Field
    noise: Field

    def between(self, upper: Curve, lower: Curve) -> Field:
        """1 between two curves, with edges one pixel soft."""
        return ramp(self.y - upper, 1.0) * ramp(lower - self.y, 1.0)


def draw(
    retina: Retina, lesions: tuple[Lesion, ...], *, view: np.random.Generator, size: int
) -> tuple[Image.Image, dict[str, tuple[Box, ...]]]:
    """The B-scan and the boxes of each kind of lesion, in pixels of the image, from left to right.

    ``view`` gives position, tilt, light and speckle, none of which depends on the lesions.
    """
    shift, tilt, bend = view.uniform(-4.0, 4.0), view.uniform(-0.05, 0.05), view.uniform(0.0, 0.0016)
    gain, floor = view.uniform(0.88, 1.08), view.uniform(0.0, 0.03)
    axis = ((np.arange(size, dtype=np.float32) + 0.5) * (PICTURE_SIZE / size)).astype(np.float32)
    texture = np.random.default_rng(retina.texture_seed)
    around = axis - np.float32(retina.fovea)
    bruch = 88.0 + shift + tilt * around - bend * around**2
    scan = _scan(axis, bruch.astype(np.float32), retina, lesions, smooth_noise(texture, size, 40))
    scan.film = _layers(scan, retina, texture)
    strengths = [(lesion, _DRAWN[lesion.kind](scan, lesion)) for lesion in lesions if lesion.kind in _FIRST]
    _paint_rpe(scan, lesions)
    strengths += [(lesion, _DRAWN[lesion.kind](scan, lesion)) for lesion in lesions if lesion.kind not in _FIRST]
    speckle = view.gamma(9.0, 1.0 / 9.0, (size, size)).astype(np.float32)
    light = scan.film * (0.55 + 0.45 * speckle) * np.float32(gain) + np.float32(floor)
    light += 0.022 * np.abs(view.standard_normal((size, size), dtype=np.float32))
    pixels = np.rint(np.clip(light, 0.0, 1.0) * 255.0).astype(np.uint8)
    return Image.fromarray(pixels), _boxes(strengths)


def _boxes(strengths: list[tuple[Lesion, Field]]) -> dict[str, tuple[Box, ...]]:
    found: dict[str, list[Box]] = {}
    for lesion, strength in sorted(strengths, key=lambda pair: pair[0].x):
        found.setdefault(lesion.kind, []).append(extent(strength))
    return {kind: tuple(boxes) for kind, boxes in found.items()}


def _scan(x: Curve, bruch: Curve, retina: Retina, lesions: tuple[Lesion, ...], noise: Field) -> _Scan:
    rpe = bruch - _heights(x, lesions, _UNDER_RPE)
    outer = rpe - 2.0 - _heights(x, lesions, _UNDER_RETINA)
    ilm = outer - _thickness(x, retina, lesions)
    return _Scan(x, x[:, None], bruch, rpe, outer, _smoothed(ilm, x), np.zeros_like(noise), noise)


def _thickness(x: Curve, retina: Retina, lesions: tuple[Lesion, ...]) -> Curve:
    """Of the neurosensory retina: less in the pit, over mounds and over atrophy, more around cysts."""
    away = np.abs(x - np.float32(retina.fovea))
    pit = np.exp(-((away / FOVEA_WIDTH) ** 2))
    rise = 3.0 * np.exp(-(((away - 26.0) / 14.0) ** 2))
    complete = tuple(lesion for lesion in lesions if lesion.texture == "crora")
    lost = 0.28 * _heights(x, complete, ("hypertransmission",), unit=True)
    swollen = 1.0 + 0.18 * _heights(x, lesions, ("intraretinal_fluid",), unit=True, widen=1.8)
    squeezed = 0.7 * (_heights(x, lesions, _UNDER_RPE) + _heights(x, lesions, _UNDER_RETINA))
    thick = (retina.thickness - retina.pit * pit + rise) * (1.0 - lost) * swollen
    return np.maximum(thick - squeezed, 10.0)


def _smoothed(curve: Curve, x: Curve) -> Curve:
    """The curve without corners: a running mean over about 8 pixels of a 128-pixel image."""
    reach = max(1, round(4.0 / float(x[1] - x[0])))
    padded = np.pad(curve, reach, mode="reflect", reflect_type="odd")
    return np.convolve(padded, np.full(2 * reach + 1, 1.0 / (2 * reach + 1)), mode="valid").astype(np.float32)


def _heights(
    x: Curve, lesions: tuple[Lesion, ...], kinds: tuple[str, ...], *, unit: bool = False, widen: float = 1.0
) -> Curve:
    """The greatest height of these lesions in each column (``unit``: 1 at its greatest)."""
    found = [_dome(x, lesion, widen) * (1.0 if unit else lesion.height) for lesion in lesions if lesion.kind in kinds]
    return np.max([np.zeros_like(x), *found], axis=0).astype(np.float32)


def _dome(x: Curve, lesion: Lesion, widen: float = 1.0) -> Curve:
    """1 in the middle, falling to 0 at the edges: steep for a PED, round for drusen, flat for fluid."""
    t = np.clip(np.abs(x - np.float32(lesion.x)) / (lesion.half_width * widen), 0.0, 1.0)
    if lesion.kind == "hypertransmission":
        return ramp(1.0 - t - 0.08, 0.16)
    return np.sqrt(1.0 - t**2) if lesion.texture == "serous" else (1.0 - t**2)


def _layers(scan: _Scan, retina: Retina, texture: np.random.Generator) -> Field:
    """Vitreous, retina and choroid without lesions, and the space that lesions open."""
    away = scan.x - np.float32(retina.fovea)
    share = OUTER_NUCLEAR + 0.45 * np.exp(-((away / (0.75 * FOVEA_WIDTH)) ** 2))
    depth = (scan.outer - scan.y) / (scan.outer - scan.ilm)
    warped = np.where(
        depth < share,
        depth * (OUTER_NUCLEAR / share),
        OUTER_NUCLEAR + (depth - share) * ((1 - OUTER_NUCLEAR) / (1 - share)),
    )
    knots, values = np.array(LAYERS, dtype=np.float32).T
    film = np.interp(warped, knots, values).astype(np.float32)
    fibres = 0.02 + 0.9 * ramp(retina.nasal * away - 6.0, 44.0)
    film += 0.22 * fibres * bump(warped - 0.90, 0.12)
    film *= 1.0 + 0.06 * scan.noise
    return film + scan.between(scan.bruch, scan.bruch + 60.0) * _choroid(scan, retina, texture)


def _choroid(scan: _Scan, retina: Retina, texture: np.random.Generator) -> Field:
    """Stroma with dark vessels, fading with depth."""
    below = scan.y - scan.bruch
    vessels = np.maximum(smooth_noise(texture, scan.film.shape[0], 17), 0.0)
    stroma = 0.42 - 0.22 * np.minimum(vessels, 1.0) * ramp(below - 6.0, 6.0)
    return stroma * np.exp(-np.maximum(below, 0.0) / 26.0) * (0.35 + 0.65 * ramp(retina.choroid - below, 6.0))


def _paint_rpe(scan: _Scan, lesions: tuple[Lesion, ...]) -> None:
    """The bright RPE, lost where light passes through it, and Bruch's membrane where the RPE is lifted off."""
    lost = _heights(scan.x, lesions, ("hypertransmission",), unit=True)
    rpe = bump(scan.y - scan.rpe, 2.8) * (1.0 - 0.85 * lost)
    scan.film = np.maximum(scan.film * (1.0 - 0.3 * rpe), 0.92 * rpe)
    lifted = ramp(scan.bruch - scan.rpe - 2.5, 2.0)
    scan.film = np.maximum(scan.film, 0.50 * lifted * bump(scan.y - scan.bruch, 1.6))


def _mound(scan: _Scan, lesion: Lesion, base: Curve) -> Field:
    """1 within the mound that a lesion is on a curve, down to where it is less than a pixel high."""
    high = lesion.height * _dome(scan.x, lesion)
    return scan.between(base - high, base + 0.5) * ramp(high - 1.0, 1.0)


def _filled(scan: _Scan, strength: Field, brightness: float, *, mottle: float = 0.0) -> None:
    scan.film += strength * (np.maximum(brightness + mottle * scan.noise, 0.0) - scan.film)


def _drusen(scan: _Scan, lesion: Lesion) -> Field:
    """A mound of grey material between Bruch's membrane and the RPE."""
    strength = _mound(scan, lesion, scan.bruch)
    _filled(scan, strength, 0.44, mottle=0.03)
    return strength


def _ped(scan: _Scan, lesion: Lesion) -> Field:
    """The RPE lifted off: empty (serous), evenly grey (drusenoid), or bright and uneven (fibrovascular)."""
    strength = _mound(scan, lesion, scan.bruch)
    fill = {"serous": (0.05, 0.0), "drusenoid": (0.46, 0.03), "fibrovascular": (0.62, 0.26)}
    brightness, mottle = fill[lesion.texture]
    _filled(scan, strength, brightness, mottle=mottle)
    return strength


def _subretinal(scan: _Scan, lesion: Lesion, brightness: float, mottle: float) -> Field:
    strength = _mound(scan, lesion, scan.rpe - 2.0)
    _filled(scan, strength, brightness, mottle=mottle)
    return strength


def _subretinal_fluid(scan: _Scan, lesion: Lesion) -> Field:
    """A dark lens between the RPE and the retina."""
    return _subretinal(scan, lesion, 0.03, 0.0)


def _shrm(scan: _Scan, lesion: Lesion) -> Field:
    """Subretinal hyperreflective material: a bright, hazy mound between the RPE and the retina."""
    return _subretinal(scan, lesion, 0.82, 0.12)


def _in_retina(scan: _Scan, lesion: Lesion) -> tuple[Field, float]:
    """Distance from the centre of a cyst or focus in units of its half-axes (1 at its edge), and its mean half-axis."""
    column = int(np.argmin(np.abs(scan.x - np.float32(lesion.x))))
    centre = scan.outer[column] - lesion.lift * (scan.outer[column] - scan.ilm[column])
    across, down = (scan.x - np.float32(lesion.x)) / lesion.half_width, (scan.y - centre) / lesion.height
    return np.sqrt(across**2 + down**2), 0.5 * (lesion.half_width + lesion.height)


def _cyst(scan: _Scan, lesion: Lesion) -> Field:
    """A round dark space within the retina, with a thin bright wall."""
    far, radius = _in_retina(scan, lesion)
    scan.film += 0.22 * bump((far - 1.0) * radius, 1.4)
    strength = ramp((1.0 - far) * radius, 1.0)
    _filled(scan, strength, 0.03)
    return strength


def _focus(scan: _Scan, lesion: Lesion) -> Field:
    """A hyperreflective focus: a small bright dot."""
    far, radius = _in_retina(scan, lesion)
    strength = ramp((1.0 - far) * radius, 1.0)
    _filled(scan, strength, 0.98)
    return strength


def _hypertransmission(scan: _Scan, lesion: Lesion) -> Field:
    """Light that passes the lost RPE and brightens the choroid to the bottom; the outer retina above is thinned."""
    columns = _dome(scan.x, lesion)
    strength = columns * ramp(scan.y - scan.bruch + 1.0, 2.0)
    fade = np.exp(-np.maximum(scan.y - scan.bruch, 0.0) / 60.0)
    scan.film += strength * (0.88 * fade - 0.8 * scan.film + 0.08 * scan.noise)
    outer = columns * scan.between(scan.outer - 3.0, scan.rpe + 1.0)
    scan.film -= 0.6 * outer * scan.film
    return strength


_UNDER_RPE = ("drusen", "ped")
_UNDER_RETINA = ("subretinal_fluid", "shrm")
_FIRST = ("drusen", "ped", "hypertransmission")
"""Drawn before the RPE, which covers their edge."""
_DRAWN = {
    "drusen": _drusen,
    "ped": _ped,
    "subretinal_fluid": _subretinal_fluid,
    "shrm": _shrm,
    "intraretinal_fluid": _cyst,
    "hyperreflective_foci": _focus,
    "hypertransmission": _hypertransmission,
}
