"""Rows of samples whose words are given: questions and answers of published sets, and released preference pairs.

No facts are known of them, so nothing is rendered, corrupted or noised; ``facts`` are empty and ``rule_set`` is "".
Left out: wrong answers where the source has none (``llm_hallucinations.py`` writes them).
"""

import json
from collections.abc import Iterator
from typing import Any

from data_builders.build.build_spec import BuildSpec
from data_builders.imaging.images import ImageError, decoded, png_bytes
from data_builders.schema import RowKind, Written, assistant_turn, row_always, user_turn
from rewards.config.input_error import InputError, nearest
from rewards.rules.facts import Facts

Row = dict[str, Any]
UNKNOWN = Facts(rule_set="")


def fault_of_written(sample: Written) -> str | None:
    """Why a written sample cannot be used; None if it can."""
    if not sample.question.strip() or not sample.answer.strip():
        return "its question or its answer is empty"
    try:
        for image in (*sample.images, *sample.rejected_images):
            decoded(image)
    except ImageError as fault:
        return str(fault)
    return None if sample.rejected is None else _fault_of_rejected(sample, sample.rejected)


def _fault_of_rejected(sample: Written, rejected: str) -> str | None:
    if not rejected.strip():
        return "its rejected answer is empty"
    if sample.rejected_images and [i.size for i in sample.rejected_images] != [i.size for i in sample.images]:
        return "its rejected images are not of the size of its images"
    if rejected.strip() == sample.answer.strip() and not sample.rejected_images:
        return "chosen and rejected are equal under the same image"
    return None


def own_split(sample: Written, spec: BuildSpec) -> str | None:
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
    """Every row of one written sample, of each kind that the spec asks for in its split."""
    prompt = user_turn(sample.question, num_images=len(sample.images))
    for kind, splits in spec.rows.items():
        if split not in splits or (kind == "preference" and sample.rejected is None):
            continue
        always = row_always(
            sample, split=split, source=spec.source.name, task=sample.task, row_id=f"{sample.id}-{kind}", facts=UNKNOWN
        )
        images = [_entry(image, f"{sample.id}-{k}.png") for k, image in enumerate(sample.images)]
        provenance = json.dumps({**sample.provenance, "images": sample.names}, sort_keys=True)
        yield kind, {**always, "provenance": provenance, "images": images, "prompt": prompt, **_own(sample, kind, spec)}


def _entry(image: Any, name: str) -> Row:
    return {"bytes": png_bytes(image), "path": name}


def _own(sample: Written, kind: RowKind, spec: BuildSpec) -> Row:
    tagged = spec.answer_style == "tagged"
    styled = [f"<answer>{text}</answer>" if tagged else text for text in (sample.answer, sample.rejected or "")]
    if kind == "instruction":
        return {"completion": assistant_turn(styled[0])}
    if kind == "prompt":
        return {"answer": sample.answer, "boxes": None, "target": None, "box_grid": None}
    others = [_entry(image, f"{sample.id}-rejected-{k}.png") for k, image in enumerate(sample.rejected_images)]
    return {
        "chosen": assistant_turn(styled[0]),
        "rejected": assistant_turn(styled[1]),
        "rejected_images": others or None,
        "relevance": sample.relevance,
        "weight": sample.weight,
        "kind": "lesion_noise" if sample.rejected == sample.answer else "hallucination",
    }
