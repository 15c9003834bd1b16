"""Supervised fine-tuning on instruction rows; the loss is on the completion only, in a dialogue on the answers only.

``trainer.train_sampling_strategy: group_by_length`` batches rows of like token count, image tokens among them;
``data.curriculum`` takes them in the order of its stages. The log shows ``tokens/computed``; there is no
``tokens/saved``, as a row has one answer and so no prompt is ever repeated.
"""

from typing import Any

from datasets import Dataset
from peft import LoraConfig
from transformers import ProcessorMixin
from trl import SFTConfig, SFTTrainer

from alignment.checks.trainer_faults import made_config
from alignment.config.recipe import Recipe
from alignment.data.curriculum_sampler import recipe_order
from alignment.dialogues.sft import DialogueCollator
from alignment.resuming.resumable import Resumable
from alignment.training.mixed_batches import dummy_image, run_vision_always


class CountingSFTTrainer(Resumable, SFTTrainer):
    """TRL's trainer, exactly resumable; it also logs how many tokens of a step went through the model, but padding."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss, and the tokens of all ranks."""
        seen: Any = self.accelerator.gather(inputs["attention_mask"].sum())
        policy: Any = self.model
        self._metrics["train" if policy.training else "eval"]["tokens/computed"].append(seen.sum().item())
        return super().compute_loss(model, inputs, *args, **kwargs)


def sft_trainer(
    recipe: Recipe,
    model: Any,
    processor: ProcessorMixin,
    data: Dataset,
    *,
    arguments: dict[str, Any],
    peft_config: LoraConfig | None,
) -> SFTTrainer:
    """TRL's SFTTrainer for this recipe."""
    config = made_config(SFTConfig, {"max_length": None, **arguments})
    order = recipe_order(recipe, data, config)
    data = data.select_columns(["id", "images", "prompt", "completion"])
    collator = None
    if any(len(completion) > 1 for completion in data["completion"]):
        collator = DialogueCollator(processor, max_length=config.max_length, completion_only_loss=True)
    trainer = CountingSFTTrainer(
        model=model,
        args=config,
        train_dataset=data,
        data_collator=collator,
        processing_class=processor,
        peft_config=peft_config,
    )
    run_vision_always(trainer.model, dummy_image(processor))
    trainer.order = order
    return trainer
