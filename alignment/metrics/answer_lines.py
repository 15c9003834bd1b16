"""A line of ``answers.jsonl``: a row's truth, and what was answered to it under each condition."""

from collections.abc import Sequence
from typing import NotRequired, TypedDict

from rewards.boxes.geometry import Box


class LineFacts(TypedDict):
    """Facts as a line holds them; what else there is of them is read by ``rewards.rules.facts``."""

    rule_set: str
    findings: NotRequired[dict[str, dict[str, object]]]


class AnswerLine(TypedDict):
    """One row and its answers by condition (in a dialogue, the model's turns).

    Beside these stand the columns of units, of a dialogue and of a curriculum, where the row has them.
    """

    id: str
    patient: str
    task: str
    finding: str | None
    question: str
    answer: str | None
    true_boxes: list[Box] | None
    facts: LineFacts
    image: str | None
    responses: dict[str, str | list[str]]
    counts: dict[str, float]
    unjudged: str | None
    boxes: Sequence[Box]
    sentences: list[tuple[str, bool]]


class DialogueLine(AnswerLine):
    """A line of a dialogue's row, which holds the dialogue itself (``rewards.dialogues.dialogue``)."""

    dialogue: str
