"""Supervised fine-tuning on instruction rows; the loss is on the completion only, in a dialogue on the answers only.

``trainer.train_sampling_strategy: group_by_length`` batches rows of like token count, image tokens among them;
``data.curriculum`` takes them in the order of its stages.
"""

from typing import Any

from datasets import Dataset
from transformers import ProcessorMixin
from trl import SFTConfig, SFTTrainer

from alignment.curriculum_sampler import recipe_order
from alignment.dialogue_sft import DialogueCollator
from alignment.recipe import Recipe
from alignment.resuming import Resumable


class ResumableSFTTrainer(Resumable, SFTTrainer):
    """TRL's SFTTrainer, which a killed run goes on with exactly."""


def sft_trainer(recipe: Recipe, model: Any, processor: ProcessorMixin, data: Dataset, **common: Any) -> SFTTrainer:
    """TRL's SFTTrainer for this recipe. ``common``: ``arguments`` and ``peft_config``."""
    arguments = SFTConfig(**{"max_length": None, **common["arguments"]})
    order = recipe_order(recipe, data, arguments)
    data = data.select_columns(["id", "images", "prompt", "completion"])
    collator = None
    if any(len(completion) > 1 for completion in data["completion"]):
        collator = DialogueCollator(processor, max_length=arguments.max_length, completion_only_loss=True)
    trainer = ResumableSFTTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        data_collator=collator,
        processing_class=processor,
        peft_config=common["peft_config"],
    )
    trainer.order = order
    return trainer
