"""MedMO's box reward mended: its similarity, with nothing to gain from the ways in which the published one is gamed.

A pair counts only above an IoU, and only by what it earns beyond the whole image; false and missed boxes cost. So a
whole-image box, a touching box, a repeated box and a hallucinated box never pay.
"""

from rewards.box_space import true_boxes
from rewards.box_text import MAX_BOXES, written_boxes
from rewards.boxes import best_pairs, clipped, iou, is_valid, table_of
from rewards.facts import Box
from rewards.knobs import Amount, Share
from rewards.medmo_box import similarity
from rewards.tasks import BOXED

BOUNDS = (0.0, 1.0)
TASKS = BOXED


def medmo_box_safe(
    response: str,
    boxes: list[list[float]] | None,
    *,
    width: float = 100.0,
    height: float = 100.0,
    false_negative: Amount = 0.25,
    false_positive: Amount = 0.25,
    least_iou: Share = 0.2,
) -> float | None:
    """Sum of gains over true boxes, less the penalties, in [0, 1]; None where the row has no box truth.

    The gain of a pair is (s - s0) / (1 - s0), with s as in ``medmo_box`` and s0 the s of the whole image, if their IoU
    is above ``least_iou``, else there is no pair. Boxes are clipped to the image; one without area, or said before,
    is a false one. Without true boxes, "none" earns 1 and any box or unreadable text 0.

    >>> medmo_box_safe("[[40,40,60,60]]", [[40, 40, 60, 60]]), medmo_box_safe("[[0,0,100,100]]", [[40, 40, 60, 60]])
    (1.0, 0.0)
    """
    if boxes is None:
        return None
    written, truth = written_boxes(response), true_boxes(boxes)
    if written is None or not truth:
        return float(written == [] and not truth)
    inside = [clipped(box, width=width, height=height) for box in written]
    predicted = [box for box in dict.fromkeys(inside) if is_valid(box)][:MAX_BOXES]
    gains = table_of(lambda p, t: _gain(p, t, width, height, least_iou), predicted, truth)
    pairs = [(i, j) for i, j in best_pairs(gains) if gains[i][j] > 0]
    earned = sum([gains[i][j] for i, j in pairs])
    penalty = false_negative * (len(truth) - len(pairs)) + false_positive * (len(written) - len(pairs))
    return min(1.0, max(0.0, (earned - penalty) / len(truth)))


def _gain(box: Box, true: Box, width: float, height: float, least_iou: float) -> float:
    overlap = iou(box, true)
    if overlap <= least_iou:
        return 0.0
    floor = similarity((0.0, 0.0, width, height), true, width=width, height=height)
    if floor >= 1.0:  # the whole image is the truth
        return overlap
    return max(0.0, (similarity(box, true, width=width, height=height) - floor) / (1 - floor))
