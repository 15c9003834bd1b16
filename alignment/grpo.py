"""GRPO on prompt rows with images (Shao et al. 2024), with rewards by name.

Left out: prefilling a group's prompt once, and scripted multi-turn rollouts.
"""

from typing import Any

from datasets import Dataset
from transformers import ProcessorMixin
from trl import GRPOConfig, GRPOTrainer

from alignment.generation import unsampled_tokens
from alignment.recipe import Recipe
from alignment.reward_functions import trl_rewards

DEFAULTS: dict[str, Any] = {"log_multimodal": False, "log_completions": False}


def grpo_trainer(recipe: Recipe, model: Any, processor: ProcessorMixin, data: Dataset, **common: Any) -> GRPOTrainer:
    """TRL's GRPOTrainer for this recipe."""
    functions, weights = trl_rewards(recipe.rewards)
    arguments = {**DEFAULTS, **common["arguments"], "reward_weights": weights}
    if not arguments.get("use_vllm"):
        suppressed = {"suppress_tokens": unsampled_tokens(processor)}
        arguments["generation_kwargs"] = {**suppressed, **(arguments.get("generation_kwargs") or {})}
    columns = {"images", "prompt"} | {c for f in functions for c in f.reward.columns}
    return GRPOTrainer(
        model=model,
        reward_funcs=list(functions),  # pyright: ignore[reportArgumentType]
        args=GRPOConfig(**arguments),
        train_dataset=data.select_columns([c for c in data.column_names if c in columns]),
        processing_class=processor,
        peft_config=common["peft_config"],
    )
