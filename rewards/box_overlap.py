"""Box overlap under optimal one-to-one matching: the verifiable reward of grounding.

A false box costs as much as a true one earns at best, so that neither spam nor the whole image pays.
Left out: labelled boxes and MedMO's published L1 + GIoU formula.
"""

from typing import Literal

import numpy as np

from rewards.boxes import Box, giou_matrix, iou_matrix, match_boxes, parse_boxes

BOUNDS = (0.0, 1.0)


def box_overlap(
    response: str,
    boxes: list[list[float]] | None,
    *,
    measure: Literal["iou", "giou"] = "iou",
    false_box_weight: float = 1.0,
) -> float | None:
    """Sum of matched overlaps / (true boxes + ``false_box_weight`` x unmatched predicted boxes), in [0, 1].

    ``boxes`` in the units of the response. ``giou`` is scaled as (GIoU + 1) / 2 and, unlike IoU, tells near from far
    misses. No box where none is true earns 1; unreadable text earns 0; None where the row has no box truth.

    >>> box_overlap("nodule [[0,0,10,10]]", [[0, 0, 10, 10]]), box_overlap("somewhere", [[0, 0, 10, 10]])
    (1.0, 0.0)
    """
    if boxes is None:
        return None
    predicted = parse_boxes(response)
    if predicted is None:
        return 0.0
    truth = _truth(boxes)
    if not truth:
        return float(not predicted)
    score = iou_matrix(predicted, truth) if measure == "iou" else (giou_matrix(predicted, truth) + 1) / 2
    pairs = match_boxes(predicted, truth, score)
    false_boxes = max(0, len(predicted) - len(pairs))
    return float(sum(score[pair] for pair in pairs)) / (len(truth) + false_box_weight * false_boxes)


def components(
    response: str,
    boxes: list[list[float]] | None,
    *,
    measure: Literal["iou", "giou"] = "iou",
    false_box_weight: float = 1.0,
) -> dict[str, float]:
    """Mean IoU over true boxes, number of predicted boxes, whether the response could be read."""
    del measure, false_box_weight
    predicted, truth = parse_boxes(response) or [], _truth(boxes or [])
    ious = iou_matrix(predicted, truth)
    matched = sum(ious[pair] for pair in match_boxes(predicted, truth, ious)) if truth and predicted else 0.0
    return {
        "mean_iou": float(matched) / len(truth) if truth else float(not predicted),
        "num_boxes": float(len(predicted)),
        "parsed": float(parse_boxes(response) is not None),
    }


def _truth(boxes: list[list[float]]) -> list[Box]:
    return [(b[0], b[1], b[2], b[3]) for b in np.asarray(boxes, float).reshape(-1, 4).tolist()]
