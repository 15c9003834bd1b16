"""Grounding over sequences of images: rows of MedSG-Bench's eight tasks (Yue et al. 2025, section 3.2) from masks.

The tasks are theirs, the images are ours: phantoms or one real CT. A row has several images and ``box_images``, the
image of each true box counted from 1. ``rewards.boxes.sequence_boxes`` scores them.
"""

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from data_builders.grounding.sequences import Sequence, View
from data_builders.imaging.images import png_bytes
from data_builders.rendering.render import box_answer
from data_builders.schema import assistant_turn, image_sizes, on_grid, user_turn
from rewards.rules.facts import Box, Facts, Finding
from rewards.rules.rule_set import load_rule_set

PATCH_MARGIN = 0.3
Row = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """One question about images. ``truth``: number of an image, counted from 1, and a box in pixels of it."""

    images: tuple[Image.Image, ...]
    question: str
    truth: tuple[tuple[int, Box], ...]


Task = Callable[[Sequence, "Words", random.Random], Asked]


@dataclass(frozen=True)
class Words:
    """How a sequence's finding is called, and boxes as text on the grid."""

    name: str
    grid: int

    def at(self, view: View) -> str:
        """The box of a view as text."""
        assert view.box is not None
        where = on_grid(view.box, width=view.image.width, height=view.image.height, grid=self.grid)
        return "[[" + ",".join(map(str, where)) + "]]"


def _registered_difference(seq: Sequence, words: Words, rng: random.Random) -> Asked:
    return _difference(seq, seq.before, rng)


def _non_registered_difference(seq: Sequence, words: Words, rng: random.Random) -> Asked:
    return _difference(seq, seq.before_moved, rng)


def _difference(seq: Sequence, without: View, rng: random.Random) -> Asked:
    pair = [without, seq.views[0]]
    rng.shuffle(pair)
    question = "What does one image show that the other does not? Name the image and box it."
    return _asked(pair, question, pair.index(seq.views[0]))


def _multi_view(seq: Sequence, words: Words, rng: random.Random) -> Asked:
    question = f"In image 1 the {words.name} is at {words.at(seq.views[0])}. Where is it in image 2, another view?"
    return _asked(seq.views[:2], question, 1)


def _object_tracking(seq: Sequence, words: Words, rng: random.Random) -> Asked:
    question = f"In image 1 the {words.name} is at {words.at(seq.views[0])}. Follow it through the other images."
    return _asked(seq.views, question, *range(1, len(seq.views)))


def _visual_concept(seq: Sequence, words: Words, rng: random.Random) -> Asked:
    question = f"Image 1 shows an example at {words.at(seq.example)}. Where is the same kind of finding in image 2?"
    return _asked([seq.example, seq.views[0]], question, 1)


def _visual_patch(seq: Sequence, words: Words, rng: random.Random) -> Asked:
    whole = seq.views[0]
    assert whole.box is not None
    part = _around(whole.box, whole.image, rng)
    patch = whole.image.crop(part).resize(whole.image.size, Image.Resampling.BILINEAR)
    return Asked((patch, whole.image), "Image 1 is a part of image 2. Box this part in image 2.", ((2, part),))


def _cross_modal(seq: Sequence, words: Words, rng: random.Random) -> Asked:
    question = (
        f"In image 1 the {words.name} is at {words.at(seq.views[0])}. Where is it in image 2, in another contrast?"
    )
    return _asked([seq.views[0], seq.other_contrast], question, 1)


def _referring(seq: Sequence, words: Words, rng: random.Random) -> Asked:
    shown = [seq.before, seq.before_moved, seq.views[1]]
    rng.shuffle(shown)
    question = f"One of these images shows a {words.name}. Which one, and where?"
    return _asked(shown, question, shown.index(seq.views[1]))


TASKS: Mapping[str, Task] = {
    "registered_difference": _registered_difference,
    "non_registered_difference": _non_registered_difference,
    "multi_view": _multi_view,
    "object_tracking": _object_tracking,
    "visual_concept": _visual_concept,
    "visual_patch": _visual_patch,
    "cross_modal": _cross_modal,
    "referring": _referring,
}


def _asked(views: Iterable[View], question: str, *answers: int) -> Asked:
    """``answers``: the places in ``views`` of the images that are asked for."""
    shown = tuple(views)
    truth = tuple((k + 1, box) for k in answers if (box := shown[k].box) is not None)
    assert len(truth) == len(answers)
    return Asked(tuple(view.image for view in shown), question, truth)


def _around(box: Box, image: Image.Image, rng: random.Random) -> Box:
    """A box around another, with an uneven margin, in whole pixels of the image."""
    x1, y1, x2, y2 = box
    left, right, top, bottom = (rng.uniform(0, PATCH_MARGIN) for _ in range(4))
    wide, high = x2 - x1, y2 - y1
    return (
        float(max(0, round(x1 - left * wide))),
        float(max(0, round(y1 - top * high))),
        float(min(image.width, round(x2 + right * wide))),
        float(min(image.height, round(y2 + bottom * high))),
    )


def rows_of_sequence(
    seq: Sequence, tasks: Iterable[str], *, split: str, grid: int, seed: int, source: str
) -> Iterator[Row]:
    """One row for each task, with the columns of instruction rows and of prompt rows."""
    for task in tasks:
        yield _row(seq, task, grid=grid, seed=seed) | {"source": source, "split": split}


def _row(seq: Sequence, task: str, *, grid: int, seed: int) -> Row:
    """Prompt, answer, true boxes on the grid with their images, and what every row has but its source and split."""
    rule = load_rule_set(seq.rule_set).findings[seq.finding]
    asked = TASKS[task](seq, Words(rule.name, grid), random.Random(f"{seed}/{seq.id}/{task}"))
    size = {"width": asked.images[0].width, "height": asked.images[0].height}
    boxes = [on_grid(box, **size, grid=grid) for _, box in asked.truth]
    said = [
        f"image {number}: {box_answer(Finding(polarity='present', boxes=(box,)), rule)}"
        for (number, _), box in zip(asked.truth, boxes, strict=True)
    ]
    answer = " ".join(said).replace(f": {rule.name} ", ": part ") if task == "visual_patch" else " ".join(said)
    return {
        "id": f"{seq.id}-{task}",
        "patient": seq.patient,
        "study": seq.patient,
        "task": task,
        "facts": Facts(rule_set=seq.rule_set, findings={seq.finding: Finding(polarity="present")}).to_json(),
        "rule_set": seq.rule_set,
        "provenance": json.dumps({"seed": seed, "finding": seq.finding}, sort_keys=True),
        "attributes": None,
        "may_leave": None,
        "images": [
            {"bytes": png_bytes(im), "path": f"{seq.id}-{task}-{k + 1}.png"} for k, im in enumerate(asked.images)
        ],
        "image_size": image_sizes(asked.images),
        "prompt": user_turn(asked.question, num_images=len(asked.images)),
        "completion": assistant_turn(answer),
        "answer": answer,
        "boxes": [[float(v) for v in box] for box in boxes],
        "box_grid": grid,
        "box_images": [number for number, _ in asked.truth],
        "target": None if task == "visual_patch" else seq.finding,
    }
