"""What a run will be, before it is one: steps, tokens, trainable parameters, memory. Nothing is trained."""

import math
import tempfile
from pathlib import Path
from typing import Any

from alignment.recipe import Recipe, kept_places, parquet, read_recipe

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 2}


def check_recipe(path: Path, overrides: list[str]) -> dict[str, Any]:
    """The figures of one recipe.

    Raises: InputError with every fault of the recipe.
    """
    return plan(read_recipe(path, overrides))


def check_chain(path: Path, overrides: list[str]) -> dict[str, Any]:
    """The figures of each stage that can be read before the chain has run (later ones start from what it makes)."""
    from alignment.train import read_chain, stage_recipe

    chain = read_chain(path, overrides)
    return {
        "stages": [s.name for s in chain.stages],
        chain.stages[0].name: plan(stage_recipe(chain, 0, path)),
    }


def plan(recipe: Recipe) -> dict[str, Any]:
    """Rows, steps, tokens, parameters and an estimate of memory.

    Memory: weights, gradients and AdamW's two moments of what is trained, in bytes; activations are not in it.
    """
    places = kept_places(recipe)
    rows = len(places)
    steps, per_step = num_steps(recipe, rows)
    trainable, total = count_parameters(recipe)
    size = BYTES[recipe.model.dtype]
    return {
        "rows": rows,
        "steps": steps,
        "samples_per_step": per_step,
        "tokens_per_row": mean_tokens(recipe),
        **length_figures(recipe, places),
        "parameters": total,
        "trainable_parameters": trainable,
        "memory_gb_without_activations": round((total * size + trainable * (size + 8)) / 1e9, 3),
        **(weight_figures(recipe, places) if recipe.method == "dpo" else {}),
    }


def length_figures(recipe: Recipe, places: list[int]) -> dict[str, Any]:
    """Median, 95 % and maximum of the rows' tokens (prompt, images and longest answer), and the longest rows by id.

    Raises: InputError if rows are too long and the recipe refuses them.
    """
    from alignment.fitting_rows import length_figures as figures
    from alignment.models import load_processor, prepared_model

    with tempfile.TemporaryDirectory() as scratch:
        folder = prepared_model(recipe.model_copy(update={"output": scratch}))
        return figures(recipe, load_processor(folder, max_pixels=recipe.model.max_pixels), folder, places)


def weight_figures(recipe: Recipe, places: list[int]) -> dict[str, Any]:
    """Effective sample size (Kish) of the pairs' weights, and the pairs that teach nothing for a weight of 0."""
    import pyarrow.parquet as pq

    from data_builders.relevance import effective_sample_size

    if not recipe.weighting.use:
        return {"effective_sample_size": float(len(places)), "zero_weights": 0}
    column = pq.read_table(parquet(recipe.data.train), columns=["weight"])["weight"].to_pylist()
    weights = [column[place] for place in places]
    return {"effective_sample_size": round(effective_sample_size(weights), 1), "zero_weights": weights.count(0.0)}


def num_steps(recipe: Recipe, rows: int) -> tuple[int, int]:
    """Optimiser steps of the run on one process, and samples in each."""
    trainer = recipe.trainer
    per_step = trainer.get("per_device_train_batch_size", 8) * trainer.get("gradient_accumulation_steps", 1)
    if trainer.get("max_steps", -1) > 0:
        return trainer["max_steps"], per_step
    copies = trainer.get("num_generations", 8) if recipe.method == "grpo" else 1
    return math.ceil(rows * copies / per_step * trainer.get("num_train_epochs", 3)), per_step


def count_parameters(recipe: Recipe) -> tuple[int, int]:
    """(trainable, total) parameters, from the model's config on the meta device: no weights are read."""
    import torch
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForImageTextToText

    from alignment.models import freeze, lora_config, prepared_model

    with tempfile.TemporaryDirectory() as scratch:
        folder = prepared_model(recipe.model_copy(update={"output": scratch}))
        config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model: Any = AutoModelForImageTextToText.from_config(config)
        lora = lora_config(recipe.model.lora)
        model = get_peft_model(model, lora) if lora else model
    freeze(model, list(recipe.model.freeze))
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trained in sizes if trained), sum(n for n, _ in sizes)


def mean_tokens(recipe: Recipe, sample: int = 32) -> float:
    """Mean tokens of a row (prompt with image tokens, and answers), over the first rows."""
    from datasets import Dataset

    from alignment.models import load_processor, prepared_model

    with tempfile.TemporaryDirectory() as scratch:
        folder = prepared_model(recipe.model_copy(update={"output": scratch}))
        processor = load_processor(folder, max_pixels=recipe.model.max_pixels)
    data = Dataset.from_parquet(str(parquet(recipe.data.train)))
    rows = [data[i] for i in range(min(sample, len(data)))]
    return round(sum(_tokens(processor, row) for row in rows) / len(rows), 1)


def _tokens(processor: Any, row: dict[str, Any]) -> int:
    answers = [m for key in ("completion", "chosen", "rejected") if row.get(key) for m in row[key]]
    text = processor.apply_chat_template([*row["prompt"], *answers], tokenize=False)
    images = {"images": [row["images"]]} if row["images"] else {}
    return int(processor(text=[text], **images, return_tensors="pt")["input_ids"].shape[1])
