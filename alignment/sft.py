"""Supervised fine-tuning on instruction rows; the loss is on the completion only."""

from typing import Any

from datasets import Dataset
from transformers import ProcessorMixin
from trl import SFTConfig, SFTTrainer

from alignment.recipe import Recipe


def sft_trainer(recipe: Recipe, model: Any, processor: ProcessorMixin, data: Dataset, **common: Any) -> SFTTrainer:
    """TRL's SFTTrainer for this recipe. ``common``: ``arguments`` and ``peft_config``."""
    return SFTTrainer(
        model=model,
        args=SFTConfig(**{"max_length": None, **common["arguments"]}),
        train_dataset=data.select_columns(["images", "prompt", "completion"]),
        processing_class=processor,
        peft_config=common["peft_config"],
    )
