"""Supervised fine-tuning on instruction rows; the loss is on the completion only, in a dialogue on the answers only.

``trainer.train_sampling_strategy: group_by_length`` batches rows of like token count, image tokens among them. The log
shows ``tokens/computed``; there is no ``tokens/saved``, as a row has one answer and so no prompt is ever repeated.
"""

from typing import Any

from datasets import Dataset
from transformers import ProcessorMixin
from trl import SFTConfig, SFTTrainer

from alignment.dialogue_sft import DialogueCollator
from alignment.recipe import Recipe
from alignment.row_tokens import with_lengths


class CountingSFTTrainer(SFTTrainer):
    """TRL's trainer, which also logs how many tokens of a step went through the model, padding left out."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss, and the tokens of all ranks."""
        seen: Any = self.accelerator.gather(inputs["attention_mask"].sum())
        policy: Any = self.model
        self._metrics["train" if policy.training else "eval"]["tokens/computed"].append(seen.sum().item())
        return super().compute_loss(model, inputs, *args, **kwargs)


def sft_trainer(recipe: Recipe, model: Any, processor: ProcessorMixin, data: Dataset, **common: Any) -> SFTTrainer:
    """TRL's SFTTrainer for this recipe. ``common``: ``arguments`` and ``peft_config``."""
    arguments = SFTConfig(**{"max_length": None, **common["arguments"]})
    data = data.select_columns(["images", "prompt", "completion"])
    if arguments.train_sampling_strategy == "group_by_length":
        arguments.remove_unused_columns = False  # or the lengths are gone before rows are grouped by them
    collator = None
    if any(len(completion) > 1 for completion in data["completion"]):
        collator = DialogueCollator(processor, max_length=arguments.max_length, completion_only_loss=True)
    return CountingSFTTrainer(
        model=model,
        args=arguments,
        train_dataset=with_lengths(data, processor, arguments, ["completion"]),
        data_collator=collator,
        processing_class=processor,
        peft_config=common["peft_config"],
    )
