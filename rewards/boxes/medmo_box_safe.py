"""MedMO's box reward mended: its similarity, with nothing to gain from the ways in which the published one is gamed.

A pair counts only above an IoU, and only by what it earns beyond the whole image; misses and false boxes divide what is
earned. So a whole-image box, a touching box, a repeated box and a hallucinated box never pay, nor does a hedge: what
``box_overlap`` says of the weight of false boxes holds here too, and taking penalties off a sum that is cut at 0, as
the published form does, would pay for the risk (two boxes for one of two places: 0.75 against 0.5).
"""

from rewards.boxes.coordinate_space import BoxSpace, Extent, Sizes, Units, answered_boxes, true_boxes
from rewards.boxes.geometry import MAX_BOXES, best_pairs, iou, is_valid, table_of
from rewards.boxes.medmo_box import image_extent, similarity
from rewards.config.knobs import Amount, Share
from rewards.reading.box_absence import says_none
from rewards.rules.facts import Box
from rewards.tasks import BOXED

BOUNDS = (0.0, 1.0)
TASKS = BOXED


def medmo_box_safe(
    response: str,
    boxes: list[list[float]] | None,
    target: str | None = None,
    rule_set: str | None = None,
    box_grid: int | None = None,
    image_size: Sizes | None = None,
    processed_size: Sizes | None = None,
    *,
    false_negative: Amount = 0.25,
    false_positive: Amount = 2.0,
    least_iou: Share = 0.2,
    box_space: BoxSpace = "grid",
) -> float | None:
    """Sum of gains / (true boxes + ``false_negative`` x missed + ``false_positive`` x boxes beyond the true ones).

    In [0, 1]; None where the row has no box truth. The gain of a pair is (s - s0) / (1 - s0), with s as in
    ``medmo_box`` and s0 the s of the whole image, if their IoU is above ``least_iou``, else 0 and missed. A box without
    area, or said before, is a false one; one that stands out of the image is the less alike. Without true boxes, an
    answer that says so earns 1 (``box_absence``), any other 0. A row needs ``box_grid`` or ``image_size``.

    >>> medmo_box_safe("[[40,40,60,60]]", [[40, 40, 60, 60]], box_grid=100)
    1.0
    >>> medmo_box_safe("[[0,0,100,100]]", [[40, 40, 60, 60]], box_grid=100)
    0.0
    """
    if boxes is None:
        return None
    units = Units(box_space, box_grid, image_size, processed_size)
    truth = true_boxes(boxes, units)
    if not truth:
        return float(says_none(response, target, rule_set))
    extent, written = image_extent(units), answered_boxes(response, units) or []
    predicted = [box for box in dict.fromkeys(written) if is_valid(box)][:MAX_BOXES]
    gains = table_of(lambda p, t: _gain(p, t, extent, least_iou), predicted, truth)
    pairs = best_pairs(gains)
    earned = [gains[i][j] for i, j in pairs if gains[i][j] > 0]
    missed, false = len(truth) - len(earned), len(written) - len(pairs)
    return sum(earned) / (len(truth) + false_negative * missed + false_positive * false)


def _gain(box: Box, true: Box, extent: Extent, least_iou: float) -> float:
    overlap = iou(box, true)
    if overlap <= least_iou:
        return 0.0
    width, height = extent
    floor = similarity((0.0, 0.0, width, height), true, width=width, height=height)
    if floor >= 1.0:  # the whole image is the truth
        return overlap
    return max(0.0, (similarity(box, true, width=width, height=height) - floor) / (1 - floor))
