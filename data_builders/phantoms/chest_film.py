"""How a chest radiograph is drawn from a patient's anatomy and lesions.

Anatomy is drawn on coordinates from -1 to 1 (x to the right, y down); the patient's left is on the right half.
A box is the extent of the pixels where its finding has at least half its strength; that of cardiomegaly is the heart's.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from data_builders.phantoms.drawing import Field, axis_of, bump, extent, ramp, smooth_noise
from rewards.rules.facts import Box

CHEST_WALL = 0.72
COSTOPHRENIC = 0.64


@dataclass(frozen=True)
class Lesion:
    """One finding's place in drawing units: centre ``x, y`` and extent ``rx, ry`` as in ``phantom_chest.RADII``."""

    side: str | None
    size: str | None
    x: float
    y: float
    rx: float
    ry: float

    @property
    def sign(self) -> int:
        """1 on the right half of the picture (the patient's left), else -1."""
        return 1 if self.side == "left" else -1


@dataclass(frozen=True)
class Anatomy:
    """What is one patient's own, apart from findings, in drawing units."""

    texture_seed: int
    apex: float
    wall: float
    dome_right: float
    dome_left: float
    heart: float
    rib_gap: float
    rib_phase: float
    clavicle: float
    breast: float


@dataclass(frozen=True)
class Patient:
    """All that the images of one patient share."""

    anatomy: Anatomy
    lesions: dict[str, Lesion]


@dataclass
class Scene:
    """One image while it is drawn: coordinates of columns ``x``, of rows ``y``, ``a`` = abs(x), and masks."""

    x: Field
    y: Field
    a: Field
    lung: Field
    heart: Field
    body: Field


@cache
def _vignette(size: int) -> Field:
    axis = axis_of(size)
    return 1.0 - 0.13 * (axis[None, :] ** 2 + axis[:, None] ** 2)


def wall_at(y: Field, anatomy: Anatomy, *, lowered: float = 0.0) -> Field:
    """abs(x) of the inner chest wall at height ``y``: a quarter of a superellipse from apex to base."""
    apex = anatomy.apex + lowered
    t = np.clip((y - apex) / (COSTOPHRENIC - apex), 0.0, 1.0)
    return 0.11 + (anatomy.wall - 0.11) * (1.0 - (1.0 - t) ** 2.2) ** (1.0 / 2.2)


def draw(patient: Patient, *, view: np.random.Generator, size: int) -> tuple[Image.Image, dict[str, Box]]:
    """The image of a patient and the box of each lesion, in pixels.

    ``view`` gives position, exposure and noise, none of which depends on the lesions: the same patient with
    one lesion less, drawn with an equally seeded ``view``, differs by that lesion alone.
    """
    scale, dx, dy = view.uniform(0.95, 1.04), view.uniform(-0.05, 0.05), view.uniform(-0.04, 0.04)
    gain, offset = view.uniform(0.90, 1.08), view.uniform(-0.03, 0.03)
    axis = axis_of(size)
    x, y = (
        (axis[None, :] - np.float32(dx)) / np.float32(scale),
        (axis[:, None] - np.float32(dy)) / np.float32(scale),
    )
    scene = _scene(x, y, patient)
    film = _anatomy_film(scene, patient.anatomy, np.random.default_rng(patient.anatomy.texture_seed))
    film, strengths = _with_lesions(film, scene, patient)
    _mark_left(film)
    film += 0.022 * smooth_noise(view, size, 7) + 0.016 * smooth_noise(view, size, 20)
    film = film * (_vignette(size) * np.float32(gain)) + np.float32(offset)
    film += 0.025 * view.standard_normal((size, size), dtype=np.float32)
    pixels = np.rint(np.clip(film, 0.0, 1.0) * 255.0).astype(np.uint8)
    return Image.fromarray(pixels), {name: extent(strength) for name, strength in strengths.items()}


def _mark_left(film: Field) -> None:
    """Put the letter L, the marker of the patient's left side, in the upper right corner."""
    unit = film.shape[0] // 64
    top, left = 3 * unit, 58 * unit
    film[top : top + 5 * unit, left : left + unit] = 0.85
    film[top + 4 * unit : top + 5 * unit, left : left + 3 * unit] = 0.85


def _scene(x: Field, y: Field, patient: Patient) -> Scene:
    a, anatomy = np.abs(x), patient.anatomy
    lesion = patient.lesions.get("cardiomegaly")
    return Scene(
        x=x,
        y=y,
        a=a,
        lung=_lung(x, y, a, anatomy),
        heart=_heart(x, y, lesion.rx if lesion else anatomy.heart),
        body=_body(y, a),
    )


def _lung(x: Field, y: Field, a: Field, anatomy: Anatomy) -> Field:
    """Both lungs, cut off by chest wall, apex, mediastinum and diaphragm domes."""
    level = np.where(x > 0, np.float32(anatomy.dome_left), np.float32(anatomy.dome_right))
    lateral, medial = np.maximum(a - 0.34, 0.0) / 0.38, np.maximum(0.34 - a, 0.0) / 0.34
    dome = level + 0.24 * lateral**2.4 + 0.10 * medial**2
    right = 0.10 + 0.05 * ramp(y + 0.45, 0.5) + 0.07 * ramp(y + 0.02, 0.36)
    left = right + 0.085 * bump(y + 0.33, 0.17) + 0.03 * bump(y + 0.10, 0.2)
    chest = ramp(wall_at(y, anatomy) - a, 0.035) * ramp(y - np.float32(anatomy.apex), 0.05)
    return chest * ramp(a - np.where(x > 0, left, right), 0.09) * ramp(dome - y, 0.035)


def _heart(x: Field, y: Field, factor: float) -> Field:
    """Left ventricle towards the patient's left apex, right atrium, and the great vessels above them."""
    k = np.float32(factor)
    u, v = x - 0.075 * k, y - 0.22
    along, across = (0.80 * u + 0.60 * v) / (0.355 * k), (0.80 * v - 0.60 * u) / (0.235 + 0.03 * k)
    ventricle = 1.0 - np.sqrt(along**2 + across**2)
    atrium = 1.0 - np.sqrt(((x + 0.06 * k) / (0.16 * k)) ** 2 + ((y - 0.20) / 0.24) ** 2)
    return ramp(np.maximum(ventricle, atrium), 0.20)


def _body(y: Field, a: Field) -> Field:
    """Neck, shoulders and trunk against the bare film."""
    shoulder = -0.99 + 0.42 * np.maximum(a - 0.24, 0.0) ** 1.5 - 2.0 * ramp(0.24 - a, 0.16)
    flank = 0.95 + 0.2 * ramp(-0.15 - y, 0.5)
    return ramp(y - shoulder, 0.08) * ramp(flank - a, 0.08)


def _anatomy_film(scene: Scene, anatomy: Anatomy, rng: np.random.Generator) -> Field:
    """Brightness without lesions: what stops rays is bright."""
    size = scene.lung.shape[0]
    mottle = smooth_noise(rng, size, 9)
    film = 0.05 + scene.body * (0.55 + 0.10 * ramp(scene.y - 0.45, 0.5) + 0.02 * mottle)
    film += scene.lung * (0.37 * scene.heart - 0.37) + 0.05 * scene.heart
    film += scene.lung * (
        (1.0 - scene.heart) * _vessels(scene, rng) + anatomy.breast * ramp(scene.y - 0.05, 0.3) + 0.012 * mottle
    )
    stomach = ramp(1.0 - ((scene.x - 0.33) / 0.13) ** 2 - ((scene.y - anatomy.dome_left - 0.12) / 0.045) ** 2, 0.9)
    film += _spine(scene) + _bones(scene, anatomy) - 0.10 * stomach
    return film


def _vessels(scene: Scene, rng: np.random.Generator) -> Field:
    """Hila and the vessels that leave them, thinning outwards."""
    u, v = scene.a - 0.17, scene.y + 0.06
    far = np.sqrt(u * u + v * v)
    turn = (
        5.5 * np.arctan2(v, u)
        + 9.0 * far * far * np.sign(scene.x)
        + 64.0
        + np.where(scene.x > 0, np.float32(128.0), np.float32(0.0))
    )
    low = np.floor(turn)
    index = low.astype(np.intp)
    table = rng.standard_normal(257).astype(np.float32)
    branch = np.maximum(table[index] + (turn - low) * np.diff(table)[index], 0.0)
    return 0.075 * branch * bump(far - 0.10, 0.48) * ramp(far - 0.09, 0.14) + 0.15 * bump(u - 0.01, 0.17) * bump(
        v, 0.28
    )


def _spine(scene: Scene) -> Field:
    """Vertebral bodies seen through the mediastinum, and the dark trachea in front of them."""
    discs = bump(np.mod(scene.y, 0.135) - 0.0675, 0.06)
    spine = ramp(0.085 - scene.a, 0.04) * (0.055 + 0.05 * discs)
    middle = 0.05 + 0.05 * ramp(0.16 - scene.a, 0.12)
    trachea = ramp(0.042 - np.abs(scene.x + 0.01), 0.03) * ramp(-0.22 - scene.y, 0.12)
    return scene.body * (spine + middle * ramp(0.2 - scene.a, 0.1) - 0.13 * trachea)


def _bones(scene: Scene, anatomy: Anatomy) -> Field:
    """Posterior and anterior ribs and the clavicles, each with a brighter edge."""
    a, y = scene.a, scene.y
    within = ramp(wall_at(y, anatomy) + 0.05 - a, 0.05) * ramp(a - 0.09, 0.06) * ramp(COSTOPHRENIC + 0.02 - y, 0.1)
    within *= ramp(y - np.float32(anatomy.apex - 0.02), 0.06)
    back = _ribs((y + 0.16 * a - 0.62 * a**3) / anatomy.rib_gap + anatomy.rib_phase, 0.40)
    front = _ribs((y + 0.62 * a - 0.16 * a**2) / (1.12 * anatomy.rib_gap) + anatomy.rib_phase, 0.46)
    film = within * (0.4 + 0.6 * scene.lung) * (0.075 * back + 0.04 * front * ramp(a - 0.34, 0.2) * ramp(y + 0.45, 0.2))
    bow = anatomy.clavicle - 0.30 * (a - 0.08) + 0.05 * bump(a - 0.30, 0.25)
    collar = np.abs(y - bow)
    reach = ramp(a - 0.08, 0.05) * ramp(0.68 - a, 0.22)
    return film + reach * (0.09 * ramp(0.034 - collar, 0.025) + 0.04 * bump(collar - 0.032, 0.02))


def _ribs(phase: Field, breadth: float) -> Field:
    """Bands one unit apart, with brighter edges."""
    off = np.abs(phase - np.floor(phase) - 0.5)
    return ramp(0.5 * breadth - off, 0.12) + 0.45 * bump(off - 0.5 * breadth, 0.08)


def _with_lesions(film: Field, scene: Scene, patient: Patient) -> tuple[Field, dict[str, Field]]:
    """The film with its lesions, and the strength of each from 0 to 1."""
    strengths: dict[str, Field] = {}
    if "cardiomegaly" in patient.lesions:
        strengths["cardiomegaly"] = scene.heart
    if lesion := patient.lesions.get("pneumothorax"):
        film, strengths["pneumothorax"] = _pneumothorax(film, scene, lesion, patient.anatomy)
    if lesion := patient.lesions.get("consolidation"):
        film, strengths["consolidation"] = _consolidation(film, scene, lesion, patient.anatomy)
    if lesion := patient.lesions.get("nodule"):
        far = np.sqrt((scene.x - np.float32(lesion.x)) ** 2 + (scene.y - np.float32(lesion.y)) ** 2)
        strengths["nodule"] = ramp(np.float32(lesion.rx) - far, 0.055)
        film = film + strengths["nodule"] * (0.29 - 0.05 * far / lesion.rx)
    if lesion := patient.lesions.get("effusion"):
        film, fluid = _effusion(film, scene, lesion)
        strengths["effusion"] = fluid
        if "pneumothorax" in strengths:
            strengths["pneumothorax"] = strengths["pneumothorax"] * (1.0 - fluid)
    return film, strengths


def _hemithorax(scene: Scene, sign: int) -> Field:
    return scene.lung * (scene.x * np.float32(sign) > 0)


def _pneumothorax(film: Field, scene: Scene, lesion: Lesion, anatomy: Anatomy) -> tuple[Field, Field]:
    """Air without vessels where the lung has fallen from apex and wall, and the pleural line at its edge."""
    down = np.clip((scene.y - anatomy.apex) / (COSTOPHRENIC - anatomy.apex), 0.0, 1.0)
    taper = np.maximum(1.0 - down / 0.62, 0.0) if lesion.size == "small" else 1.0 - 0.55 * down
    edge = wall_at(scene.y, anatomy, lowered=lesion.ry) - np.float32(lesion.rx) * np.minimum(2.0 * taper, 1.0)
    collapsed = np.minimum(edge - scene.a, scene.y - np.float32(anatomy.apex + lesion.ry))
    side = _hemithorax(scene, lesion.sign)
    side = side * ramp(wall_at(scene.y, anatomy) - edge - 0.05, 0.06)
    rim = side * (1.0 - scene.heart) * ramp(-collapsed, 0.03)
    line = side * (1.0 - scene.heart) * bump(collapsed, 0.026)
    air = film + rim * (0.55 * (0.15 - film))
    return air + 0.24 * line, rim


def _consolidation(film: Field, scene: Scene, lesion: Lesion, anatomy: Anatomy) -> tuple[Field, Field]:
    """Patchy airspace opacity with a soft, uneven edge, within the lung."""
    rng, size = np.random.default_rng(anatomy.texture_seed + 1), film.shape[0]
    u, v = (scene.x - np.float32(lesion.x)) / lesion.rx, (scene.y - np.float32(lesion.y)) / lesion.ry
    edge = 1.0 - np.sqrt(u * u + v * v) + 0.16 * smooth_noise(rng, size, 15)
    strength = ramp(edge, 0.62) * scene.lung * (1.0 - 0.8 * scene.heart)
    return film + strength * (0.27 + 0.07 * smooth_noise(rng, size, 26)), strength


def _effusion(film: Field, scene: Scene, lesion: Lesion) -> tuple[Field, Field]:
    """Fluid on the diaphragm, highest at the chest wall (meniscus), as bright as the abdomen."""
    climb = 0.55 + 0.45 * np.clip((scene.a - 0.15) / (CHEST_WALL - 0.15), 0.0, 1.0) ** 3
    level = COSTOPHRENIC - np.float32(lesion.ry) * climb
    fluid = (1.0 - scene.heart) * ramp(scene.y - level, 0.05)
    lung = _hemithorax(scene, lesion.sign)
    film = film + np.minimum(2.0 * lung, 1.0) * fluid * (0.97 * (0.66 - film))
    return film, lung * fluid
