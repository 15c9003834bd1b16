"""GRPO on prompt rows with images (Shao et al. 2024), with rewards by name.

A group's prompt is computed once (``shared_grpo.py``) unless ``model.shared_prefix`` is off. With a ``dialogue``
section, over whole dialogues (``dialogues/grpo.py``), each of which is computed by itself.
"""

import logging
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from transformers import ProcessorMixin
from trl import GRPOConfig, GRPOTrainer

from alignment.checks.faults import unpaid_warning
from alignment.checks.trainer_faults import made_config
from alignment.config.data_entries import parquet
from alignment.config.recipe import Recipe
from alignment.data.processed_size import ProcessedSizes
from alignment.dialogues.checks import dialogues_that_fit
from alignment.dialogues.grpo import DialogueTrainer
from alignment.models.generation import unsampled_tokens
from alignment.models.loading import max_context
from alignment.reward_functions.combined import combined_rewards
from alignment.shared_prefix.image_rows import undecoded
from alignment.training.mixed_batches import dummy_image, run_vision_always
from alignment.training.shared_grpo import SharedPrefixGRPOTrainer
from data_builders.cards import card_grid

logger = logging.getLogger(__name__)
DEFAULTS: dict[str, Any] = {"log_multimodal": False, "log_completions": False}


def with_unit_columns(data: Dataset, recipe: Recipe, processor: ProcessorMixin) -> Dataset:
    """The rows with ``box_grid``, by the card of a set built without it, and ``processed_size`` where it is needed."""
    if "box_grid" not in data.column_names and (grid := card_grid(parquet(recipe.data.train))) is not None:
        data = data.add_column("box_grid", [grid] * len(data))
    if recipe.data.box_space != "processed":
        return data
    sizes = ProcessedSizes(processor)
    return data.add_column("processed_size", [sizes.of(images) for images in undecoded(data)["images"]])


def grpo_trainer(
    recipe: Recipe,
    model: Any,
    processor: ProcessorMixin,
    data: Dataset,
    *,
    arguments: dict[str, Any],
    peft_config: LoraConfig | None,
) -> GRPOTrainer:
    """TRL's GRPOTrainer for this recipe."""
    data = with_unit_columns(data, recipe, processor)
    if unpaid := unpaid_warning(recipe):
        logger.warning("%s: %s", recipe.output, unpaid)
    combined = combined_rewards(recipe, group_size=arguments.get("num_generations", 8))
    settings = {**DEFAULTS, **arguments, **combined.arguments}
    if not settings.get("use_vllm"):
        suppressed = {"suppress_tokens": unsampled_tokens(processor)}
        settings["generation_kwargs"] = {**suppressed, **(settings.get("generation_kwargs") or {})}
    read = {"id", "images", "prompt"} | combined.columns
    if recipe.dialogue:
        data, read = dialogues_that_fit(recipe, model, processor, data), read | {"dialogue"}
    rows = data.select_columns([c for c in data.column_names if c in read])
    given: dict[str, Any] = dict(
        model=model,
        reward_funcs=combined.functions,
        args=made_config(GRPOConfig, settings),
        processing_class=processor,
        peft_config=peft_config,
        callbacks=combined.callbacks,
    )
    if recipe.dialogue:
        more: dict[str, Any] = dict(dialogue=recipe.dialogue, max_context=max_context(model), train_dataset=rows)
        trainer = DialogueTrainer(**more, **given)
        for each in filter(None, (trainer.model, trainer.ref_model)):
            run_vision_always(each, dummy_image(processor))
        return trainer
    return SharedPrefixGRPOTrainer(train_dataset=rows, **given, shared_prefix=recipe.model.shared_prefix)
