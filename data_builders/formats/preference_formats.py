"""Preference pairs in the shapes that others write, read: TRL's, LLaVA's, MMedPO's, ms-swift's; a CSV is read as TRL's.

``trl``: ``chosen`` and ``rejected`` behind a ``prompt`` (or ``question``, ``query``, ``instruction``, or the turns of
``conversations`` or ``messages``), or both with the turns that they share. ``llava``: ``conversations`` and
``rejected_conversations``; ``mmedpo``: the same with a ``weighted_score``. ``ms_swift``: ``messages`` with a
``rejected_response``, ``rejected_messages`` or ``rejected_images``. Each may have several rejected answers,
``rejected_images``, a ``weight``, and a ``relevance`` (before normalisation); MMedPO's own files have none beside
``weighted_score``, which is not normalised. What words and images are is for ``messages.py``.
Left out: answers of more than one turn behind what the two sides share.
"""

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, cast, get_args

from data_builders.formats.messages import (
    as_text,
    before_answer,
    behind_system,
    check_turns,
    messages_of,
    refuse_unread,
    with_images,
)
from data_builders.formats.pairs import Pair, words_of
from data_builders.formats.record_images import RecordError, RecordImage, record_image, record_images
from data_builders.formats.records import SEPARATORS, Record, Unreadable, records
from data_builders.schema import Message, message_text
from rewards.config.input_error import InputError
from rewards.row_types import shown

Format = Literal["mmedpo", "llava", "ms_swift", "trl"]
FORMATS: tuple[Format, ...] = get_args(Format)
REJECTED_OF_SWIFT = ("rejected_messages", "rejected_response", "rejected_images")
REJECTED_IMAGES = ("rejected_images", "rejected_image")
PROMPTS = ("conversations", "messages", "query", "prompt", "instruction", "question", "input", "history")
"""Where the turns before an answer stand."""
FIRST_RECORDS = 64
"""By so many records a file's shape is known."""
WANTED = (
    "chosen and rejected; conversations and rejected_conversations; or messages and one of "
    f"{', '.join(REJECTED_OF_SWIFT)}"
)
Json = dict[str, Any]
Sides = tuple[list[Message], list[list[Message]]]
"""All that the chosen side says, and each rejected one."""


def format_of(keys: Collection[str]) -> Format | None:
    """The shape of records with these keys; None where they show none.

    >>> format_of({"images", "question", "chosen", "rejected"}), format_of({"question", "answer"})
    ('trl', None)
    """
    if {"conversations", "rejected_conversations"} <= {*keys}:
        return "mmedpo" if "weighted_score" in keys else "llava"
    if {"chosen", "rejected"} <= {*keys}:
        return "trl"
    return "ms_swift" if "messages" in keys and {*REJECTED_OF_SWIFT} & {*keys} else None


def read_pairs(
    path: Path, shape: Format | None = None, *, patient: str = "patient"
) -> tuple[Format, Iterator[Pair | Unreadable]]:
    """The shape of a file's pairs, and the pairs in its order or why one cannot be read.

    ``shape``: what it should be (None: what it is); ``patient``: the key that names the patient.

    Raises: InputError if the file is missing or holds no records, or its records have another shape, or none.
    """
    found = records(path)
    first = list(islice(found, FIRST_RECORDS))
    read = [one for one in first if isinstance(one, Record)]
    if not read and isinstance(first[0], Unreadable):
        raise InputError(f"{path}: {first[0].location}: {first[0].reason}")
    keys = dict.fromkeys(key for one in read for key in one.values)
    kept = _format(path, keys, shape)
    return kept, _pairs(chain(first, found), kept, patient, cells=path.suffix.lower() in SEPARATORS)


def _format(path: Path, keys: Collection[str], shape: Format | None) -> Format:
    found, seen = format_of(keys), f"Its records have the keys {', '.join(keys) or '(none)'}."
    if shape is None and found is None:
        raise InputError(f"{path}: holds no preference pairs in a known shape. {seen} Expected {WANTED}.")
    alike = {"mmedpo", "llava"}
    if shape is not None and found not in (shape, None) and not {shape, found} <= alike:
        raise InputError(f"{path}: format: {shape}, but its records are in the shape {found}. {seen} Leave format out.")
    kept = shape or found
    assert kept is not None
    return kept


def _pairs(
    found: Iterator[Record | Unreadable], shape: Format, patient: str, *, cells: bool
) -> Iterator[Pair | Unreadable]:
    for index, record in enumerate(found):
        if isinstance(record, Unreadable):
            yield record
            continue
        values = _with_numbers(record.values) if cells else record.values
        try:
            found_here = pairs_of(values, shape, name=str(index), patient=patient)
            split = _text(values.get("split")) or record.split
            yield from (replace(pair, location=record.location, split=split) for pair in found_here)
        except RecordError as fault:
            yield Unreadable(record.location, str(fault))


def pairs_of(values: Json, shape: Format, *, name: str, patient: str = "patient") -> list[Pair]:
    """The pairs of one record, one for each rejected answer. ``name``: what they are called where it has no ``id``.

    Raises: RecordError that says what is wrong with it.
    """
    refuse_unread(values)
    dialogue, rejected = _READERS[shape](values)
    check_turns(dialogue)
    for wrong in rejected:
        _check_shared(dialogue, wrong)
    shown_images = record_images({key: value for key, value in values.items() if key not in REJECTED_IMAGES})
    conversation = with_images(dialogue, shown_images)
    question, turns = words_of(conversation.messages[:-1], len(conversation.images))
    weight, relevance = _number(values, "weight"), _number(values, "relevance", most=1)
    if shape in ("mmedpo", "llava"):
        weight = _number(values, "weighted_score") if weight is None else weight
    if shape == "mmedpo" and weight is None:
        raise RecordError("no 'weighted_score'")
    if shape == "mmedpo" and "relevance" not in values and weight is not None and weight <= 1:
        relevance = weight  # a score beside no relevance is the relevance itself, unless it is on another scale
    pair = Pair(
        id=_text(values.get("id")) or name,
        images=conversation.images,
        question=question,
        chosen=message_text(dialogue[-1:]),
        rejected="",
        weight=weight,
        rejected_images=_rejected_images(values, len(conversation.images)),
        relevance=relevance,
        turns=turns,
        patient=_text(values.get(patient)),
    )
    return [replace(pair, rejected=message_text(wrong[-1:])) for wrong in rejected]


def _with_numbers(cells: Json) -> Json:
    """A row of a CSV with its weights as numbers."""
    found = dict(cells)
    for name in ("weight", "relevance", "weighted_score"):
        with contextlib.suppress(ValueError):  # what is no number is said where it is asked for
            found[name] = None if cells.get(name) is None else float(cells[name])
    return found


def _number(values: Json, name: str, *, most: float = math.inf) -> float | None:
    value = values.get(name)
    if value is None or (isinstance(value, float) and math.isnan(value)):  # pandas writes NaN for what is not there
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise RecordError(f"'{name}' is {shown(value)}; expected a number")
    if not 0 <= value <= most or math.isinf(value):
        raise RecordError(
            f"'{name}' is {value:g}, outside 0 to {'what is finite' if most == math.inf else f'{most:g}'}"
        )
    return float(value)


def _text(value: Any) -> str | None:
    """A name as text; a whole number that pandas made a float is one again."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None if isinstance(value, str | int) and not isinstance(value, bool) else None


def _rejected_images(values: Json, number: int) -> tuple[RecordImage, ...]:
    given = next((values[key] for key in REJECTED_IMAGES if values.get(key) not in (None, "", [])), None)
    if given is None:
        return ()
    images = tuple(record_image(one) for one in cast("list[Any]", given if isinstance(given, list) else [given]))
    if len(images) != number:
        raise RecordError(f"{len(images)} rejected images for {number} images; expected one in place of each")
    return images


def _check_shared(dialogue: list[Message], wrong: list[Message]) -> None:
    """Raises RecordError unless both sides say the same up to their last answers."""
    check_turns(wrong)
    for number, (one, other) in enumerate(zip(dialogue[:-1], wrong[:-1], strict=False), start=1):
        if one != other:
            raise RecordError(f"its two sides ask different questions (turn {number})")
    if len(dialogue) != len(wrong):
        raise RecordError(f"its two sides part before their last answers ({len(dialogue)} and {len(wrong)} turns)")


def _several(values: Json, key: str) -> list[Any]:
    """The rejected answers under a key: one, or each of a list of texts or of dialogues."""
    value = values.get(key)
    if value is None or value == []:
        raise RecordError(f"no '{key}'" if value is None else f"'{key}' is empty")
    is_several = isinstance(value, list) and not any(isinstance(one, dict) for one in cast("list[Any]", value))
    return cast("list[Any]", value) if is_several else [value]


def _behind(values: Json, answer: Any, key: str) -> list[Message]:
    """All that one side says: its answer behind the prompt, or by itself where it opens with a question."""
    is_message = isinstance(answer, dict) and ("role" in answer or "from" in answer)
    turns = messages_of([answer] if is_message else as_text(answer), "assistant", key)
    if turns[0]["role"] != "assistant":
        return behind_system(turns, values)
    prompt = {name: values[name] for name in (*PROMPTS, "system") if values.get(name) is not None}
    if not {*prompt} - {"system", "input", "history"}:
        raise RecordError("no 'prompt', and no question before its answers")
    return [*before_answer(prompt), *turns]


def _of_trl(values: Json) -> Sides:
    if values.get("chosen") is None:
        raise RecordError("no 'chosen'")
    chosen = _behind(values, values["chosen"], "chosen")
    return chosen, [_behind(values, wrong, "rejected") for wrong in _several(values, "rejected")]


def _of_llava(values: Json) -> Sides:
    for switch in ("rejected_noised", "chosen_noised"):
        if values.get(switch):
            raise RecordError(f"'{switch}' asks for pure noise in place of its image; build lesion noise instead")
    rejected = _several(values, "rejected_conversations")
    chosen = _dialogue(values, values.get("conversations"), "conversations")
    return chosen, [_dialogue(values, each, "rejected_conversations") for each in rejected]


def _of_ms_swift(values: Json) -> Sides:
    chosen = _dialogue(values, values.get("messages"), "messages")
    if values.get("rejected_messages") is not None:
        rejected = _several(values, "rejected_messages")
        return chosen, [_dialogue(values, each, "rejected_messages") for each in rejected]
    if values.get("rejected_response") is not None:
        texts = _several(values, "rejected_response")
        return chosen, [[*chosen[:-1], *messages_of(as_text(text), "assistant", "rejected_response")] for text in texts]
    if values.get("rejected_images") in (None, "", []):
        raise RecordError(f"none of {', '.join(REJECTED_OF_SWIFT)}")
    return chosen, [chosen]  # its shape for pairs that differ in their images only


def _dialogue(values: Json, turns: Any, key: str) -> list[Message]:
    """The turns under a key, behind the record's system prompt."""
    if turns is None:
        raise RecordError(f"no '{key}'")
    if not isinstance(turns, list | dict):
        raise RecordError(f"'{key}' is {shown(turns)}; expected turns")
    return behind_system(messages_of(turns, "user", key), values)


_READERS: Mapping[Format, Callable[[Json], Sides]] = {
    "mmedpo": _of_llava,
    "llava": _of_llava,
    "ms_swift": _of_ms_swift,
    "trl": _of_trl,
}
