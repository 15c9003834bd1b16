"""GRPO on prompt rows with images (Shao et al. 2024), with rewards by name.

Left out: prefilling a group's prompt once, and scripted multi-turn rollouts.
"""

from typing import Any

from datasets import Dataset
from transformers import ProcessorMixin
from trl import GRPOConfig, GRPOTrainer

from alignment.combined_rewards import combined_rewards
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
    return GRPOTrainer(
        model=model,
        reward_funcs=combined.functions,
        args=GRPOConfig(**arguments),
        train_dataset=data.select_columns([c for c in data.column_names if c in columns]),
        processing_class=processor,
        peft_config=common["peft_config"],
        callbacks=combined.callbacks,
    )
