"""The field's other box rewards by the name of their formula, as published, for comparison.

Each is gamed in its own way (``clinalign audit --boxes``): IoU and thresholds do not see false boxes.
Train with ``box_overlap``.
"""

from typing import Literal

from rewards.boxes.coordinate_space import BoxSpace, Sizes, Units, answered_boxes, true_boxes
from rewards.boxes.geometry import Table, best_pairs, iou, is_valid, table_of
from rewards.config.knobs import Above, Share
from rewards.reading.box_absence import says_none
from rewards.reading.box_text import MAX_BOXES
from rewards.tasks import BOXED

BOUNDS = (0.0, 1.0)
TASKS = BOXED
Formula = Literal["iou", "iou_at", "map_odlength", "f_beta_iou", "max_normalised"]
COCO_THRESHOLDS = tuple(k / 100 for k in range(50, 100, 5))


def box_measure(
    response: str,
    boxes: list[list[float]] | None,
    target: str | None = None,
    rule_set: str | None = None,
    box_grid: int | None = None,
    image_size: Sizes | None = None,
    processed_size: Sizes | None = None,
    *,
    formula: Formula = "iou",
    threshold: Share = 0.5,
    beta: Above = 1.0,
    box_space: BoxSpace = "grid",
) -> float | None:
    """A box reward by its formula, in [0, 1]; None where the row has no box truth.

    ``iou``: matched IoU / true boxes. ``iou_at``: true boxes matched at ``threshold`` / true boxes (MedGround-R1 for
    one box). ``map_odlength``: COCO mAP with all confidences 1, times min(1, true / predicted) (VLM-R1).
    ``f_beta_iou``: F_beta of the boxes matched at ``threshold`` x their mean IoU. ``max_normalised``: matched IoU /
    max(true, predicted) (Visual-RFT, second version). Where no box is true, an answer that says so (``box_absence``)
    earns 1, any other 0.

    >>> box_measure("[[0,0,10,10]]", [[0, 0, 10, 20]]), box_measure("[[0,0,10,10]]", [[0, 0, 10, 20]], formula="iou_at")
    (0.5, 1.0)
    """
    if boxes is None:
        return None
    units = Units(box_space, box_grid, image_size, processed_size)
    truth = true_boxes(boxes, units)
    if not truth:
        return float(says_none(response, target, rule_set))
    written = answered_boxes(response, units) or []
    predicted = [box for box in written if is_valid(box)][:MAX_BOXES]
    ious = table_of(iou, predicted, truth)
    if formula == "map_odlength":
        return mean_average_precision(ious, len(truth)) * min(1.0, len(truth) / max(1, len(written)))
    matched = [ious[i][j] for i, j in best_pairs(ious)]
    hits = [value for value in matched if value >= threshold]
    if formula == "f_beta_iou":
        return f_beta(len(hits), len(written), len(truth), beta=beta) * sum(hits) / max(1, len(hits))
    if formula == "iou_at":
        return len(hits) / len(truth)
    return sum(matched) / (len(truth) if formula == "iou" else max(len(truth), len(written)))


def f_beta(hits: int, num_predicted: int, num_true: int, *, beta: float) -> float:
    """F_beta of ``hits`` among predicted and true boxes; ``beta`` above 1 weighs recall more.

    >>> f_beta(1, 2, 1, beta=1.0)
    0.6666666666666666
    """
    return (1 + beta**2) * hits / (beta**2 * num_true + num_predicted) if hits else 0.0


def mean_average_precision(ious: Table, num_true: int) -> float:
    """COCO's AP (mean over IoU .50:.05:.95, 101 recall points) of predictions of equal confidence, in their order."""
    return sum(_average_precision(ious, num_true, at) for at in COCO_THRESHOLDS) / len(COCO_THRESHOLDS)


def _average_precision(ious: Table, num_true: int, threshold: float) -> float:
    """Precision at 101 recalls, each the best at that recall or beyond."""
    taken: set[int] = set()
    precisions: list[float] = []  # of the first hit, the second, ...
    for seen, row in enumerate(ious, start=1):
        free = [(value, -j) for j, value in enumerate(row) if value >= threshold and j not in taken]
        if free:
            taken.add(-max(free)[1])
            precisions.append(len(taken) / seen)
    total, best = 0.0, 0.0
    for hits in range(len(precisions), 0, -1):
        best = max(best, precisions[hits - 1])
        total += best * (_recalls_up_to(hits, num_true) - (_recalls_up_to(hits - 1, num_true) if hits > 1 else 0))
    return total / 101


def _recalls_up_to(hits: int, num_true: int) -> int:
    """How many of the recalls 0, .01, ... 1 are reached with so many hits."""
    return 100 * hits // num_true + 1
