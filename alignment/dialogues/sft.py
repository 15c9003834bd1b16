"""Supervised fine-tuning on whole dialogues: the loss is on the model's turns, never on the clinician's.

TRL's collator takes every token after the prompt for the completion, the clinician's further questions included.
"""

from typing import Any

import torch
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from alignment.dialogues.turns import answer_tokens


class DialogueCollator(DataCollatorForVisionLanguageModeling):
    """TRL's collator of prompt and completion, with the labels of the clinician's turns taken out."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch. Rows with one answer are as TRL makes them."""
        answered = [answer_tokens(self.processor, row["prompt"], row["completion"]) for row in examples]
        batch = super().torch_call(examples)
        for labels, is_answer in zip(batch["labels"], answered, strict=True):
            positions = (labels != -100).nonzero().flatten()
            labels[positions[~torch.tensor(is_answer[: len(positions)])]] = -100
        return batch
