"""What a run will be, before it is one: steps, tokens, trainable parameters, memory by ZeRO stage, hours.

Nothing is trained, except where a few steps are asked for to measure the rate (``Scale.measure``).
"""

import contextlib
import math
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.checks.read_recipe import read_recipe
from alignment.checks.trainer_faults import check_config
from alignment.config.data_entries import TrainRows, parquet, train_rows
from alignment.config.methods import METHODS
from alignment.config.recipe import Recipe
from alignment.planning.estimate import Row, batch_of, measured_rate, memory_table, time_table, trained_tokens_per_row
from alignment.planning.meta_model import counts_of, meta_model
from rewards.config.input_error import InputError


@dataclass(frozen=True)
class Scale:
    """On how much it runs, and what is known before: ``rate`` in tokens a second on one rank, ``tokens`` of a row."""

    nodes: int = 1
    gpus: int = 1
    rate: float | None = None
    tokens: float | None = None
    measure: bool = False

    @property
    def ranks(self) -> int:
        """Processes in all."""
        return self.nodes * self.gpus


def check_recipe(
    path: Path, overrides: list[str], scale: Scale = Scale(), *, every_pixel: bool = False
) -> dict[str, Any]:
    """The figures of one recipe. ``every_pixel``: the pictures of all rows are read to their last byte.

    Raises: InputError with every fault of the recipe, and the first rows that cannot be used.
    """
    return plan(_with_whole_pictures(read_recipe(path, overrides), every_pixel), scale)


def _with_whole_pictures(recipe: Recipe, every_pixel: bool) -> Recipe:
    from data_builders.row_checks import Check, check_rows

    if every_pixel:
        check_rows(parquet(recipe.data.train), Check(pixels=None))
    return recipe


def check_chain(
    path: Path, overrides: list[str], scale: Scale = Scale(), *, every_pixel: bool = False
) -> dict[str, Any]:
    """The figures of each stage that can be read before the chain has run (later ones start from what it makes)."""
    from alignment.checks.chains import read_chain, stage_recipe

    chain = read_chain(path, overrides)
    return {
        "stages": [s.name for s in chain.stages],
        chain.stages[0].name: plan(_with_whole_pictures(stage_recipe(chain, 0, path), every_pixel), scale),
    }


def plan(recipe: Recipe, scale: Scale = Scale()) -> dict[str, Any]:
    """Rows, steps, tokens, parameters, memory of a rank (formula: ``memory.py``) and, with a rate, hours."""
    check_config(recipe, here=False, ranks=scale.ranks)
    with made_once(recipe) as made:
        return _figures(made, train_rows(recipe), scale)


@contextlib.contextmanager
def made_once(recipe: Recipe) -> Generator[Recipe]:
    """The recipe with its model's folder as ``model.path``: ``tiny`` and ``smollm2`` are made in a scratch folder."""
    from alignment.models.prepared import prepared_model

    with tempfile.TemporaryDirectory() as scratch:
        path = prepared_model(recipe.model_copy(update={"output": scratch}))
        yield recipe.model_copy(update={"model": recipe.model.model_copy(update={"path": path})})


def _figures(recipe: Recipe, rows: TrainRows, scale: Scale) -> dict[str, Any]:
    from alignment.checks.faults import unpaid_warning
    from alignment.data.fitting_rows import length_figures, lengths_of
    from alignment.data.processed_size import ProcessedSizes
    from alignment.shared_prefix.support import base_model

    steps, per_step = num_steps(recipe, len(rows.indices), ranks=scale.ranks)
    model = meta_model(recipe)
    counts = counts_of(model)
    processor = _processor(recipe) if scale.tokens is None else None
    if recipe.data.box_space == "processed" and processor is not None:
        ProcessedSizes(processor)  # refuses one that crops or tiles
    per_row = mean_tokens(recipe, processor) if scale.tokens is None else scale.tokens
    trained = trained_tokens_per_row(recipe, per_row)
    rate = measured_rate(recipe, trained, counts.total) if scale.measure else scale.rate
    lengths = lengths_of(recipe, processor, rows) if processor is not None else None
    row = Row.known_by(per_row, recipe) if lengths is None else longest_row(recipe, lengths)
    batch = batch_of(recipe, row, base_model(model).config)
    unpaid = unpaid_warning(recipe)
    source = "measured: a few steps on this machine" if scale.measure else "given" if rate else "none given (--rate)"
    return {
        "rows": len(rows.indices),
        "ranks": scale.ranks,
        "steps": steps,
        "samples_per_step": per_step,
        "tokens_per_row": per_row,
        **(length_figures(recipe, processor, lengths, rows) if lengths is not None else {}),
        **time_table(samples=steps * per_step, tokens_per_row=trained, ranks=scale.ranks, rate=rate, source=source),
        "parameters": counts.total,
        "trainable_parameters": counts.trainable,
        **(weight_figures(recipe, rows) if recipe.method == "dpo" else {}),
        "memory_of_batch": {"tokens": round(batch.tokens), "patches": round(batch.patches)},
        **memory_table(recipe, model, scale.ranks, batch),
        **({"warning": unpaid} if unpaid else {}),
    }


def longest_row(recipe: Recipe, lengths: Any) -> Row:
    """The row of most tokens, all its answers behind one prompt: it decides the memory of the largest batch."""
    tokens = lengths.packed()
    longest = tokens.index(max(tokens))
    completion = recipe.trainer.get("max_completion_length", 256) if METHODS[recipe.method].generates else 0
    images = lengths.images[longest]
    return Row(lengths.text[longest] + images, sum(lengths.answers[longest]) + completion, images)


def weight_figures(recipe: Recipe, rows: TrainRows) -> dict[str, Any]:
    """Effective sample size (Kish) of the pairs' weights, and the pairs that teach nothing for a weight of 0."""
    from data_builders.pairs.relevance import effective_sample_size

    if not recipe.weighting.use:
        return {"effective_sample_size": float(len(rows.indices)), "zero_weights": 0}
    weights = rows.of("weight")
    return {"effective_sample_size": round(effective_sample_size(weights), 1), "zero_weights": weights.count(0.0)}


def num_steps(recipe: Recipe, rows: int, *, ranks: int = 1) -> tuple[int, int]:
    """Optimiser steps of the run, and samples in each."""
    trainer = recipe.trainer
    per_step = trainer.get("per_device_train_batch_size", 8) * trainer.get("gradient_accumulation_steps", 1) * ranks
    if trainer.get("max_steps", -1) > 0:
        return trainer["max_steps"], per_step
    copies = trainer.get("num_generations", 8) if METHODS[recipe.method].generates else 1
    return math.ceil(rows * copies / per_step * trainer.get("num_train_epochs", 3)), per_step


def _processor(recipe: Recipe) -> Any:
    from alignment.models.processors import load_processor

    path = recipe.model.path
    try:
        return load_processor(path, max_pixels=recipe.model.max_pixels)
    except (OSError, ValueError, TypeError) as missing:
        raise InputError(
            f"model.path: no processor of '{path}' on this machine to count tokens with. Download it "
            f"(hf download {path}), or say how many tokens a row has: --tokens 1500."
        ) from missing


def mean_tokens(recipe: Recipe, processor: Any, sample: int = 32) -> float:
    """Mean tokens of a row (prompt with image tokens, and answers), over the first rows."""
    from alignment.data.row_cache import few_rows

    rows: Any = list(few_rows(parquet(recipe.data.train), 0, sample))
    return round(sum(_tokens(processor, row, index) for index, row in enumerate(rows)) / len(rows), 1)


def _tokens(processor: Any, row: dict[str, Any], index: int) -> int:
    from alignment.data.processor_checks import faults_of_row

    answers = [m for key in ("completion", "chosen", "rejected") if row.get(key) for m in row[key]]
    images = {"images": [row["images"]]} if row["images"] else {}
    with faults_of_row(row, index, row["images"] or []):
        text = processor.apply_chat_template([*row["prompt"], *answers], tokenize=False)
        return int(processor(text=[text], **images, return_tensors="pt")["input_ids"].shape[1])
