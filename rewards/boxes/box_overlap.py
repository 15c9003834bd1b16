"""Box overlap under optimal one-to-one matching: the verifiable reward of grounding.

False boxes cost more than a guess among them earns, so that no hedge, spam or whole image pays. Say a lesion is at one
of k places, each as likely: of m boxes at m of them one is right with probability m/k, and then earns
1 / (1 + w (m - 1)) under the weight w of false boxes. That is 1/k for m = 1; for w = 1 it is 1/k for every m (a hedge
is free), for w < 1 it grows with m (a hedge pays), for w > 1 it falls: 2/3 of 1/k for two boxes at w = 2. With n
lesions the same holds of every box beyond the n-th: n m / k / (n + w (m - n)).
Left out: labels (``finding_boxes``) and MedMO's published L1 + GIoU formula (``medmo_box``).
"""

from typing import Literal

from rewards.boxes.coordinate_space import BoxSpace, Sizes, Units, answered_boxes, true_boxes
from rewards.boxes.geometry import MAX_BOXES, best_pairs, giou, iou, is_valid, table_of
from rewards.config.knobs import Amount
from rewards.reading.box_absence import says_none
from rewards.tasks import BOXED

BOUNDS = (0.0, 1.0)
TASKS = BOXED


def box_overlap(
    response: str,
    boxes: list[list[float]] | None,
    target: str | None = None,
    rule_set: str | None = None,
    box_grid: int | None = None,
    image_size: Sizes | None = None,
    processed_size: Sizes | None = None,
    *,
    measure: Literal["iou", "giou"] = "iou",
    false_box_weight: Amount = 2.0,
    box_space: BoxSpace = "grid",
) -> float | None:
    """Sum of matched overlaps / (true boxes + ``false_box_weight`` x predicted boxes beyond them), in [0, 1].

    ``giou`` is scaled as (GIoU + 1) / 2 and, unlike IoU, tells near from far misses. A box without area, or said
    before, is a false one; one that stands out of the image overlaps the less.
    Where no box is true, an answer that says so earns 1 (``box_absence``), any box and anything else 0; None where the
    row has no box truth. ``box_space`` and the row's units: see ``rewards.boxes.coordinate_space``.

    >>> box_overlap("nodule [[0,0,10,10]]", [[0, 0, 10, 10]]), box_overlap("somewhere", [[0, 0, 10, 10]])
    (1.0, 0.0)
    """
    if boxes is None:
        return None
    units = Units(box_space, box_grid, image_size, processed_size)
    truth = true_boxes(boxes, units)
    if not truth:
        return float(says_none(response, target, rule_set))
    written = answered_boxes(response, units) or []
    predicted = [box for box in dict.fromkeys(written) if is_valid(box)][:MAX_BOXES]
    score = table_of(iou if measure == "iou" else giou, predicted, truth)
    pairs = best_pairs(score)
    total = sum([score[i][j] if measure == "iou" else (score[i][j] + 1) / 2 for i, j in pairs])
    return total / (len(truth) + false_box_weight * (len(written) - len(pairs)))


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
    **_: object,
) -> dict[str, float]:
    """Mean IoU over true boxes, number of predicted boxes (invalid ones too), whether the response could be read."""
    units = Units(box_space, box_grid, image_size, processed_size)
    written, truth = answered_boxes(response, units), true_boxes(boxes or [], units)
    predicted = [b for b in written or [] if is_valid(b)][:MAX_BOXES]
    ious = table_of(iou, predicted, truth)
    matched = sum(ious[i][j] for i, j in best_pairs(ious))
    none = says_none(response, target, rule_set)
    return {
        "mean_iou": matched / len(truth) if truth else float(none),
        "num_boxes": float(len(written or [])),
        "parsed": float(written is not None or none),
    }
