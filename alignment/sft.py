"""Supervised fine-tuning on instruction rows; the loss is on the completion only, in a dialogue on the answers only.

``trainer.train_sampling_strategy: group_by_length`` batches rows of like token count, image tokens among them;
``data.curriculum`` takes them in the order of its stages.
"""

from typing import Any

from datasets import Dataset
from transformers import ProcessorMixin
from trl import SFTConfig, SFTTrainer

from alignment.curriculum_sampler import CurriculumTrainer, recipe_rows
from alignment.dialogue_sft import DialogueCollator
from alignment.recipe import Recipe
from alignment.row_tokens import with_lengths


def sft_trainer(recipe: Recipe, model: Any, processor: ProcessorMixin, data: Dataset, **common: Any) -> SFTTrainer:
    """TRL's SFTTrainer for this recipe. ``common``: ``arguments`` and ``peft_config``."""
    arguments = SFTConfig(**{"max_length": None, **common["arguments"]})
    rows = recipe_rows(recipe, data, arguments)
    data = data.select_columns(["images", "prompt", "completion"])
    if arguments.train_sampling_strategy == "group_by_length":
        arguments.remove_unused_columns = False  # or the lengths are gone before rows are grouped by them
    collator = None
    if any(len(completion) > 1 for completion in data["completion"]):
        collator = DialogueCollator(processor, max_length=arguments.max_length, completion_only_loss=True)
    trainer = (SFTTrainer if rows is None else CurriculumTrainer)(
        model=model,
        args=arguments,
        train_dataset=with_lengths(data, processor, arguments, ["completion"]),
        data_collator=collator,
        processing_class=processor,
        peft_config=common["peft_config"],
    )
    if isinstance(trainer, CurriculumTrainer):
        trainer.rows = rows
    return trainer
