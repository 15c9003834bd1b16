"""MedMO's box reward as published: mostly an L1 reward, and known to be gamed. For reproduction and comparison.

A box of the whole image earns 0.459 on a lesion of a fifth of the width, a box that only touches it 0.756, and without
a penalty 200 random boxes earn 0.825 on two lesions, as ``clinalign audit --boxes`` prints. ``medmo_box_safe`` closes
each of these. Left out: MedMO's other three signals (``closed_answer``, ``tag_count``, ``soft_overlong``).
"""

from rewards.boxes.coordinate_space import BoxSpace, Extent, Sizes, Units, answered_boxes, true_boxes
from rewards.boxes.geometry import best_pairs, corner_distance, giou, table_of
from rewards.config.input_error import InputError
from rewards.config.knobs import Amount
from rewards.reading.box_absence import says_none
from rewards.reading.box_text import MAX_BOXES
from rewards.rules.facts import Box
from rewards.tasks import BOXED

BOUNDS = (0.0, 1.0)
TASKS = BOXED
L1_WEIGHT, GIOU_WEIGHT = 5.0, 2.0


def similarity(a: Box, b: Box, *, width: float, height: float) -> float:
    """S of one pair, in [0, 1] (MedMO's s_ij): (5 (1 - clip(L1)) + 2 (GIoU + 1) / 2) / 7.

    >>> round(similarity((100, 100, 200, 200), (120, 120, 220, 220), width=1000, height=1000), 3)
    0.896
    """
    return _similarity(corner_distance(a, b, width=width, height=height), giou(a, b))


def cost(a: Box, b: Box, *, width: float, height: float) -> float:
    """What the matching minimises: 5 L1 + 2 (1 - GIoU)."""
    return -_negative_cost(corner_distance(a, b, width=width, height=height), giou(a, b))


def _similarity(distance: float, generalised_iou: float) -> float:
    near = 1 - distance if distance < 1 else 0.0
    return (L1_WEIGHT * near + GIOU_WEIGHT * (generalised_iou + 1) / 2) / (L1_WEIGHT + GIOU_WEIGHT)


def _negative_cost(distance: float, generalised_iou: float) -> float:
    return -L1_WEIGHT * distance - GIOU_WEIGHT * (1 - generalised_iou)


def medmo_box(
    response: str,
    boxes: list[list[float]] | None,
    target: str | None = None,
    rule_set: str | None = None,
    box_grid: int | None = None,
    image_size: Sizes | None = None,
    processed_size: Sizes | None = None,
    *,
    false_negative: Amount = 0.0,
    false_positive: Amount = 0.0,
    box_space: BoxSpace = "grid",
) -> float | None:
    """R_bbox of MedMO (arXiv 2602.06965, stage 4): matched similarity over true boxes, less the penalties, in [0, 1].

    ``false_negative``, ``false_positive``: lambda_FN and lambda_FP, which the paper leaves open (0 here). It is
    undefined without true boxes: here an answer that says so earns 1 (``box_absence``), any other 0. None where the
    row has no box truth. Lengths are shares of the image, so a row needs ``box_grid`` or ``image_size``.

    >>> round(medmo_box("[[0,0,100,100]]", [[40, 40, 60, 60]], box_grid=100), 3)
    0.459
    """
    if boxes is None:
        return None
    units = Units(box_space, box_grid, image_size, processed_size)
    truth = true_boxes(boxes, units)
    if not truth:
        return float(says_none(response, target, rule_set))
    width, height = image_extent(units)
    written = answered_boxes(response, units)
    predicted = (written or [])[:MAX_BOXES]
    distances = [[corner_distance(p, t, width=width, height=height) for t in truth] for p in predicted]
    gious = table_of(giou, predicted, truth)
    pairs = best_pairs([list(map(_negative_cost, *rows)) for rows in zip(distances, gious, strict=True)])
    matched = sum([_similarity(distances[i][j], gious[i][j]) for i, j in pairs])
    missed, false = len(truth) - len(pairs), len(written or []) - len(pairs)
    return min(1.0, max(0.0, (matched - false_negative * missed - false_positive * false) / len(truth)))


def image_extent(units: Units) -> Extent:
    """Width and height of the image in the truth's units.

    Raises: InputError where the row does not say.
    """
    extent = units.extent()
    if extent is None:
        raise InputError(
            "MedMO's similarity is in shares of the image, and the row has neither 'box_grid' nor 'image_size'. "
            "Add one of the two columns, or use box_overlap."
        )
    return extent


def components(
    response: str,
    boxes: list[list[float]] | None,
    target: str | None = None,
    rule_set: str | None = None,
    box_grid: int | None = None,
    image_size: Sizes | None = None,
    processed_size: Sizes | None = None,
    *,
    box_space: BoxSpace = "grid",
    **_: float,
) -> dict[str, float]:
    """Number of boxes, false ones and missed ones, and the largest share of the image that one box covers."""
    units = Units(box_space, box_grid, image_size, processed_size)
    written, truth = answered_boxes(response, units) or [], true_boxes(boxes or [], units)
    extent = units.extent()
    image = extent[0] * extent[1] if extent else float("inf")
    shares = [max(0.0, x2 - x1) * max(0.0, y2 - y1) / image for x1, y1, x2, y2 in written]
    return {
        "num_boxes": float(len(written)),
        "false_boxes": float(max(0, len(written) - len(truth))),
        "missed_boxes": float(max(0, len(truth) - len(written))),
        "largest_share": max(shares, default=0.0),
    }
