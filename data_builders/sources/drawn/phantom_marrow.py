"""Phantom marrow: fields of a stained bone marrow smear drawn from facts, so that every answer is exactly known.

A patient is healthy, has AML (many blasts) or multiple myeloma (many plasma cells). Half of a patient's fields show
marrow in focus; the others are blurred, full of blood, or clotted. Lengths are in pixels of a 128-pixel image and
scale with ``size``. Left out: overlapping nucleated cells, maturation within a lineage, megakaryocytes, particles.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from data_builders.schema import Sample
from data_builders.seeds import seeded
from rewards.config.input_error import InputError
from rewards.rules.facts import Box, Facts, Finding

LICENCE = "drawn by clinalign; no restriction"

Pixels = NDArray[np.floating[Any]]
"""(height, width) or (height, width, 3), from 0 to 1."""
Colour = tuple[float, float, float]
Disease = Literal["normal", "AML", "MM"]
Kind = Literal["blasts", "plasma_cells", "granulocyte", "erythroblast"]

RULE_SET = "phantom_marrow@1"
DISEASES: tuple[Disease, ...] = ("normal", "AML", "MM")
PICTURE_SIZE = 128
COUNTED: tuple[Literal["blasts", "plasma_cells"], ...] = ("blasts", "plasma_cells")
RADII: dict[Kind, tuple[float, float]] = {
    "blasts": (9.0, 10.5),
    "plasma_cells": (8.5, 10.0),
    "granulocyte": (7.0, 8.5),
    "erythroblast": (5.0, 6.0),
}
FLATNESS: dict[str, float] = {"plasma_cells": 0.78}
"""Short axis of a cell over its long one, which lies along ``angle``."""
FRACTIONS: dict[Disease, dict[str, tuple[float, float]]] = {
    "normal": {"blasts": (0.0, 0.08), "plasma_cells": (0.0, 0.04)},
    "AML": {"blasts": (0.4, 0.85), "plasma_cells": (0.0, 0.04)},
    "MM": {"blasts": (0.0, 0.08), "plasma_cells": (0.35, 0.8)},
}
"""Least and greatest share of the nucleated cells that is aimed at; the rule set decides at 0.2 and 0.1."""
STAIN: Colour = (0.96, 0.90, 0.90)
RED_CELL: Colour = (0.89, 0.66, 0.64)


@dataclass(frozen=True)
class Cell:
    """One nucleated cell: centre and radius in pixels of a 128-pixel image, and the angle of its nucleus."""

    kind: Kind
    x: float
    y: float
    radius: float
    angle: float


@dataclass(frozen=True)
class FieldOfView:
    """What one image shows. ``cells`` only where the field is marrow."""

    field: Literal["marrow", "blood", "clot"]
    focus: Literal["sharp", "blurred"]
    cells: tuple[Cell, ...] = ()


def phantom_marrow(
    *,
    patients: int,
    images_per_patient: int = 2,
    size: int = 128,
    adequate: float = 0.5,
    stain: float = 1.0,
    seed: int = 0,
) -> Iterator[Sample]:
    """Samples of drawn marrow fields, patient by patient.

    Args:
        patients: How many patients; patient k is the same however many are drawn.
        images_per_patient: Fields of each patient, drawn independently.
        size: Width and height in pixels, at least 64.
        adequate: Share of fields that show marrow in focus; the rest is blurred, blood or clot, equally often.
        stain: Strength of the colours, from 0.1 (hardly told apart) to 1.0.
        seed: Another seed draws other patients.

    Raises: InputError if a count, size or share is out of range.

    >>> sample = next(phantom_marrow(patients=1))
    >>> sample.id, sample.image.size, sample.image.mode
    ('m00000-0', (128, 128), 'RGB')
    """
    for name, value, least in (
        ("patients", patients, 0),
        ("images_per_patient", images_per_patient, 1),
        ("size", size, 64),
    ):
        if value < least:
            raise InputError(f"phantom_marrow: {name}: got {value}; give at least {least}.")
    for name, value, least in (("adequate", adequate, 0.0), ("stain", stain, 0.1)):
        if not least <= value <= 1.0:
            raise InputError(f"phantom_marrow: {name}: got {value}; give a number from {least} to 1.0.")
    return (
        sample_of(index, image, size=size, adequate=adequate, stain=stain, seed=seed)
        for index in range(patients)
        for image in range(images_per_patient)
    )


def sample_of(index: int, image: int, *, size: int, adequate: float, stain: float, seed: int) -> Sample:
    """Field number ``image`` of patient number ``index``."""
    disease = DISEASES[int(seeded("phantom_marrow", seed, index).integers(len(DISEASES)))]
    rng = seeded("phantom_marrow", seed, index, image)
    view = field_of_view(disease, rng, adequate=adequate)
    name = f"m{index:05d}"
    return Sample(
        id=f"{name}-{image}",
        patient=name,
        study=f"{name}-s0",
        image=draw(view, rng, size=size, stain=stain),
        facts=facts_of(view, size=size),
        provenance={"seed": seed, "patient": index, "image": image, "disease": disease},
    )


def field_of_view(disease: Disease, rng: np.random.Generator, *, adequate: float = 0.5) -> FieldOfView:
    """What a field of a patient with this disease shows. A quarter of blood and clot is out of focus as well."""
    if rng.random() < adequate:
        return FieldOfView("marrow", "sharp", _cells(disease, rng))
    kind, blurred = int(rng.integers(3)), rng.random() < 0.25
    if kind == 0:
        return FieldOfView("marrow", "blurred", _cells(disease, rng))
    return FieldOfView("blood" if kind == 1 else "clot", "blurred" if blurred else "sharp")


def _cells(disease: Disease, rng: np.random.Generator) -> tuple[Cell, ...]:
    """Nucleated cells that do not overlap, placed from the largest."""
    number = int(rng.integers(15, 20))
    kinds: list[Kind] = []
    for kind in COUNTED:
        least, greatest = FRACTIONS[disease][kind]
        kinds.extend(kind for _ in range(round(rng.uniform(least, greatest) * number)))
    kinds.extend("granulocyte" if rng.random() < 0.6 else "erythroblast" for _ in range(number - len(kinds)))
    placed: list[Cell] = []
    for kind in kinds:
        radius = rng.uniform(*RADII[kind])
        spot = _free_spot(placed, radius, rng)
        if spot is not None:
            placed.append(Cell(kind, *spot, radius, rng.uniform(0.0, 2 * np.pi)))
    return tuple(placed)


def _free_spot(placed: list[Cell], radius: float, rng: np.random.Generator) -> tuple[float, float] | None:
    """A centre at which the cell lies inside the image and touches no other, of 60 drawn; None if there is none."""
    for x, y in rng.uniform(radius + 1, PICTURE_SIZE - radius - 1, (60, 2)):
        if all((x - c.x) ** 2 + (y - c.y) ** 2 > (radius + c.radius - 0.5) ** 2 for c in placed):
            return float(x), float(y)
    return None


def facts_of(view: FieldOfView, *, size: int) -> Facts:
    """Field, focus and, for marrow, the shares of cells; blasts and plasma cells with boxes where they can be seen."""
    values: dict[str, Any] = {"field": view.field, "focus": view.focus}
    if not view.cells:
        return Facts(rule_set=RULE_SET, values=values)
    shares = {kind: sum(c.kind == kind for c in view.cells) / len(view.cells) for kind in COUNTED}
    values |= {"blast_fraction": round(shares["blasts"], 4), "plasma_fraction": round(shares["plasma_cells"], 4)}
    seen = COUNTED if view.focus == "sharp" else ()
    return Facts(rule_set=RULE_SET, values=values, findings={kind: _finding(kind, view.cells, size) for kind in seen})


def _finding(kind: Kind, cells: tuple[Cell, ...], size: int) -> Finding:
    boxes = tuple(_box(cell, size / PICTURE_SIZE) for cell in cells if cell.kind == kind)
    return Finding(polarity="present" if boxes else "absent", boxes=boxes)


def _box(cell: Cell, scale: float) -> Box:
    """The extent of the ellipse that the cell is."""
    x, y, r, flat = cell.x * scale, cell.y * scale, cell.radius * scale, FLATNESS.get(cell.kind, 1.0)
    cos, sin = float(np.cos(cell.angle)), float(np.sin(cell.angle))
    wide, high = r * float(np.hypot(cos, flat * sin)), r * float(np.hypot(sin, flat * cos))
    return round(x - wide, 2), round(y - high, 2), round(x + wide, 2), round(y + high, 2)


def draw(view: FieldOfView, rng: np.random.Generator, *, size: int, stain: float = 1.0) -> Image.Image:
    """The image of a field of view; ``rng`` gives red cells, stain, light and noise."""
    canvas = _Canvas(size)
    canvas.pixels *= 1.0 + 0.02 * _smooth_noise(rng, size, 4)[..., None]
    if view.field == "clot":
        _draw_clot(canvas, rng)
    else:
        _draw_red_cells(canvas, 150 if view.field == "blood" else 26, rng, view.cells)
    for cell in view.cells:
        _DRAWN[cell.kind](canvas, cell)
    pale = np.asarray(STAIN, dtype=np.float32)
    return _photographed(pale + stain * (canvas.pixels - pale), view.focus, rng)


def _photographed(pixels: Pixels, focus: str, rng: np.random.Generator) -> Image.Image:
    """Light, focus and noise of the microscope."""
    size = pixels.shape[0]
    gain = rng.uniform(0.93, 1.04) * (1.0 + rng.uniform(-0.02, 0.02, 3))
    lit = np.clip(pixels * gain.astype(np.float32), 0.0, 1.0)
    image = Image.fromarray(np.rint(lit * 255.0).astype(np.uint8))
    if focus == "blurred":
        image = image.filter(ImageFilter.GaussianBlur(radius=rng.uniform(3.5, 5.0) * size / PICTURE_SIZE))
    noisy = np.asarray(image, dtype=np.float32) + 3.0 * rng.standard_normal((size, size, 1), dtype=np.float32)
    return Image.fromarray(np.rint(np.clip(noisy, 0.0, 255.0)).astype(np.uint8))


class _Canvas:
    """An image while it is drawn, in pixels of a 128-pixel image."""

    def __init__(self, size: int) -> None:
        self.scale = size / PICTURE_SIZE
        self.pixels: Pixels = np.ones((size, size, 3), dtype=np.float32) * np.asarray(STAIN, dtype=np.float32)

    def disc(self, x: float, y: float, radius: float, colour: Colour, *, opacity: float = 1.0, flat: float = 1.0,
             angle: float = 0.0) -> None:  # fmt: skip
        """Paints an ellipse with soft edges: ``radius`` along ``angle``, ``radius * flat`` across it."""
        cx, cy, r = x * self.scale, y * self.scale, radius * self.scale
        size = self.pixels.shape[0]
        left, right = max(0, int(cx - r) - 1), min(size, int(cx + r) + 3)
        top, bottom = max(0, int(cy - r) - 1), min(size, int(cy + r) + 3)
        if left >= right or top >= bottom:
            return
        u = np.arange(left, right, dtype=np.float32)[None, :] + 0.5 - cx
        v = np.arange(top, bottom, dtype=np.float32)[:, None] + 0.5 - cy
        along, across = u * np.cos(angle) + v * np.sin(angle), (v * np.cos(angle) - u * np.sin(angle)) / flat
        cover = np.clip(r - np.sqrt(along**2 + across**2) + 0.5, 0.0, 1.0).astype(np.float32)[..., None] * opacity
        window = self.pixels[top:bottom, left:right]
        window += cover * (np.asarray(colour, dtype=np.float32) - window)


def _smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Pixels:
    small = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)


def _draw_red_cells(canvas: _Canvas, number: int, rng: np.random.Generator, cells: tuple[Cell, ...]) -> None:
    """Pale discs with a paler centre, beside the nucleated cells."""
    for x, y, r in zip(*rng.uniform(0, PICTURE_SIZE, (2, number)), rng.uniform(4.5, 6.0, number), strict=True):
        if all((x - c.x) ** 2 + (y - c.y) ** 2 > (r + c.radius - 1.0) ** 2 for c in cells):
            canvas.disc(x, y, r, (0.80, 0.52, 0.52), opacity=0.8)
            canvas.disc(x, y, 0.85 * r, RED_CELL, opacity=0.9)
            canvas.disc(x, y, 0.40 * r, (0.95, 0.82, 0.80), opacity=0.7)


def _draw_clot(canvas: _Canvas, rng: np.random.Generator) -> None:
    """A dark mass of fibrin strands with smudged cells in it."""
    size = canvas.pixels.shape[0]
    mass = np.clip(0.75 + 0.25 * _smooth_noise(rng, size, 5), 0.0, 1.0)[..., None]
    canvas.pixels += mass * (np.asarray((0.66, 0.40, 0.50), dtype=np.float32) - canvas.pixels)
    for _ in range(22):
        x, y, angle = rng.uniform(0, PICTURE_SIZE), rng.uniform(0, PICTURE_SIZE), rng.uniform(0.3, 1.1)
        canvas.disc(x, y, rng.uniform(25, 60), (0.48, 0.24, 0.38), opacity=0.5, flat=0.03, angle=angle)
    for x, y, r in zip(*rng.uniform(0, PICTURE_SIZE, (2, 16)), rng.uniform(3.0, 5.0, 16), strict=True):
        canvas.disc(x, y, r, (0.42, 0.22, 0.42), opacity=0.55)


def _draw_blast(canvas: _Canvas, cell: Cell) -> None:
    """A large cell, almost filled by a round nucleus with pale nucleoli; a thin rim of blue cytoplasm."""
    x, y, r = cell.x, cell.y, cell.radius
    canvas.disc(x, y, r, (0.60, 0.62, 0.85))
    canvas.disc(x, y, 0.86 * r, (0.52, 0.26, 0.62))
    for turn in (0.0, 2.2):
        dx, dy = 0.4 * r * np.cos(cell.angle + turn), 0.4 * r * np.sin(cell.angle + turn)
        canvas.disc(x + dx, y + dy, 0.20 * r, (0.72, 0.52, 0.80))


def _draw_plasma_cell(canvas: _Canvas, cell: Cell) -> None:
    """An oval cell of deep blue cytoplasm, a dark nucleus at one end, and a pale halo beside it."""
    x, y, r, angle = cell.x, cell.y, cell.radius, cell.angle
    dx, dy = np.cos(angle), np.sin(angle)
    canvas.disc(x, y, r, (0.36, 0.46, 0.78), flat=FLATNESS["plasma_cells"], angle=angle)
    canvas.disc(x + 0.05 * r * dx, y + 0.05 * r * dy, 0.34 * r, (0.74, 0.78, 0.92))
    canvas.disc(x + 0.45 * r * dx, y + 0.45 * r * dy, 0.42 * r, (0.26, 0.12, 0.40))


def _draw_granulocyte(canvas: _Canvas, cell: Cell) -> None:
    """A cell of pink cytoplasm with a nucleus of three lobes."""
    x, y, r = cell.x, cell.y, cell.radius
    canvas.disc(x, y, r, (0.93, 0.74, 0.80))
    for turn in (-0.9, 0.0, 0.9):
        dx, dy = 0.42 * r * np.cos(cell.angle + turn), 0.42 * r * np.sin(cell.angle + turn)
        canvas.disc(x + dx, y + dy, 0.32 * r, (0.46, 0.26, 0.56))


def _draw_erythroblast(canvas: _Canvas, cell: Cell) -> None:
    """A small cell of greyish pink cytoplasm with a small, very dark, round nucleus."""
    canvas.disc(cell.x, cell.y, cell.radius, (0.80, 0.66, 0.74))
    canvas.disc(cell.x, cell.y, 0.55 * cell.radius, (0.20, 0.10, 0.30))


_DRAWN = {
    "blasts": _draw_blast,
    "plasma_cells": _draw_plasma_cell,
    "granulocyte": _draw_granulocyte,
    "erythroblast": _draw_erythroblast,
}
