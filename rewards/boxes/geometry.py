"""Boxes: geometry and optimal matching.

All boxes are (x1, y1, x2, y2), half-open. Few boxes are compared in plain Python, many in numpy: to the same float64
values, but without numpy's cost a call, which is most of what a reward over three boxes costs. Left out: rotated boxes.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import permutations
from math import hypot

import numpy as np
from scipy.optimize import linear_sum_assignment

from rewards.reading.box_text import MAX_BOXES, is_valid, labelled_boxes, parse_boxes
from rewards.rules.facts import Box

__all__ = [
    "MAX_BOXES",
    "area",
    "best_pairs",
    "clipped",
    "corner_distance",
    "giou",
    "giou_matrix",
    "iou",
    "iou_matrix",
    "is_valid",
    "labelled_boxes",
    "match_boxes",
    "parse_boxes",
    "table_of",
]
FEW = 3
"""Up to so many boxes on the larger side, trying every assignment is faster than calling scipy."""
Table = list[list[float]]
"""One row a predicted box, one column a true box."""


def area(box: Box) -> float:
    """Area in square units; 0 for an empty box.

    >>> area((0, 0, 2, 3))
    6
    """
    wide, high = box[2] - box[0], box[3] - box[1]
    return wide * high if wide > 0 and high > 0 else 0


def iou(a: Box, b: Box) -> float:
    """Intersection over union, in [0, 1]; 0 where both are empty.

    >>> round(iou((0, 0, 2, 2), (1, 1, 3, 3)), 6)
    0.142857
    """
    ax1, ay1, ax2, ay2 = a
    bx1, by1, bx2, by2 = b
    wide = (ax2 if ax2 < bx2 else bx2) - (ax1 if ax1 > bx1 else bx1)
    high = (ay2 if ay2 < by2 else by2) - (ay1 if ay1 > by1 else by1)
    if wide <= 0 or high <= 0:
        return 0.0
    overlap = float(wide * high)
    return overlap / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - overlap)


def giou(a: Box, b: Box) -> float:
    """Generalised IoU (Rezatofighi et al. 2019), in [-1, 1]; 1 only for equal boxes; 0 where both are one point.

    >>> round(giou((0, 0, 2, 2), (1, 1, 3, 3)), 6)
    -0.079365
    """
    overlap = iou(a, b)
    ax1, ay1, ax2, ay2 = a
    bx1, by1, bx2, by2 = b
    wide = (ax2 if ax2 > bx2 else bx2) - (ax1 if ax1 < bx1 else bx1)
    high = (ay2 if ay2 > by2 else by2) - (ay1 if ay1 < by1 else by1)
    if wide <= 0 or high <= 0:
        return overlap
    hull = wide * high
    return overlap - (hull - (area(a) + area(b)) / (1 + overlap)) / hull


def corner_distance(a: Box, b: Box, *, width: float, height: float) -> float:
    """L1 distance of the corners over twice the image's diagonal (MedMO's L1 term), >= 0.

    >>> round(corner_distance((0, 0, 1000, 1000), (400, 400, 600, 600), width=1000, height=1000), 4)
    0.5657
    """
    sides = abs(a[0] - b[0]) + abs(a[1] - b[1]) + abs(a[2] - b[2]) + abs(a[3] - b[3])
    return sides / (2 * hypot(width, height))


def clipped(box: Box, *, width: float, height: float) -> Box:
    """The part of a box inside the image; without area where it lies fully outside.

    >>> clipped((-5, 90, 50, 120), width=100, height=100)
    (0, 90, 50, 100)
    """
    x1, y1, x2, y2 = box
    return min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)


def iou_matrix(a: Sequence[Box], b: Sequence[Box]) -> np.ndarray:
    """IoU of each box of ``a`` (rows) with each of ``b`` (columns); 0 where both are empty."""
    overlap, union, _ = _areas(a, b)
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def giou_matrix(a: Sequence[Box], b: Sequence[Box]) -> np.ndarray:
    """GIoU of each box of ``a`` (rows) with each of ``b`` (columns)."""
    overlap, union, hull = _areas(a, b)
    ious = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    # Rezatofighi et al. 2019: what the hull holds beyond the union grows with the distance of boxes that do not meet.
    return ious - np.divide(hull - union, hull, out=np.zeros_like(hull), where=hull > 0)


def _areas(a: Sequence[Box], b: Sequence[Box]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intersection, union and hull areas of each pair."""
    # Boxes of `a` along axis 0, of `b` along axis 1: every pair at once by broadcasting.
    p, q = np.asarray(a, float).reshape(-1, 1, 4), np.asarray(b, float).reshape(1, -1, 4)
    inner = np.minimum(p[..., 2:], q[..., 2:]) - np.maximum(p[..., :2], q[..., :2])
    outer = np.maximum(p[..., 2:], q[..., 2:]) - np.minimum(p[..., :2], q[..., :2])
    # Boxes apart have a negative side; clipped before the product, or two negative sides would make an area.
    overlap = np.clip(inner, 0, None).prod(-1)
    sizes = [np.clip(x[..., 2:] - x[..., :2], 0, None).prod(-1) for x in (p, q)]
    return overlap, sizes[0] + sizes[1] - overlap, np.clip(outer, 0, None).prod(-1)


def table_of(measure: Callable[[Box, Box], float], predicted: Sequence[Box], truth: Sequence[Box]) -> Table:
    """``measure`` of each predicted box (rows) with each true one (columns)."""
    return [[measure(p, t) for t in truth] for p in predicted]


def best_pairs(score: Table) -> list[tuple[int, int]]:
    """Pairs (row, column), one-to-one, of the greatest total score; each of the shorter side has a partner.

    >>> best_pairs([[0.9, 0.8], [0.8, 0.1]])
    [(0, 1), (1, 0)]
    """
    width = len(score[0]) if score else 0
    if len(score) > width:
        return sorted((i, j) for j, i in best_pairs([list(column) for column in zip(*score, strict=True)]))
    wished = [row.index(max(row)) for row in score]
    if len(set(wished)) == len(wished):  # each row has its best column: no assignment can be better
        return list(enumerate(wished))
    if width > FEW:
        taken = linear_sum_assignment(np.asarray(score), maximize=True)
        return list(zip(*(side.tolist() for side in taken), strict=True))
    chosen = _assignments(len(score), width)
    return list(
        enumerate(max(chosen, key=lambda columns: sum([row[j] for row, j in zip(score, columns, strict=True)])))
    )


@cache
def _assignments(few: int, many: int) -> tuple[tuple[int, ...], ...]:
    return tuple(permutations(range(many), few))


def match_boxes(
    predicted: Sequence[Box], truth: Sequence[Box], overlap: np.ndarray | None = None
) -> list[tuple[int, int]]:
    """Pairs (index in predicted, index in truth), one-to-one, of the greatest total overlap (IoU by default)."""
    return best_pairs((iou_matrix(predicted, truth) if overlap is None else overlap).tolist())
