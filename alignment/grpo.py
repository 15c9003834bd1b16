"""GRPO on prompt rows with images (Shao et al. 2024), with rewards by name.

With a ``dialogue`` section, over whole dialogues (``dialogue_grpo.py``). Left out: prefilling a group's prompt once.
"""

from functools import partial
from typing import Any

from datasets import Dataset
from transformers import ProcessorMixin
from trl import GRPOConfig, GRPOTrainer

from alignment.combined_rewards import combined_rewards
from alignment.dialogue_checks import dialogues_that_fit, max_context
from alignment.dialogue_grpo import DialogueTrainer
from alignment.generation import unsampled_tokens
from alignment.recipe import Recipe

DEFAULTS: dict[str, Any] = {"log_multimodal": False, "log_completions": False}


def grpo_trainer(recipe: Recipe, model: Any, processor: ProcessorMixin, data: Dataset, **common: Any) -> GRPOTrainer:
    """TRL's GRPOTrainer for this recipe."""
    combined = combined_rewards(recipe, group_size=common["arguments"].get("num_generations", 8))
    arguments = {**DEFAULTS, **common["arguments"], **combined.arguments}
    if not arguments.get("use_vllm"):
        suppressed = {"suppress_tokens": unsampled_tokens(processor)}
        arguments["generation_kwargs"] = {**suppressed, **(arguments.get("generation_kwargs") or {})}
    columns = {"images", "prompt"} | combined.columns
    make: Any = GRPOTrainer
    if recipe.dialogue:
        columns, data = columns | {"dialogue"}, dialogues_that_fit(recipe, model, processor, data)
        make = partial(DialogueTrainer, dialogue=recipe.dialogue, max_context=max_context(model))
    return make(
        model=model,
        reward_funcs=combined.functions,
        args=GRPOConfig(**arguments),
        train_dataset=data.select_columns([c for c in data.column_names if c in columns]),
        processing_class=processor,
        peft_config=common["peft_config"],
        callbacks=combined.callbacks,
    )
