"""Boxes in a sequence of images (MedSG-Bench's tasks, Yue et al. 2025): the right box on the wrong image is wrong.

The benchmark scores one box by IoU and accuracy at 0.5; here several boxes, each with the number of its image, are
matched within each image. Left out: order among images that the question does not number.
"""

from collections.abc import Sequence

from rewards.boxes.coordinate_space import BoxSpace, Sizes, Units, true_boxes
from rewards.boxes.geometry import best_pairs, iou, table_of
from rewards.boxes.reading import read_boxes
from rewards.config.knobs import Amount
from rewards.reading.box_absence import says_none
from rewards.rules.facts import Box
from rewards.tasks import SEQUENCES

BOUNDS = (0.0, 1.0)
TASKS = SEQUENCES


def sequence_boxes(
    response: str,
    boxes: list[list[float]] | None,
    box_images: list[int] | None,
    target: str | None = None,
    rule_set: str | None = None,
    box_grid: int | None = None,
    image_size: Sizes | None = None,
    processed_size: Sizes | None = None,
    *,
    false_box_weight: Amount = 2.0,
    need_image: bool = True,
    box_space: BoxSpace = "grid",
) -> float | None:
    """Matched IoU within each image / (true boxes + ``false_box_weight`` x all other boxes), in [0, 1].

    ``box_images``: the image of each true box, counted from 1 as in "image 2". Without ``need_image``, a box without an
    image belongs to the one image that holds all true boxes, if there is one. None without truth; without true boxes,
    an answer that says so earns 1 (``box_absence``). Above a weight of 1, a box on every image is no hedge.

    >>> sequence_boxes("image 2: [[0,0,10,10]]", [[0, 0, 10, 10]], [2])
    1.0
    >>> sequence_boxes("image 1: [[0,0,10,10]]", [[0, 0, 10, 10]], [2])
    0.0
    """
    if boxes is None or box_images is None:
        return None
    units = Units(box_space, box_grid, image_size, processed_size)
    truth = _by_image(true_boxes(boxes, units, box_images), box_images)
    if not boxes:
        return float(says_none(response, target, rule_set))
    answered, num_void = _answered_boxes(response, box_images, need_image, units)
    matched = _matched(answered, truth)
    num_false = num_void + sum(map(len, answered.values())) - len(matched)
    return sum(matched) / (len(boxes) + false_box_weight * num_false)


def components(
    response: str,
    boxes: list[list[float]] | None,
    box_images: list[int] | None,
    target: str | None = None,
    rule_set: str | None = None,
    box_grid: int | None = None,
    image_size: Sizes | None = None,
    processed_size: Sizes | None = None,
    *,
    need_image: bool = True,
    box_space: BoxSpace = "grid",
    **_: float,
) -> dict[str, float]:
    """Mean IoU and share found at IoU 0.5 over true boxes, and boxes on images that hold none."""
    if not boxes or not box_images:
        return {}
    units = Units(box_space, box_grid, image_size, processed_size)
    answered = _answered_boxes(response, box_images, need_image, units)[0]
    matched = _matched(answered, _by_image(true_boxes(boxes, units, box_images), box_images))
    return {
        "mean_iou": sum(matched) / len(boxes),
        "found_at_50": sum(value >= 0.5 for value in matched) / len(boxes),
        "on_wrong_image": float(sum(len(found) for image, found in answered.items() if image not in box_images)),
    }


def _matched(answered: dict[int, list[Box]], truth: dict[int, list[Box]]) -> list[float]:
    """IoU of each matched pair of the same image."""
    found: list[float] = []
    for image, boxes in answered.items():
        ious = table_of(iou, boxes, truth.get(image, []))
        found += [ious[i][j] for i, j in best_pairs(ious)]
    return found


def _answered_boxes(
    response: str, box_images: Sequence[int], need_image: bool, units: Units
) -> tuple[dict[int, list[Box]], int]:
    """The boxes by image in the truth's units, and how many are invalid or belong to no image."""
    reading = read_boxes(response)
    only = box_images[0] if not need_image and len(set(box_images)) == 1 else None
    placed = [(b.box, only if b.image is None else b.image) for b in reading.boxes]
    known = [(units.read(box, image), image) for box, image in placed if image is not None]
    num_void = reading.num_invalid + len(placed) - len(known)
    return _by_image([box for box, _ in known], [image for _, image in known]), num_void


def _by_image(boxes: Sequence[Box], images: Sequence[int]) -> dict[int, list[Box]]:
    found: dict[int, list[Box]] = {}
    for box, image in zip(boxes, images, strict=True):
        found.setdefault(image, []).append(box)
    return found
