"""Boxes: geometry, optimal matching, and boxes out of text.

All boxes are (x1, y1, x2, y2), half-open. Left out: rotated boxes, and guessing a coordinate space from the numbers.
"""

import math
import re
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from rewards.facts import Box
from rewards.text import answer_region

MAX_BOXES = 100
_N = r"\s*-?\d{1,12}(?:\.\d{1,12})?(?:[eE][-+]?\d{1,3})?\s*"
BOX = re.compile(rf"[\[(]({_N}),({_N}),({_N}),({_N})[\])]")
EMPTY = re.compile(r"\[\s*\]|\bnone\b|\bno (?:box|boxes|finding|findings)\b", re.IGNORECASE)


def area(box: Box) -> float:
    """Area in square units; 0 for an empty box.

    >>> area((0, 0, 2, 3))
    6
    """
    return max(0, box[2] - box[0]) * max(0, box[3] - box[1])


def is_valid(box: Box) -> bool:
    """True if all four numbers are finite and the box has an area."""
    return all(math.isfinite(v) for v in box) and box[2] > box[0] and box[3] > box[1]


def iou(a: Box, b: Box) -> float:
    """Intersection over union, in [0, 1].

    >>> round(iou((0, 0, 2, 2), (1, 1, 3, 3)), 6)
    0.142857
    """
    return float(iou_matrix([a], [b])[0, 0])


def giou(a: Box, b: Box) -> float:
    """Generalised IoU (Rezatofighi et al. 2019), in [-1, 1]; 1 only for equal boxes.

    >>> round(giou((0, 0, 2, 2), (1, 1, 3, 3)), 6)
    -0.079365
    """
    return float(giou_matrix([a], [b])[0, 0])


def iou_matrix(a: Sequence[Box], b: Sequence[Box]) -> np.ndarray:
    """IoU of each box of ``a`` (rows) with each of ``b`` (columns); 0 where both are empty."""
    overlap, union, _ = _areas(a, b)
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def giou_matrix(a: Sequence[Box], b: Sequence[Box]) -> np.ndarray:
    """GIoU of each box of ``a`` (rows) with each of ``b`` (columns)."""
    overlap, union, hull = _areas(a, b)
    ious = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return ious - np.divide(hull - union, hull, out=np.zeros_like(hull), where=hull > 0)


def _areas(a: Sequence[Box], b: Sequence[Box]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intersection, union and hull areas of each pair."""
    p, q = np.asarray(a, float).reshape(-1, 1, 4), np.asarray(b, float).reshape(1, -1, 4)
    inner = np.minimum(p[..., 2:], q[..., 2:]) - np.maximum(p[..., :2], q[..., :2])
    outer = np.maximum(p[..., 2:], q[..., 2:]) - np.minimum(p[..., :2], q[..., :2])
    overlap = np.clip(inner, 0, None).prod(-1)
    sizes = [np.clip(x[..., 2:] - x[..., :2], 0, None).prod(-1) for x in (p, q)]
    return overlap, sizes[0] + sizes[1] - overlap, outer.prod(-1)


def match_boxes(
    predicted: Sequence[Box], truth: Sequence[Box], overlap: np.ndarray | None = None
) -> list[tuple[int, int]]:
    """Pairs (index in predicted, index in truth), one-to-one, of the greatest total overlap (IoU by default)."""
    if not predicted or not truth:
        return []
    score = iou_matrix(predicted, truth) if overlap is None else overlap
    rows, columns = linear_sum_assignment(-score)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True)]


def parse_boxes(text: str) -> list[Box] | None:
    """The boxes of a response's answer region, at most 100, in the units as written.

    None: nothing there looks like a box. Empty list: it says that there is none, or every box is invalid.

    >>> parse_boxes("nodule [[12,34,56,78]]")
    [(12.0, 34.0, 56.0, 78.0)]
    >>> parse_boxes("[]"), parse_boxes("I cannot see it")
    ([], None)
    """
    region = answer_region(text)
    found = [_box(match) for match in BOX.finditer(region)]
    if found:
        return [box for box in found if is_valid(box)][:MAX_BOXES]
    return [] if EMPTY.search(region) else None


def _box(match: re.Match[str]) -> Box:
    x1, y1, x2, y2 = (float(v) for v in match.groups())
    return x1, y1, x2, y2


def labelled_boxes(text: str, phrases: re.Pattern[str]) -> tuple[str, list[tuple[str, Box]]]:
    """The text without its boxes, and each valid box with the last phrase named before it."""
    labels = [(m.end(), m.group()) for m in phrases.finditer(text)]
    found: list[tuple[str, Box]] = []
    place = -1
    for match in BOX.finditer(text):
        while place + 1 < len(labels) and labels[place + 1][0] <= match.start():
            place += 1
        box = _box(match)
        if place >= 0 and is_valid(box):
            found.append((labels[place][1], box))
    return re.sub(r"[\[(][\[(\]),\s]*[\])]", " ", BOX.sub("[]", text)) if found else text, found[:MAX_BOXES]
