"""Rows of samples whose words are given: questions and answers of published sets, and released preference pairs.

No facts are known of them, so nothing is rendered, corrupted or noised; ``facts`` are empty and ``rule_set`` is "".
Left out: wrong answers where the source has none (``llm_hallucinations.py`` writes them).
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from data_builders.build.build_spec import BuildSpec
from data_builders.imaging.images import ImageError, decoded, png_bytes
from data_builders.schema import Message, RowKind, Written, assistant_turn, message_text, row_always, user_turn
from rewards.answers.final_answer import final_words
from rewards.config.input_error import InputError, nearest
from rewards.rules.facts import Facts

Row = dict[str, Any]
UNKNOWN = Facts(rule_set="")
YES_NO = ("yes", "no")
SPLITS_LEFT = "samples of another split of the file: its splits are not taken over, see source_splits"


def fault_of_written(sample: Written) -> str | None:
    """Why a written sample cannot be used, and where it stands if the source says so; None if it can."""
    fault, location = _fault_of_written(sample), sample.provenance.get("record")
    return f"{location}: {fault}" if fault and location else fault


def _fault_of_written(sample: Written) -> str | None:
    if not (sample.question.strip() or sample.messages) or not sample.answer.strip():
        return "its question or its answer is empty"
    try:
        for image in (*sample.images, *sample.rejected_images):
            decoded(image)
    except ImageError as fault:
        return str(fault)
    answers = [message for message in sample.messages if message["role"] == "assistant"]
    if sample.rejected is None and not all(final_words(message_text([answer])) for answer in answers):
        return "the answer tags of one of its answers are broken"
    return None if sample.rejected is None else _fault_of_rejected(sample, sample.rejected)


def _fault_of_rejected(sample: Written, rejected: str) -> str | None:
    if not rejected.strip():
        return "its rejected answer is empty"
    if sample.rejected_images and [i.size for i in sample.rejected_images] != [i.size for i in sample.images]:
        return "its rejected images are not of the size of its images"
    if rejected.strip() == sample.answer.strip() and not sample.rejected_images:
        return "chosen and rejected are equal under the same image"
    return None


def source_split(sample: Written, spec: BuildSpec) -> str | None:
    """Our name for the source's own split of a sample, where the spec takes over the source's splits.

    Raises: InputError if the spec does not say where a split of the source goes.
    """
    if not spec.source_splits or sample.split is None:
        return None
    if sample.split not in spec.source_splits:
        hint = nearest(sample.split, list(spec.source_splits))
        raise InputError(f"source_splits: the source has a split '{sample.split}'; say where it goes.{hint}")
    return spec.source_splits[sample.split]


def written_rows(sample: Written, spec: BuildSpec, split: str) -> Iterator[tuple[RowKind, Row]]:
    """Every row of one written sample, of each kind that the spec asks for in its split.

    Of a dialogue, an instruction row holds all of it, its loss on every answer; prompt rows ask for each answer in
    turn, behind the true ones before it, so that each is judged for itself.
    """
    kinds: list[RowKind] = [kind for kind, splits in spec.rows.items() if split in splits]
    provenance = json.dumps({**sample.provenance, "images": sample.names}, sort_keys=True)
    images = [_entry(image, f"{sample.id}-{k}.png") for k, image in enumerate(sample.images)] if kinds else []
    about = {"split": split, "source": spec.source.name, "facts": UNKNOWN}
    for kind in kinds:
        if kind == "preference" and sample.rejected is None:
            continue
        for suffix, columns in _rows(sample, kind, spec):
            shown = images[: _num_images([*columns["prompt"], *columns.get("completion", ())])]
            always = row_always(sample, row_id=f"{sample.id}-{kind}{suffix}", task=columns.pop("task"), **about)
            sizes = {"image_size": always["image_size"][: len(shown)]}
            yield kind, {**always, "provenance": provenance, **sizes, "images": shown, **columns}


def _entry(image: Any, name: str) -> Row:
    return {"bytes": png_bytes(image), "path": name}


def _rows(sample: Written, kind: RowKind, spec: BuildSpec) -> Iterator[tuple[str, Row]]:
    """Suffix of the id and own columns of each row."""
    messages = _styled(sample, spec)
    if kind == "prompt":
        yield from _prompt_rows(sample)
    elif kind == "instruction":
        first = next(k for k, message in enumerate(messages) if message["role"] == "assistant")
        yield "", {"task": sample.task, "prompt": messages[:first], "completion": messages[first:]}
    else:
        yield "", {"task": sample.task, "prompt": messages[:-1], "chosen": messages[-1:], **_rejected(sample, spec)}


def _messages(sample: Written) -> list[Message]:
    """All that a sample says, up to its answer."""
    if sample.messages:
        return list(sample.messages)
    return [*user_turn(sample.question, num_images=len(sample.images)), *assistant_turn(sample.answer)]


def _styled(sample: Written, spec: BuildSpec) -> list[Message]:
    """The messages with every answer in the spec's style."""
    messages = _messages(sample)
    if spec.answer_style == "plain":
        return messages
    return [
        assistant_turn(_tagged(message_text([message])))[0] if message["role"] == "assistant" else message
        for message in messages
    ]


def _tagged(answer: str) -> str:
    return f"<answer>{answer}</answer>"


def _prompt_rows(sample: Written) -> Iterator[tuple[str, Row]]:
    """One row for each answer; what is known beside it (options, boxes) is of the last."""
    messages = _messages(sample)
    ends = [k for k, message in enumerate(messages) if message["role"] == "assistant"]
    none = {"boxes": None, "target": None, "box_grid": None}
    for number, end in enumerate(ends[:-1], start=1):
        answer = final_words(message_text(messages[end : end + 1]))
        task = "closed" if answer.casefold().rstrip(".") in YES_NO else "open"
        yield f"-{number}", {"task": task, "prompt": messages[:end], "answer": answer, **none}
    suffix = f"-{len(ends)}" if len(ends) > 1 else ""
    last = {"task": sample.task, "prompt": messages[: ends[-1]], "answer": sample.answer}
    yield suffix, {**last, **none, **sample.reference}


def _num_images(messages: Sequence[Message]) -> int:
    """How many images messages show: a row holds those and no later ones."""
    return sum(block["type"] == "image" for message in messages for block in message["content"])


def _rejected(sample: Written, spec: BuildSpec) -> Row:
    rejected = sample.rejected or ""
    others = [_entry(image, f"{sample.id}-rejected-{k}.png") for k, image in enumerate(sample.rejected_images)]
    return {
        "rejected": assistant_turn(_tagged(rejected) if spec.answer_style == "tagged" else rejected),
        "rejected_images": others or None,
        "relevance": sample.relevance,
        "weight": sample.weight,
        "kind": "lesion_noise" if sample.rejected == sample.answer else "hallucination",
    }
