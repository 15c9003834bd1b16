"""What a record gives to judge an answer by: its task, the right answers, the options, the boxes.

Left out: guesses from the words of a question. Without a task, its kind follows from what the record has.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from data_builders.formats.record_images import RecordError
from data_builders.schema import box_fault
from rewards.answers.choice_answer import option_named
from rewards.answers.final_answer import final_words
from rewards.row_types import KINDS, shown
from rewards.tasks import KNOWN

YES_NO = ("yes", "no")
REFERENCES = ("answer", "solution")
"""Keys of the short right answer beside a message that reasons first."""
LETTERS = "ABCDEFGHIJ"
"""Columns of options (MMBench), and keys of lettered ones."""
Size = tuple[int, int]


@dataclass(frozen=True)
class Reference:
    """``answer``: by which an answer is right; ``columns``: further ones of a prompt row. ``notes``: for the card."""

    task: str
    answer: str
    columns: dict[str, Any] = field(default_factory=dict[str, Any])
    notes: tuple[str, ...] = ()


def reference(values: dict[str, Any], last: str, sizes: Sequence[Size]) -> Reference:
    """What a record, whose last message says ``last`` and whose images have these sizes, gives to judge by.

    Raises: RecordError for options that the answer is none of, and for boxes that are none.

    >>> reference({"answer": "B", "options": ["CT", "MRI"]}, "B", []).task
    'choice'
    """
    stated = next((values[key] for key in REFERENCES if isinstance(values.get(key), str)), "")
    answer = final_words(stated.strip() or last)
    if not answer:
        raise RecordError("the answer tags of its last answer are broken, so it has no right answer")
    columns = {"options": _options(values, answer), "answers": _answers(values, answer), **_boxes(values, sizes)}
    columns = {name: column for name, column in columns.items() if column is not None}
    task, given = _task(answer, columns), values.get("task")
    if isinstance(given, str) and given in KNOWN and given != "dialogue":
        return Reference(given, answer, columns)
    notes = (f"task '{given}' is not known: taken by what the record has",) if given is not None else ()
    return Reference(task, answer, columns, notes)


def _task(answer: str, columns: dict[str, Any]) -> str:
    if "options" in columns:
        return "choice"
    if "boxes" in columns:
        return "box"
    return "closed" if answer.casefold().rstrip(".") in YES_NO else "open"


def _options(values: dict[str, Any], answer: str) -> list[str] | None:
    given = values.get("options")
    if given in (None, [], {}):
        given = {letter: values[letter] for letter in LETTERS if values.get(letter) not in (None, "")}
        if len(given) < 2:
            return None
    if isinstance(given, dict):  # of letters; Parquet fills those that a record lacks with null
        lettered = {key: text for key, text in sorted(cast(dict[str, Any], given).items()) if text is not None}
        if [key.strip().upper() for key in lettered] != [*LETTERS[: len(lettered)]]:
            raise RecordError(f"'options' are under {', '.join(lettered)}; expected A, B, ... without a gap, or a list")
        given = list(lettered.values())
    options = [text.strip() if isinstance(text, str) else text for text in _listed(given)]
    if not KINDS["options"].holds(options):
        raise RecordError(f"'options' is {shown(given)}; expected {KINDS['options'].wanted}")
    if option_named(answer, options) is None:
        raise RecordError(f"its answer '{answer[:60]}' is none of its options ({', '.join(options)[:200]})")
    return options


def _answers(values: dict[str, Any], answer: str) -> list[str] | None:
    """All answers that count as right, the one that is trained on first."""
    given = values.get("answers")
    if given in (None, []):
        return None
    answers = [text.strip() if isinstance(text, str) else text for text in _listed(given)]
    if not KINDS["answers"].holds(answers):
        raise RecordError(f"'answers' is {shown(given)}; expected {KINDS['answers'].wanted}")
    return list(dict.fromkeys([answer, *answers]))


def _listed(given: Any) -> list[Any]:
    return cast("list[Any]", given if isinstance(given, list) else [given])


def _boxes(values: dict[str, Any], sizes: Sequence[Size]) -> dict[str, Any]:
    """The boxes in pixels of their images: of the first, or of those that ``box_images`` counts from 1."""
    given, images = values.get("boxes"), values.get("box_images")
    if given is None:
        return {}
    boxes = _listed(given)
    if len(boxes) == 4 and all(isinstance(number, int | float) for number in boxes):
        boxes = [boxes]
    if not KINDS["boxes"].holds(boxes):
        raise RecordError(f"'boxes' is {shown(given)}; expected {KINDS['boxes'].wanted}")
    numbers = [1] * len(boxes) if images is None else images
    if not KINDS["box_images"].holds(numbers) or len(numbers) != len(boxes) or max(numbers, default=0) > len(sizes):
        raise RecordError(f"'box_images' is {shown(images)}; expected for each box the number of its image, from 1")
    for box, number in zip(boxes, numbers, strict=True):
        if fault := box_fault((box[0], box[1], box[2], box[3]), "boxes", sizes[number - 1]):
            raise RecordError(f"{fault}; boxes are read in pixels")
    if boxes and max(map(max, boxes)) <= 1:
        raise RecordError(f"'boxes' is {shown(given)}, shares of the image; boxes are read in pixels")
    floats = [[float(number) for number in box] for box in boxes]
    return {"boxes": floats} | ({} if images is None else {"box_images": numbers})
