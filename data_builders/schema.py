"""The rows of a built data set: instruction, preference and prompt rows, in the columns that TRL reads natively.

``images`` is always a list; messages use structured content blocks, one ``image`` block for each image, in order.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from PIL import Image

from rewards.boxes.geometry import is_valid
from rewards.config.input_error import InputError
from rewards.config.json_lines import json_value
from rewards.rules.facts import Box, Facts

RowKind = Literal["instruction", "preference", "prompt"]
Task = Literal["presence", "side", "size", "count", "box", "report"]
WrittenTask = Literal["closed", "open", "report"]
Message = dict[str, Any]
HALF_A_PIXEL = 0.5
"""By how much a scaled box may stand out of its image."""


@dataclass(frozen=True)
class Sample:
    """What a source yields: one image with everything known of it.

    ``facts`` hold boxes in pixels of ``image``. ``group`` is what must stay in one split (the patient).
    ``masks`` are not kept here: a source that has them draws them on demand. ``more_images`` follow the first, of
    which alone boxes speak; ``image_turns``: for each of them, the turn of a dialogue (from 1) that it opens.
    ``report``: what a clinician wrote about it.
    """

    id: str
    patient: str
    study: str
    image: Image.Image
    facts: Facts
    provenance: dict[str, Any] = field(default_factory=dict[str, Any])
    more_images: tuple[Image.Image, ...] = ()
    image_turns: tuple[int, ...] = ()
    report: str = ""

    @property
    def images(self) -> tuple[Image.Image, ...]:
        """All images, in order."""
        return (self.image, *self.more_images)


@dataclass(frozen=True)
class Written:
    """What a source yields whose words are given and whose facts are not known: a question, its answer, its images.

    ``rejected``: a wrong answer, where the source has one; ``rejected_images``: what it stands under, where that
    differs. ``names`` of the images tell repeated questions apart. ``split``: the source's own, where it has one.
    ``relevance`` of the pair in [0, 1] (None: not known), and the ``weight`` it was given. ``messages``: where there
    is more than a question under its images (a system prompt, earlier turns, images between words), all of it, up to
    the answer. ``reference``: further columns of prompt rows, such as ``options``. ``notes``: what the card counts.
    ``patient_known``: whether ``patient`` is one, and not what stands for an image.
    """

    id: str
    patient: str
    study: str
    images: tuple[Image.Image, ...]
    names: tuple[str, ...]
    question: str
    answer: str
    task: str
    rejected: str | None = None
    rejected_images: tuple[Image.Image, ...] = ()
    weight: float = 1.0
    relevance: float | None = None
    split: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict[str, Any])
    messages: tuple[Message, ...] = ()
    reference: dict[str, Any] = field(default_factory=dict[str, Any])
    notes: tuple[str, ...] = ()
    patient_known: bool = True


@dataclass(frozen=True)
class Quarantined:
    """What a source yields in place of a sample that cannot be used: its id and why. Never dropped in silence."""

    id: str
    reason: str


def user_turn(question: str, *, num_images: int = 1) -> list[Message]:
    """The prompt: one user message with its images first.

    >>> [block["type"] for block in user_turn("Is there a nodule?")[0]["content"]]
    ['image', 'text']
    """
    images: list[dict[str, Any]] = [{"type": "image", "text": None} for _ in range(num_images)]
    return [{"role": "user", "content": [*images, {"type": "text", "text": question}]}]


def assistant_turn(text: str) -> list[Message]:
    """The completion: one assistant message."""
    return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]


def message_text(messages: list[Message]) -> str:
    """The words of messages, without image blocks.

    >>> message_text(user_turn("Is there a nodule?"))
    'Is there a nodule?'
    """
    return "\n".join(block["text"] for m in messages for block in m["content"] if block["type"] == "text")


def provenance_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the ``provenance`` of a row tells; nothing where it has none.

    Raises: InputError naming the row if it is no JSON object.

    >>> provenance_of({"id": "a", "provenance": '{"flaw": "side"}'})
    {'flaw': 'side'}
    """
    place, cure = f"row {row['id']}: 'provenance'", "Write it as a JSON object, or leave it null."
    provenance = json_value(row["provenance"], place, cure) if row.get("provenance") else {}
    if not isinstance(provenance, dict):
        raise InputError(f"{place}: expected an object, got {type(provenance).__name__}. {cure}")
    return cast(dict[str, Any], provenance)


def on_grid(box: Box, *, width: int, height: int, grid: int) -> tuple[int, int, int, int]:
    """The box in whole units of a ``grid`` x ``grid`` image, rounded outward no further than the image.

    A box never becomes empty: each side is at least one unit long.

    >>> on_grid((64.0, 0.0, 128.0, 32.0), width=128, height=128, grid=100)
    (50, 0, 100, 25)
    """
    x1, y1, x2, y2 = (round(v * grid / side) for v, side in zip(box, (width, height, width, height), strict=True))
    x1, y1 = min(x1, grid - 1), min(y1, grid - 1)
    return x1, y1, min(max(x2, x1 + 1), grid), min(max(y2, y1 + 1), grid)


def box_fault(box: Box, name: str, size: tuple[int, int]) -> str | None:
    """Why a box of a finding cannot be one in an image of this size; None where it can.

    >>> box_fault((0.0, 0.0, 70.0, 5.0), "nodule", (64, 64))
    "box [0.0, 0.0, 70.0, 5.0] of 'nodule' is not inside the image of 64 x 64 pixels"
    """
    if not is_valid(box):
        return f"box {[*box]} of '{name}' has no area"
    if min(box) < -HALF_A_PIXEL or any(v > side + HALF_A_PIXEL for v, side in zip(box, (*size, *size), strict=True)):
        return f"box {[*box]} of '{name}' is not inside the image of {size[0]} x {size[1]} pixels"
    return None


def facts_on_grid(facts: Facts, *, width: int, height: int, grid: int) -> Facts:
    """The facts with boxes in the units in which words state them (0..``grid`` on both axes)."""
    moved = {
        name: f.model_copy(update={"boxes": tuple(on_grid(b, width=width, height=height, grid=grid) for b in f.boxes)})
        for name, f in facts.findings.items()
    }
    return facts.model_copy(update={"findings": moved})


def image_sizes(images: Iterable[Image.Image]) -> list[list[int]]:
    """The column ``image_size``: [width, height] of each image as it is stored, upright.

    >>> image_sizes([Image.new("L", (64, 32))])
    [[64, 32]]
    """
    return [[image.width, image.height] for image in images]


def row_always(
    sample: Sample | Written, *, split: str, source: str, task: str, row_id: str, facts: Facts
) -> dict[str, Any]:
    """The columns that every row has, whatever its kind (``facts`` with boxes on the grid).

    ``attributes`` (of patient and acquisition) and ``may_leave`` are null: not known.
    """
    return {
        "id": row_id,
        "patient": sample.patient,
        "study": sample.study,
        "source": source,
        "split": split,
        "task": task,
        "facts": facts.to_json(),
        "rule_set": facts.rule_set,
        "provenance": json.dumps(sample.provenance, sort_keys=True),
        "image_size": image_sizes(sample.images),
        "attributes": None,
        "may_leave": None,
    }
