"""Supervised fine-tuning on whole dialogues: the loss is on the model's turns, never on the clinician's.

TRL's collator takes every token after the prompt for the completion, the clinician's further questions included, and
has no place for images in it. Left out: rows cut at ``max_length`` whose images open later turns.
"""

from collections.abc import Sequence
from typing import Any

import torch
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from alignment.dialogues.turns import answer_tokens, num_images, pieces, rendered
from rewards.config.input_error import InputError

IGNORED = -100
"""Torch's label of a token without loss."""


class DialogueCollator(DataCollatorForVisionLanguageModeling):
    """TRL's collator of prompt and completion, with the labels of the clinician's turns taken out."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch. Rows with one answer are as TRL makes them."""
        if any(num_images(row["completion"]) for row in examples):
            return self._with_later_images(examples)
        answered = [answer_tokens(self.processor, row["prompt"], row["completion"]) for row in examples]
        batch = super().torch_call(examples)
        for labels, is_answer in zip(batch["labels"], answered, strict=True):
            positions = (labels != -100).nonzero().flatten()
            labels[positions[~torch.tensor(is_answer[: len(positions)])]] = -100
        return batch

    def _with_later_images(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch of rows of which some show images in later turns: tokens by piece, pixels of all images."""
        rows = [row_tokens(self.processor, row) for row in examples]
        limit = self.max_length
        if limit is not None and any(len(row["input_ids"]) > limit for row in rows):
            raise InputError(
                f"data: a row of more than {limit} tokens shows images in later turns, and is not cut within them. Use "
                "data.too_long: drop."
            )
        texts = [rendered(self.processor, [*row["prompt"], *row["completion"]]) for row in examples]
        images = [list(row["images"]) for row in examples]
        processor: Any = self.processor
        batch = processor(text=texts, images=images, padding=True, return_tensors="pt", add_special_tokens=False)
        fill = {"input_ids": processor.tokenizer.pad_token_id, "labels": IGNORED}
        for key in rows[0]:
            batch[key] = _padded([row[key] for row in rows], fill.get(key, 0))
        return batch


def row_tokens(processor: Any, row: dict[str, Any]) -> dict[str, list[int]]:
    """What stands for each token of a conversation, image tokens among them: its id, label, and what processors add.

    Pieces are tokenised one by one, as TRL does with a prompt and its completion. ``labels``: of answers only.
    """
    found, start, images = dict[str, list[int]](), 0, list(row["images"] or [])
    for piece in pieces(processor, row["prompt"], row["completion"]):
        shown = {"images": [images[start : start + piece.num_images]]} if piece.num_images else {}
        start += piece.num_images
        made = processor(text=[piece.text], **shown, return_tensors="pt", add_special_tokens=False)
        ids = made["input_ids"][0].tolist()
        per_token = {k: v[0].tolist() for k, v in made.items() if k != "labels" and v.shape == made["input_ids"].shape}
        for key, values in {**per_token, "labels": ids if piece.is_answer else [IGNORED] * len(ids)}.items():
            found.setdefault(key, []).extend(values)
    return found


def _padded(rows: Sequence[list[int]], value: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])
