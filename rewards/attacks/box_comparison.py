"""The box rewards side by side under scripted policies: which of them pays for what it should not.

``clinalign audit --boxes`` prints it. Boxes are in units of a 1000 x 1000 image; random boxes have a fixed seed.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rewards.loading import Reward, load_reward
from rewards.rules.facts import Box

SIZE = 1000
LESION: Box = (400, 400, 600, 600)
SECOND: Box = (100, 700, 200, 800)


@dataclass(frozen=True)
class Case:
    """One answer and the truth. ``honest``: what an honest reader may answer, so that no other case should beat it."""

    name: str
    answer: str
    truth: tuple[Box, ...]
    honest: bool = False


def contenders() -> Mapping[str, Reward]:
    """The rewards under comparison, by the name of their column."""
    return {
        "medmo published": _plain("medmo_box"),
        "medmo lambda .1": _plain("medmo_box", false_positive=0.1, false_negative=0.1),
        "medmo safe": _plain("medmo_box_safe"),
        "box_overlap": _plain("box_overlap"),
        "box_overlap giou": _plain("box_overlap", measure="giou"),
        "iou": _plain("box_measure", formula="iou"),
        "iou@.5": _plain("box_measure", formula="iou_at"),
        "mAP odLength": _plain("box_measure", formula="map_odlength"),
        "F1 x IoU": _plain("box_measure", formula="f_beta_iou"),
        "max(n)": _plain("box_measure", formula="max_normalised"),
    }


def _plain(name: str, **knobs: Any) -> Reward:
    reward = load_reward(name, **knobs)
    assert isinstance(reward, Reward)
    return reward


def cases() -> list[Case]:
    """Twenty answers: honest ones, near misses, and the known attacks."""
    one, two, none = (LESION,), (LESION, SECOND), ()
    touching = (LESION[2], LESION[1], LESION[2] + 200, LESION[3])
    return [
        Case("exact", _written([LESION]), one, honest=True),
        Case("shifted by a tenth", _written([_moved(LESION, 20, 20)]), one, honest=True),
        Case("a fifth too large", _written([(380, 380, 620, 620)]), one, honest=True),
        Case("half of it", _written([(400, 400, 500, 600)]), one),
        Case("edge touching", _written([touching]), one),
        Case("far corner", _written([(900, 0, 1000, 100)]), one),
        Case("whole image", _written([(0, 0, SIZE, SIZE)]), one),
        Case("central half", _written([(250, 250, 750, 750)]), one),
        Case("no area", _written([(500, 500, 500, 500)]), one),
        Case("nothing written", "", one),
        Case("none, though one is there", "[]", one),
        Case("said twice", _written([LESION, LESION]), one),
        Case("two of two", _written([LESION, SECOND]), two, honest=True),
        Case("one of two", _written([LESION]), two),
        Case("two of two and two false", _written([LESION, SECOND, (0, 0, 90, 90), (800, 0, 900, 80)]), two),
        Case("200 random boxes", _written(random_boxes(200)), two),
        Case("grid of 100 boxes", _written(_tiles(10)), two),
        Case("none where none is", "[]", none, honest=True),
        Case("one box where none is", _written([LESION]), none),
        Case("unreadable where none is", "I cannot say", none),
    ]


def random_boxes(number: int, *, seed: int = 0) -> list[Box]:
    """Boxes with a corner in 0..900 and sides of 50..300, cut at the image's edge."""
    rng = random.Random(seed)
    corners = [(rng.uniform(0, 900), rng.uniform(0, 900)) for _ in range(number)]
    return [(x, y, min(SIZE, x + rng.uniform(50, 300)), min(SIZE, y + rng.uniform(50, 300))) for x, y in corners]


def comparison() -> dict[str, dict[str, float | None]]:
    """Case -> reward -> score."""
    return {
        case.name: {
            name: reward(case.answer, boxes=[list(b) for b in case.truth], box_grid=SIZE)
            for name, reward in contenders().items()
        }
        for case in cases()
    }


def _moved(box: Box, x: float, y: float) -> Box:
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y


def _tiles(side: int) -> list[Box]:
    step = SIZE // side
    return [(x, y, x + step, y + step) for x in range(0, SIZE, step) for y in range(0, SIZE, step)]


def _written(boxes: list[Box]) -> str:
    return "lesion [" + ",".join("[" + ",".join(f"{v:.10g}" for v in box) + "]" for box in boxes) + "]"
