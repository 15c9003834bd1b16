"""Will it fit, and how long will it take? Memory of each rank by ZeRO stage, tokens and hours of a recipe."""

import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from alignment.checks.compatibility import zero_settings
from alignment.config.methods import METHODS
from alignment.config.recipe import Recipe
from alignment.planning.activations import WORKSPACE, Batch, activation_bytes
from alignment.planning.memory import SETTINGS, Load, Memory, Zero, per_rank
from alignment.planning.meta_model import Counts, counts_of, patch_bytes, patches_per_token, stacks_of, trains_projector
from rewards.config.input_error import InputError

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
    default = METHODS[recipe.method].beta
    has_reference = default is not None and recipe.trainer.get("beta", default) > 0 and recipe.model.lora is None
    return Load(
        total=counts.total,
        trainable=counts.trainable,
        weight_bytes=size,
        base_bytes=0.5 if recipe.model.quantization else size,
        reference=counts.base if has_reference else 0,
        lone_bytes=4 if recipe.model.lora and not recipe.model.quantization else None,
    )


@dataclass(frozen=True)
class Row:
    """Tokens of a row: its prompt, image tokens among them, and its answers together (GRPO: one full completion)."""

    prompt: float
    answers: float = 0.0
    images: float = 0.0

    @classmethod
    def known_by(cls, tokens: float, recipe: Recipe) -> "Row":
        """A row of which no more is known than all its tokens: an upper bound, as if every one were an image's."""
        answer = recipe.trainer.get("max_completion_length", 256) if METHODS[recipe.method].generates else 0
        return cls(prompt=tokens, answers=answer, images=tokens)


def batch_of(recipe: Recipe, row: Row, config: Any, *, shared: bool | None = None) -> Batch:
    """A rank's batch of such rows, in the layout that the recipe gets (``shared``: whether a prompt is shared).

    Rows of SFT, and repeated ones, are padded: they have a mask as wide as a row unless they are alone.
    """
    trainer = recipe.trainer
    rows = trainer.get("per_device_train_batch_size", 8)
    shared = shares_prompts(recipe, config) if shared is None else shared
    method = METHODS[recipe.method]
    written = len(method.answers) if method.shares_prompts else 1
    copies = trainer.get("num_generations", 8) if method.generates else written
    answers = rows * row.answers
    prompts = max(1.0, rows / copies) if method.generates else rows
    if not shared and copies > 1:
        prompts = rows if method.generates else rows * copies
    tokens = prompts * row.prompt + answers
    patches = prompts * row.images * patches_per_token(config)
    pixels = patches * patch_bytes(config)
    if method.generates:  # trl keeps those of every row, for all steps of a generation
        steps = trainer.get("steps_per_generation") or trainer.get("gradient_accumulation_steps", 1)
        pixels *= rows / prompts * steps + (rows > prompts)
    return Batch(tokens, answers, patches, mask=tokens / prompts if shared or prompts > 1 else 0.0, pixels=pixels)


def shares_prompts(recipe: Recipe, config: Any) -> bool:
    """Whether DPO's or GRPO's answers lie behind one prompt, with a mask."""
    from alignment.shared_prefix.support import MASKED_KERNELS, PROVEN

    section = recipe.model
    kernel = section.attention in ("auto", *MASKED_KERNELS) and section.shared_prefix in ("auto", "on")
    return METHODS[recipe.method].shares_prompts and not recipe.dialogue and kernel and config.model_type in PROVEN


def memory_table(recipe: Recipe, model: Any, ranks: int, batch: Batch, *, hooked: bool = False) -> dict[str, Any]:
    """Gigabytes of one rank under each setting, part by part, and which of them is the recipe's.

    ``model``: the recipe's, as ``meta_model`` gives it; ``hooked`` as in ``stacks_of``.
    """
    load = load_of(recipe, counts_of(model))
    trainer = recipe.trainer
    checkpointed = trainer.get("activation_checkpointing", trainer.get("gradient_checkpointing", True))
    tower = recipe.model.tower_checkpointing
    of_recipe = zero_of(recipe)

    @cache
    def activations(size: float, held: bool) -> float:
        stacks = stacks_of(
            model,
            batch,
            weight_bytes=size,
            checkpointed=checkpointed,
            hooked=hooked,
            tower_checkpointed=checkpointed if tower is None else tower,
        )
        through = trains_projector(model) or (hooked and checkpointed)
        return activation_bytes(*stacks, batch.scored, BYTES[recipe.model.dtype], projector=through, held=held)

    def held_by(zero: Zero) -> Memory:
        held = zero.stage > 0 or trainer.get("gradient_accumulation_steps", 1) > 1
        needed = activations(load.of(zero).weight_bytes, held)
        return per_rank(load, zero, ranks, activations=needed, inputs=batch.pixels + WORKSPACE)

    settings = SETTINGS if of_recipe in SETTINGS else (*SETTINGS, of_recipe)
    return {
        "this_recipe": of_recipe.name,
        "memory_gb_per_rank": {zero.name: held_by(zero).gigabytes() for zero in settings},
    }


def trained_tokens_per_row(recipe: Recipe, tokens: float) -> float:
    """Tokens of a row while it is trained on: GRPO's rows gain a completion, of at most its full length."""
    return tokens + (recipe.trainer.get("max_completion_length", 256) if METHODS[recipe.method].generates else 0)


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
    from alignment.training.trainer import make_trainer

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
