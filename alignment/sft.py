"""Supervised fine-tuning on instruction rows; the loss is on the completion only, in a dialogue on the answers only.

``trainer.train_sampling_strategy: group_by_length`` batches rows of like token count, image tokens among them.
"""

from typing import Any

from datasets import Dataset
from transformers import ProcessorMixin
from trl import SFTConfig, SFTTrainer

from alignment.dialogue_sft import DialogueCollator
from alignment.mixed_batches import dummy_image, run_vision_always
from alignment.recipe import Recipe
from alignment.row_tokens import with_lengths


def sft_trainer(recipe: Recipe, model: Any, processor: ProcessorMixin, data: Dataset, **common: Any) -> SFTTrainer:
    """TRL's SFTTrainer for this recipe. ``common``: ``arguments`` and ``peft_config``."""
    arguments = SFTConfig(**{"max_length": None, **common["arguments"]})
    data = data.select_columns(["images", "prompt", "completion"])
    if arguments.train_sampling_strategy == "group_by_length":
        arguments.remove_unused_columns = False  # or the lengths are gone before rows are grouped by them
    collator = None
    if any(len(completion) > 1 for completion in data["completion"]):
        collator = DialogueCollator(processor, max_length=arguments.max_length, completion_only_loss=True)
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=with_lengths(data, processor, arguments, ["completion"]),
        data_collator=collator,
        processing_class=processor,
        peft_config=common["peft_config"],
    )
    run_vision_always(trainer.model, dummy_image(processor))
    return trainer
