"""Preference pairs written as MMedPO, LLaVA, ms-swift and TRL read them: dialogues too, images where they stand.

Every record is read back before it is written: what its shape cannot hold is refused, not bent. Left out, since these
files have no place for it: LLaVA's weight and relevance.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_builders.formats.messages import messages_of
from data_builders.formats.pairs import Pair, words_of
from data_builders.formats.preference_formats import Format, pairs_of
from data_builders.formats.record_images import RecordError, RecordImage
from data_builders.schema import Message, assistant_turn
from rewards.config.input_error import InputError

LISTS = ("mmedpo", "llava")
"""Shapes that are a JSON list; the others are JSON Lines."""
SPEAKERS = {"user": "human", "assistant": "gpt"}
"""LLaVA's and MMedPO's own trainers know no system turn."""
Json = dict[str, Any]


def write_pairs(pairs: Iterable[Pair], path: Path, shape: Format) -> Path:
    """The pairs as a file of this shape, their images by name.

    Raises: InputError naming the pair that the shape cannot hold.
    """
    records = [_record(pair, shape) for pair in pairs]
    if shape in LISTS:
        text = json.dumps(records, indent=1, ensure_ascii=False) + "\n"
    else:
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text(text, encoding="utf-8")
    return path


def _record(pair: Pair, shape: Format) -> Json:
    try:
        record = _WRITERS[shape](pair)
        if pairs_of(record, shape, name=pair.id) == [_held(pair, shape)]:
            return record
        why = "read back, it would say something else"
    except RecordError as fault:
        why = str(fault)
    cure = "Leave the row out" if shape == "trl" else "Export it as trl, or leave the row out"
    raise InputError(f"export: row {pair.id}: the format {shape} cannot hold it ({why}). {cure}.")


def _held(pair: Pair, shape: Format) -> Pair:
    """What is left of a pair: words without white space around them, and no scores in LLaVA's shape."""
    question, turns = words_of(messages_of(pair.prompt, "user", "prompt"), len(pair.images))
    scores = {"weight": None, "relevance": None} if shape == "llava" else {}
    answers = {"chosen": pair.chosen.strip(), "rejected": pair.rejected.strip()}
    return replace(pair, question=question, turns=turns, **answers, **scores)


def _to_llava(pair: Pair) -> Json:
    sides = {
        name: [_turn(message) for message in (*pair.prompt, *assistant_turn(answer))]
        for name, answer in (("conversations", pair.chosen), ("rejected_conversations", pair.rejected))
    }
    others = {"rejected_image": _one_or_list(_names(pair.rejected_images))} if pair.rejected_images else {}
    return {"id": pair.id, **_beside(pair, "patient"), "image": _one_or_list(_names(pair.images)), **sides, **others}


def _turn(message: Message) -> Json:
    if message["role"] not in SPEAKERS:
        raise RecordError("its trainers know no system prompt")
    return {"from": SPEAKERS[message["role"]], "value": _tagged(message, "\n")}


def _tagged(message: Message, line_end: str) -> str:
    """The words of a message with a tag where each image stands; ``line_end``: what parts opening tags from words."""
    blocks = message["content"]
    words = [block["text"] if block["type"] == "text" else "<image>" for block in blocks]
    num_opening = next((k for k, block in enumerate(blocks) if block["type"] == "text"), 0)
    return "".join([*words[:num_opening], line_end if num_opening else "", *words[num_opening:]])


def _names(images: Iterable[RecordImage]) -> list[str]:
    return [image.name for image in images]


def _one_or_list(names: list[str]) -> str | list[str]:
    return names[0] if len(names) == 1 else names


def _beside(pair: Pair, *names: str) -> Json:
    """What is known of a pair beside its words and images."""
    return {name: getattr(pair, name) for name in names if getattr(pair, name) is not None}


def _to_mmedpo(pair: Pair) -> Json:
    """A relevance that is not known is null: were it not there, the score would be read as one."""
    return {**_to_llava(pair), "weighted_score": pair.weight, "relevance": pair.relevance}


def _to_ms_swift(pair: Pair) -> Json:
    turns = (*pair.prompt, *assistant_turn(pair.chosen))
    messages = [{"role": turn["role"], "content": _tagged(turn, "")} for turn in turns]
    words = {"messages": messages, "images": _names(pair.images), "rejected_response": pair.rejected}
    return {"id": pair.id, **_beside(pair, "patient"), **words, **_beside(pair, "weight", "relevance"), **_others(pair)}


def _others(pair: Pair) -> Json:
    return {"rejected_images": _names(pair.rejected_images)} if pair.rejected_images else {}


def _to_trl(pair: Pair) -> Json:
    answers = {"chosen": assistant_turn(pair.chosen), "rejected": assistant_turn(pair.rejected)}
    words = {"prompt": pair.prompt, **answers, "images": _names(pair.images)}
    return {"id": pair.id, **_beside(pair, "patient"), **words, **_beside(pair, "weight", "relevance"), **_others(pair)}


_WRITERS: Mapping[Format, Callable[[Pair], Json]] = {
    "mmedpo": _to_mmedpo,
    "llava": _to_llava,
    "ms_swift": _to_ms_swift,
    "trl": _to_trl,
}
