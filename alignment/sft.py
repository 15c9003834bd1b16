"""Supervised fine-tuning on instruction rows; the loss is on the completion only, of a dialogue on the answers only."""

from typing import Any

from datasets import Dataset
from transformers import ProcessorMixin
from trl import SFTConfig, SFTTrainer

from alignment.dialogue_sft import DialogueCollator
from alignment.recipe import Recipe


def sft_trainer(recipe: Recipe, model: Any, processor: ProcessorMixin, data: Dataset, **common: Any) -> SFTTrainer:
    """TRL's SFTTrainer for this recipe. ``common``: ``arguments`` and ``peft_config``."""
    arguments = SFTConfig(**{"max_length": None, **common["arguments"]})
    rows = data.select_columns(["images", "prompt", "completion"])
    whole = any(len(completion) > 1 for completion in data["completion"])
    collator = DialogueCollator(processor, max_length=arguments.max_length, completion_only_loss=True)
    return SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=collator if whole else None,
        processing_class=processor,
        peft_config=common["peft_config"],
    )
