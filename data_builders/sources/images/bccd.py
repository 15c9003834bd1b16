"""BCCD: photographs of blood smears with a box around each red cell, white cell and platelet.

Source: github.com/Shenggan/BCCD_Dataset (MIT), folders ``Annotations`` (Pascal VOC XML) and ``JPEGImages``.
The source names no patients: each photograph counts as one, so that a patient may be in two splits unseen.
Cells are not all labelled (12 photographs full of red cells have none labelled): a count is what was
labelled, not what a haematologist would count, and a missing label is not always taken for a missing cell.
Left out: the published train and val lists (splits are made once for all sources).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException  # pyright: ignore[reportMissingTypeStubs, reportMissingModuleSource]
from defusedxml.ElementTree import parse  # pyright: ignore
from PIL import Image

from data_builders.imaging.images import ImageError, inside, open_image
from data_builders.schema import Quarantined, Sample
from rewards.boxes.geometry import area, iou
from rewards.config.input_error import InputError
from rewards.config.strict_yaml import regular
from rewards.rules.facts import Box, Facts, Finding

LICENCE = "BCCD_Dataset, MIT"

RULE_SET = "blood_smear@1"
CELLS = {"RBC": "red_cells", "WBC": "white_cells", "Platelets": "platelets"}
MIN_KEPT = 0.5
SAME_CELL_IOU = 0.8
CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Unusable(Exception):
    """Why one photograph, or one box of it, cannot be used."""


@dataclass(frozen=True)
class Cell:
    """One labelled cell: its number in the file, its finding and its half-open box in pixels."""

    number: int
    finding: str
    box: Box


@dataclass(frozen=True)
class Smear:
    """One photograph with its usable cells, and for each box left out its number, finding and reason."""

    name: str
    image: Image.Image
    cells: list[Cell]
    left_out: dict[int, tuple[str | None, str]]


def bccd(*, root: Path, size: int | None = None, tiles: int = 1) -> Iterator[Sample | Quarantined]:
    """One sample for each photograph or, with ``tiles`` > 1, for each of its tiles x tiles pieces.

    ``size``: width of the image in pixels, its height in proportion (None: as photographed, 640 x 480).
    ``tiles``: pieces keep counts small enough for a small model. A piece holds a cell if it holds at least
    half of the cell's box, which is clipped to it; a kind of cell of which it holds less is not stated.
    Absent are platelets without a label, and white cells where another piece has them; never red cells.
    A box that cannot be used (no area, outside the image, unknown label, the same cell twice) is left out and
    yielded as quarantined besides, under ``<image>#box<number>``.

    Raises: InputError if ``root`` is no BCCD folder, an image lies outside it, or a knob is out of range.
    """
    for name, value in (("size", size), ("tiles", tiles)):
        if value is not None and value < 1:
            raise InputError(f"bccd: {name}: got {value}; expected a whole number of at least 1.")
    for path in _annotations(Path(root)):
        try:
            smear = read_smear(path, root=Path(root))
        except Unusable as reason:
            yield Quarantined(id=path.stem, reason=str(reason))
            continue
        for number, (_, reason) in smear.left_out.items():
            yield Quarantined(id=f"{smear.name}#box{number}", reason=reason)
        for row, column in product(range(tiles), repeat=2):
            yield sample_of(smear, row=row, column=column, tiles=tiles, size=size)


def _annotations(root: Path) -> list[Path]:
    paths = sorted((root / "Annotations").glob("*.xml"))
    if not paths:
        raise InputError(
            f"{root}: found no Annotations/*.xml; expected the BCCD folder. "
            "Name it in 'root', or get it from github.com/Shenggan/BCCD_Dataset."
        )
    return paths


def read_smear(annotation: Path, *, root: Path) -> Smear:
    """One photograph and its boxes.

    Raises: Unusable if the XML or the JPEG cannot be read, InputError if the image's path leaves ``root``.
    """
    tree = _tree(annotation)
    image = _photograph(inside(root, str(Path("JPEGImages") / (tree.findtext("filename") or ""))))
    stated = tree.findtext("size/width"), tree.findtext("size/height")
    if stated not in ((None, None), (str(image.width), str(image.height))):
        raise Unusable(f"its boxes are for {stated[0]} x {stated[1]} pixels, but it has {image.width} x {image.height}")
    cells, left_out = _cells(tree.findall("object"), image=image)
    return Smear(name=annotation.stem, image=image, cells=cells, left_out=left_out)


def _tree(annotation: Path) -> Element:
    try:
        root: Element | None = parse(regular(annotation), forbid_dtd=True).getroot()
    except (ParseError, DefusedXmlException, ValueError, LookupError, OSError) as fault:
        raise Unusable(f"{annotation.name}: not readable as XML ({fault})") from None
    if root is None or root.tag != "annotation":
        raise Unusable(f"{annotation.name}: not a Pascal VOC annotation")
    return root


def _photograph(path: Path) -> Image.Image:
    try:
        return open_image(path).convert("RGB")
    except ImageError as fault:
        raise Unusable(str(fault)) from None


def _cells(objects: list[Element], *, image: Image.Image) -> tuple[list[Cell], dict[int, tuple[str | None, str]]]:
    cells: list[Cell] = []
    left_out: dict[int, tuple[str | None, str]] = {}
    for number, labelled in enumerate(objects):
        label = labelled.findtext("name") or ""
        try:
            cells.append(_cell(labelled, number=number, label=label, image=image, before=cells))
        except Unusable as reason:
            left_out[number] = (CELLS.get(label), str(reason))
    return cells, left_out


def _cell(labelled: Element, *, number: int, label: str, image: Image.Image, before: list[Cell]) -> Cell:
    if label not in CELLS:
        raise Unusable(f"unknown label '{label}'; known: {', '.join(CELLS)}")
    cell = Cell(number=number, finding=CELLS[label], box=half_open(_corners(labelled), image=image))
    for other in before:
        if other.finding == cell.finding and iou(other.box, cell.box) >= SAME_CELL_IOU:
            raise Unusable(f"the same cell as box {other.number}, drawn twice")
    return cell


def _corners(labelled: Element) -> list[int]:
    written = [labelled.findtext(f"bndbox/{corner}") or "nothing" for corner in CORNERS]
    try:
        return [int(value) for value in written]
    except ValueError:
        raise Unusable(f"box [{', '.join(written)}] is not four whole numbers") from None


def half_open(corners: list[int], *, image: Image.Image) -> Box:
    """The box of Pascal VOC corners, which count pixels from 1 and include the last.

    Raises: Unusable if it has no area or is not inside the image.
    """
    x1, y1, x2, y2 = corners
    if x1 >= x2 or y1 >= y2:
        raise Unusable(f"box {corners} has no area")
    if x1 < 1 or y1 < 1 or x2 > image.width or y2 > image.height:
        raise Unusable(f"box {corners} is not inside the image of {image.width} x {image.height} pixels")
    return float(x1 - 1), float(y1 - 1), float(x2), float(y2)


def clipped(box: Box, frame: Box) -> Box:
    """The part of a box within a frame; its corners cross where there is none."""
    return max(box[0], frame[0]), max(box[1], frame[1]), min(box[2], frame[2]), min(box[3], frame[3])


def sample_of(smear: Smear, *, row: int, column: int, tiles: int, size: int | None) -> Sample:
    """One piece of a photograph with its counts; the whole photograph where ``tiles`` is 1."""
    frame = tile(smear.image, row=row, column=column, tiles=tiles)
    image = _resized(smear.image.crop(frame), width=size)
    scales = image.width / (frame[2] - frame[0]), image.height / (frame[3] - frame[1])
    left_out = [{"box": number, "reason": reason} for number, (_, reason) in smear.left_out.items()]
    return Sample(
        id=smear.name if tiles == 1 else f"{smear.name}-r{row}c{column}",
        patient=smear.name,
        study=smear.name,
        image=image,
        facts=facts_in(smear, frame, scales=scales),
        provenance={"collection": "BCCD", "license": "MIT", "tile": list(frame), "boxes_left_out": left_out},
    )


def tile(image: Image.Image, *, row: int, column: int, tiles: int) -> tuple[int, int, int, int]:
    """The piece of an image in this row and column, as (x1, y1, x2, y2)."""
    xs, ys = ([side * k // tiles for k in range(tiles + 1)] for side in image.size)
    return xs[column], ys[row], xs[column + 1], ys[row + 1]


def _resized(image: Image.Image, *, width: int | None) -> Image.Image:
    if width is None:
        return image
    height = max(1, round(width * image.height / image.width))
    return image.resize((width, height), Image.Resampling.BILINEAR)


def facts_in(smear: Smear, frame: Box, *, scales: tuple[float, float]) -> Facts:
    """What is true of the photograph within ``frame``, with boxes in pixels of that scaled part."""
    findings: dict[str, Finding] = {}
    for name in CELLS.values():
        boxes = [cell.box for cell in smear.cells if cell.finding == name]
        kept = [b for b in boxes if area(clipped(b, frame)) >= MIN_KEPT * area(b)]
        if kept:
            moved = tuple(_moved(clipped(b, frame), frame, scales) for b in kept)
            findings[name] = Finding(polarity="present", count=len(kept), boxes=moved)
        elif _may_be_absent(name, smear) and not any(area(clipped(b, frame)) for b in boxes):
            findings[name] = Finding(polarity="absent")
    return Facts(rule_set=RULE_SET, findings=findings)


def _may_be_absent(name: str, smear: Smear) -> bool:
    """Whether this photograph's labels of one kind are complete enough to say where there is none.

    Every photograph shows red and white cells; red cells at the edges are often without a label.
    """
    if name in {finding for finding, _ in smear.left_out.values()}:
        return False
    return name == "platelets" or (name == "white_cells" and name in {cell.finding for cell in smear.cells})


def _moved(box: Box, frame: Box, scales: tuple[float, float]) -> Box:
    (x1, y1, x2, y2), (left, top), (sx, sy) = box, frame[:2], scales
    return (x1 - left) * sx, (y1 - top) * sy, (x2 - left) * sx, (y2 - top) * sy
