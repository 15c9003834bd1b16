"""Will it fit, and how long will it take? Memory of each rank by ZeRO stage, tokens and hours of a recipe."""

import tempfile
import time
from pathlib import Path
from typing import Any

from alignment.compatibility import zero_settings
from alignment.memory import SETTINGS, Load, Zero, activation_bytes, per_rank
from alignment.meta_model import Counts, counts_of, stacks_of
from alignment.recipe import Recipe
from rewards.strict_yaml import InputError

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 2}
MEASURED_STEPS = 4
SMALL = 50_000_000


def zero_of(recipe: Recipe) -> Zero:
    """What the recipe's DeepSpeed file asks for."""
    settings = zero_settings(recipe)
    return Zero(
        int(settings.get("stage", 0)),
        offload_optimizer=settings.get("offload_optimizer", {}).get("device", "none") != "none",
        offload_parameters=settings.get("offload_param", {}).get("device", "none") != "none",
    )


def load_of(recipe: Recipe, counts: Counts) -> Load:
    """What a rank must hold for this recipe; full training with a reference has a second model."""
    size = BYTES[recipe.model.dtype]
    beta = recipe.trainer.get("beta", 0.1 if recipe.method == "dpo" else 0.0)
    has_reference = recipe.method in ("dpo", "grpo") and beta > 0 and recipe.model.lora is None
    return Load(
        total=counts.total,
        trainable=counts.trainable,
        weight_bytes=size,
        base_bytes=0.5 if recipe.model.quantization else size,
        reference=counts.base if has_reference else 0,
    )


def memory_table(recipe: Recipe, model: Any, ranks: int, tokens_per_row: float) -> dict[str, Any]:
    """Gigabytes of one rank under each setting, part by part, and which of them is the recipe's.

    ``model``: the recipe's, as ``meta_model`` gives it.
    """
    load = load_of(recipe, counts_of(model))
    trainer = recipe.trainer
    checkpointed = trainer.get("activation_checkpointing", trainer.get("gradient_checkpointing", True))
    tower = recipe.model.tower_checkpointing
    stacks = stacks_of(
        model,
        tokens_per_row * trainer.get("per_device_train_batch_size", 8),
        checkpointed=checkpointed,
        tower_checkpointed=checkpointed if tower is None else tower,
    )
    activations = activation_bytes(stacks, load.weight_bytes)
    own = zero_of(recipe)
    settings = SETTINGS if own in SETTINGS else (*SETTINGS, own)
    return {
        "this_recipe": own.name,
        "memory_gb_per_rank": {
            zero.name: per_rank(load, zero, ranks, activations=activations).gigabytes() for zero in settings
        },
    }


def trained_tokens_per_row(recipe: Recipe, tokens: float) -> float:
    """Tokens of a row while it is trained on: GRPO's rows gain a completion, of at most its full length."""
    return tokens + (recipe.trainer.get("max_completion_length", 256) if recipe.method == "grpo" else 0)


def time_table(*, samples: int, tokens_per_row: float, ranks: int, rate: float | None, source: str) -> dict[str, Any]:
    """Tokens of the whole run and, with a rate in tokens a second on one rank, its hours; ``source`` names the rate."""
    tokens = samples * tokens_per_row
    hours = (
        {} if rate is None else {"rate_tokens_per_s": round(rate, 1), "hours": round(tokens / rate / ranks / 3600, 3)}
    )
    return {"tokens": round(tokens), **hours, "rate_from": source}


def measured_rate(recipe: Recipe, tokens_per_row: float, parameters: int) -> float:
    """Tokens a second of a few real steps on this machine, the first of them left out.

    Raises: InputError for a model that is too large to be tried here.
    """
    if parameters > SMALL:
        raise InputError(f"--measure: {parameters:,} parameters are not for a trial; measure a real run, give --rate.")
    from alignment.train import make_trainer

    with tempfile.TemporaryDirectory() as scratch:
        short = {"max_steps": MEASURED_STEPS, "save_strategy": "no", "disable_tqdm": True}
        trial = recipe.model_copy(update={"output": scratch, "trainer": {**recipe.trainer, **short}})
        trainer = make_trainer(trial, Path(scratch))
        ends = _ends_of_steps(trainer)
        trainer.train()
    rows = trainer.args.per_device_train_batch_size * trainer.args.gradient_accumulation_steps
    return (len(ends) - 1) * rows * tokens_per_row / (ends[-1] - ends[0])


def _ends_of_steps(trainer: Any) -> list[float]:
    from transformers import TrainerCallback

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            ends.append(time.perf_counter())

    trainer.add_callback(Clock())
    return ends
