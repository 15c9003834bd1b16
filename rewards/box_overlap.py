"""Box overlap under optimal one-to-one matching: the verifiable reward of grounding.

A false box costs as much as a true one earns at best, so that neither spam nor the whole image pays.
Left out: labels (``finding_boxes``) and MedMO's published L1 + GIoU formula (``medmo_box``).
"""

from typing import Literal

from rewards.box_space import Space, in_truth_units, true_boxes
from rewards.boxes import MAX_BOXES, best_pairs, giou, iou, is_valid, table_of
from rewards.knobs import Amount
from rewards.tasks import BOXED

BOUNDS = (0.0, 1.0)
TASKS = BOXED


def box_overlap(
    response: str,
    boxes: list[list[float]] | None,
    *,
    measure: Literal["iou", "giou"] = "iou",
    false_box_weight: Amount = 1.0,
    space: Space | None = None,
    grid: int = 100,
    image_size: list[int] | None = None,
) -> float | None:
    """Sum of matched overlaps / (true boxes + ``false_box_weight`` x unmatched predicted boxes), in [0, 1].

    ``giou`` is scaled as (GIoU + 1) / 2 and, unlike IoU, tells near from far misses. A box without area, or said
    before, is a false one.
    No box where none is true earns 1; unreadable text earns 0; None where the row has no box truth. ``space``,
    ``grid``, ``image_size``: see ``rewards.box_space``; by default response and truth share their units.

    >>> box_overlap("nodule [[0,0,10,10]]", [[0, 0, 10, 10]]), box_overlap("somewhere", [[0, 0, 10, 10]])
    (1.0, 0.0)
    """
    if boxes is None:
        return None
    written = in_truth_units(response, space=space, grid=grid, image_size=image_size)
    if written is None:
        return 0.0
    truth = true_boxes(boxes)
    if not truth:
        return float(not written)
    predicted = [box for box in dict.fromkeys(written) if is_valid(box)][:MAX_BOXES]
    score = table_of(iou if measure == "iou" else giou, predicted, truth)
    pairs = best_pairs(score)
    total = sum([score[i][j] if measure == "iou" else (score[i][j] + 1) / 2 for i, j in pairs])
    return total / (len(truth) + false_box_weight * max(0, len(written) - len(pairs)))


def components(
    response: str,
    boxes: list[list[float]] | None,
    *,
    space: Space | None = None,
    grid: int = 100,
    image_size: list[int] | None = None,
    **_: object,
) -> dict[str, float]:
    """Mean IoU over true boxes, number of predicted boxes (invalid ones too), whether the response could be read."""
    written = in_truth_units(response, space=space, grid=grid, image_size=image_size)
    predicted, truth = [b for b in written or [] if is_valid(b)][:MAX_BOXES], true_boxes(boxes or [])
    ious = table_of(iou, predicted, truth)
    matched = sum(ious[i][j] for i, j in best_pairs(ious))
    return {
        "mean_iou": matched / len(truth) if truth else float(not written),
        "num_boxes": float(len(written or [])),
        "parsed": float(written is not None),
    }
