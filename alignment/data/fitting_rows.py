"""Rows that are too long for the model, found before the first step: refused, dropped, resized or cut.

A row is too long if its prompt, images and longest answer (under GRPO ``max_completion_length``) are more tokens than
``trainer.max_length`` or the model's context. Left out: shortening prompts.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset, concatenate_datasets

from alignment.config.checkpoint_folders import base_of
from alignment.config.data_entries import TrainRows, train_rows
from alignment.config.methods import METHODS
from alignment.config.recipe import Recipe
from alignment.data.processor_checks import check_file
from alignment.data.row_tokens import Lengths, counted, lengths_of_file
from alignment.models.loading import max_context
from rewards.config.input_error import InputError

SMALLEST_EDGE = 28
SHRINK = 0.9
SHOWN = 10
logger = logging.getLogger(__name__)


def rows_to_train_on(
    recipe: Recipe, processor: Any, data: Dataset, path: str, *, run: Path | None = None
) -> tuple[Dataset, Lengths | None]:
    """The rows of the recipe's data that fit the model at ``path``, and their lengths.

    No lengths for dialogues, which have limits of their own, and for methods whose answers are not known here.

    Raises: InputError that lists rows by id (see ``fitting_rows``).
    """
    rows = train_rows(recipe)
    if not METHODS[recipe.method].trains or recipe.dialogue:
        check_file(processor, rows.file)
        return data, None
    every = lengths_of_file(processor, rows.file, METHODS[recipe.method].answers, run=run)
    return fitting_rows(recipe, processor, data, every.of(rows.indices), limit_of(recipe, base_of(path)))


def lengths_of(recipe: Recipe, processor: Any, rows: TrainRows) -> Lengths | None:
    """The lengths of a recipe's rows, before anything is done about them; None where no answers are known here."""
    if not METHODS[recipe.method].trains:
        return None
    return lengths_of_file(processor, rows.file, METHODS[recipe.method].answers).of(rows.indices)


def length_figures(recipe: Recipe, processor: Any, lengths: Lengths, rows: TrainRows) -> dict[str, Any]:
    """How long these rows of a recipe are, in tokens.

    Raises: InputError if some are too long and ``data.too_long`` refuses them.
    """
    limit = None if recipe.dialogue else limit_of(recipe, base_of(recipe.model.path))
    name = "id" if "id" in rows.columns else "prompt"
    data = with_ids(Dataset(pq.read_table(rows.file, columns=[name])).select(rows.indices))
    tokens = lengths.longest()
    longest = sorted(range(len(tokens)), key=lambda k: -tokens[k])[:3]
    if recipe.data.too_long == "refuse":
        fitting_rows(recipe, processor, data, lengths, limit)
    return {
        "tokens_median": float(np.median(tokens)),
        "tokens_95_percent": float(np.percentile(tokens, 95)),
        "tokens_max": max(tokens),
        "longest_rows": [str(data["id"][k]) for k in longest],
        "image_tokens_mean": round(float(np.mean(lengths.images)), 1),
        "rows_too_long": sum(limit is not None and count > limit for count in tokens),
    }


def with_ids(data: Dataset) -> Dataset:
    """The data with a column ``id``: its own, or the row's place."""
    return data if "id" in data.column_names else data.add_column("id", [str(k) for k in range(len(data))])


def limit_of(recipe: Recipe, model: Any) -> int | None:
    """The most tokens that a row may have; under GRPO that its prompt may have. None where nothing limits it."""
    limits = [max_context(model), recipe.trainer.get("max_length")]
    known = [limit for limit in limits if limit is not None]
    if not known:
        return None
    return min(known) - (recipe.trainer.get("max_completion_length", 256) if METHODS[recipe.method].generates else 0)


def fitting_rows(
    recipe: Recipe, processor: Any, data: Dataset, lengths: Lengths, limit: int | None
) -> tuple[Dataset, Lengths]:
    """The rows to train on and their lengths, as ``data.too_long`` has it.

    Raises: InputError that lists the rows which are too long, if they are refused or cannot be made to fit.
    """
    tokens = lengths.longest()
    places = [k for k, count in enumerate(tokens) if limit is not None and count > limit]
    if not places or limit is None:
        return data, lengths
    named = listed(list(data["id"]), tokens, places)
    policy = recipe.data.too_long
    if policy == "refuse":
        raise InputError(
            f"data.train: {len(places)} of {len(data)} rows are longer than {limit} tokens: {named}. Raise "
            "trainer.max_length, lower model.max_pixels, or say data.too_long: drop, resize or cut."
        )
    if policy == "cut":
        return _cut(data, lengths, limit)
    fitting = [k for k in range(len(data)) if k not in set(places)]
    if policy == "drop":
        logger.warning("%d of %d rows left out, longer than %d tokens: %s.", len(places), len(data), limit, named)
        _refuse_nothing_left(fitting, limit)
        return data.select(fitting), lengths.of(fitting)
    logger.warning("%d of %d rows have smaller images, to fit %d tokens: %s.", len(places), len(data), limit, named)
    answers = METHODS[recipe.method].answers
    resized = data.select(places).map(
        lambda row: _resized(processor, row, answers, limit),
        features=data.features,
        keep_in_memory=True,
        load_from_cache_file=False,
    )
    smaller = counted(processor, resized, answers)
    kept = lengths.of(fitting)
    joined = Lengths(kept.text + smaller.text, kept.images + smaller.images, kept.answers + smaller.answers)
    return concatenate_datasets([data.select(fitting), resized]), joined


def listed(ids: Sequence[str], tokens: Sequence[int], places: Sequence[int]) -> str:
    """The longest of some rows by id."""
    order = sorted(places, key=lambda k: -tokens[k])[:SHOWN]
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return ", ".join(f"{ids[k]} ({tokens[k]})" for k in order) + more


def _refuse_nothing_left(fitting: list[int], limit: int) -> None:
    if not fitting:
        raise InputError(f"data.too_long: drop: every row is longer than {limit} tokens; no row is left.")


def _cut(data: Dataset, lengths: Lengths, limit: int) -> tuple[Dataset, Lengths]:
    """All rows, for a collator that cuts the end of answers; a prompt or an image is never cut."""
    prompts = [text + images for text, images in zip(lengths.text, lengths.images, strict=True)]
    if too_long := [k for k, count in enumerate(prompts) if count >= limit]:
        raise InputError(
            f"data.too_long: cut: {len(too_long)} prompts with their images leave no token of {limit} for an answer: "
            f"{listed(list(data['id']), prompts, too_long)}. Cutting would go through image tokens; use drop or resize."
        )
    return data, lengths


def _resized(processor: Any, row: dict[str, Any], answers: Sequence[str], limit: int) -> dict[str, Any]:
    """The row with its images scaled down until it fits.

    Raises: InputError if it does not fit at any size, as where a processor brings all images to one size.
    """
    columns = [name for name in ("images", "rejected_images") if row.get(name)]
    scale = SHRINK
    while True:
        smaller = {name: [_scaled(image, scale) for image in row[name]] for name in columns}
        if counted(processor, [row | smaller], answers).longest()[0] <= limit:
            return smaller
        edges = [min(image.size) for images in smaller.values() for image in images]
        if not edges or min(edges) <= SMALLEST_EDGE:
            raise InputError(
                f"data.too_long: resize: row {row['id']} does not fit {limit} tokens at any image size; use drop."
            )
        scale *= SHRINK


def _scaled(image: Any, scale: float) -> Any:
    return image.resize([max(SMALLEST_EDGE, round(edge * scale)) for edge in image.size])
