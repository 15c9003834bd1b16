"""Batches of preference rows: a prompt with its chosen and rejected answers."""

from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.utils import pad

from alignment.data.trl_rows import weight_of
from alignment.reward_functions.adapter import response_text
from alignment.shared_prefix.image_rows import with_images
from alignment.shared_prefix.layout import Batch, packed, repeated
from alignment.shared_prefix.prompt_groups import Group, collated, group
from alignment.training.dpo_terms import (
    changed_tokens,
)
from rewards.config.input_error import InputError

LOSS_FIELDS = ("weight", "chosen", "rejected", "mirrored", "reference_logps", "changed", "truncated")


def preference_groups(processor: Any, row: dict[str, Any]) -> list[Group]:
    """Chosen and rejected behind one prompt; each behind its own where they are scored under different images.

    Raises: InputError for an empty answer, as many rejected images as there are not images, or tools.
    """
    chosen, rejected, noised = row["chosen"], row["rejected"], row.get("rejected_images")
    prompt, template = row["prompt"], row.get("chat_template_kwargs")
    if empty := [name for name in ("chosen", "rejected") if not response_text(row[name]).strip()]:
        raise InputError(f"{empty[0]}: a row's answer is empty; rebuild the data set.")
    if row.get("tools"):
        raise InputError("tools: rows with tools are not known here; train on them with trl.DPOTrainer.")
    if not noised:
        return [group(processor, row["images"], prompt, [chosen, rejected], template)]
    if len(noised) != len(row["images"]):
        raise InputError("rejected_images: as many as images are needed; rebuild the data set.")
    return [
        group(processor, row["images"], prompt, [chosen], template),
        group(processor, noised, prompt, [rejected], template),
    ]


def mirrored_group(processor: Any, row: dict[str, Any]) -> Group:
    """The two answers under the look-alike's images, where the rejected one is true (SymMPO)."""
    answers = [row["rejected"], row["chosen"]]
    return group(processor, row["mirror_images"], row["prompt"], answers, row.get("chat_template_kwargs"))


@dataclass
class PreferenceCollator:
    """The packed batch of preference rows, in TRL's columns or as TRL has made tokens of those without images.

    ``chosen`` and ``rejected`` (B) say which answers they are; ``weight`` (B); ``reference_logps`` (N), one an answer
    token, where the rows have them; ``changed`` (N), whether a token differs between the two answers, where
    ``mark_changed``; ``truncated`` (2B), whether an answer lost its end to ``max_length``, which cuts both sides by
    the same rule. ``processor``: of a model without images, its tokenizer.
    """

    processor: Any
    shared: bool = True
    max_length: int | None = None
    mark_changed: bool = False
    mirror: bool = False

    def __call__(self, rows: list[dict[str, Any]]) -> Batch:
        """The batch of these rows; each row's answers stand in turn, the chosen one first."""
        batch, whole, mirrored = self._of_tokens(rows) if "prompt_ids" in rows[0] else self._of_texts(rows)
        batch["chosen"] = torch.arange(0, 2 * len(rows), 2)
        batch["rejected"] = batch["chosen"] + 1
        batch["weight"] = torch.tensor([weight_of(row) for row in rows])
        if self.mirror:
            batch["mirrored"] = torch.tensor(mirrored, dtype=torch.long)
        if self.mark_changed:
            batch["changed"] = _changed(batch)
        if self.max_length is not None:
            batch["truncated"] = (batch["answer_lengths"] < torch.tensor(whole))[: 2 * len(rows)]
        if "reference_logps" in rows[0]:
            batch["reference_logps"] = torch.tensor([v for row in rows for v in row["reference_logps"]])
        return batch

    @property
    def _tokenizer(self) -> Any:
        return getattr(self.processor, "tokenizer", self.processor)

    def _of_texts(self, rows: list[dict[str, Any]]) -> tuple[Batch, list[int], list[int]]:
        """The packed batch, the tokens of each answer before they were cut, and which rows have a look-alike."""
        rows = [with_images(row) for row in rows]
        groups = [g for row in rows for g in preference_groups(self.processor, row)]
        mirrored = [place for place, row in enumerate(rows) if self.mirror and row.get("mirror_images")]
        groups += [mirrored_group(self.processor, rows[place]) for place in mirrored]
        batch = collated(self.processor, groups, shared=self.shared, max_length=self.max_length)
        if self.max_length is None:
            return batch, [], mirrored
        answers = [answer for g in groups for answer in g.answers]
        whole = [len(self._tokenizer(a, add_special_tokens=False)["input_ids"]) for a in answers]
        return batch, whole, mirrored

    def _of_tokens(self, rows: list[dict[str, Any]]) -> tuple[Batch, list[int], list[int]]:
        """The same of rows whose tokens TRL has made (``prompt_ids``, ``chosen_ids``, ``rejected_ids``)."""
        pairs: list[Any] = [(row["prompt_ids"], [row["chosen_ids"], row["rejected_ids"]]) for row in rows]
        laid_out = pairs if self.shared else repeated(pairs)
        prompts = [torch.tensor(prompt) for prompt, _ in laid_out]
        prompt = {
            "input_ids": pad(prompts, padding_value=0, padding_side="right"),
            "attention_mask": pad([torch.ones_like(p) for p in prompts], padding_value=0, padding_side="right"),
        }
        answers, fill = [each for _, each in laid_out], self._tokenizer.pad_token_id
        batch = packed(prompt, answers, pad_token_id=fill, max_length=self.max_length)
        return batch, [len(answer) for _, each in pairs for answer in each], []


def _changed(batch: Batch) -> torch.Tensor:
    """Whether each answer token (N) is outside what its answer has in common with the other one of its pair."""
    answers = [part.tolist() for part in batch["answer_labels"].split(batch["answer_lengths"].tolist())]
    pairs = [(answers[k], answers[k + 1]) for k in range(0, len(answers), 2)]
    marks = [mark for a, b in pairs for one, other in ((a, b), (b, a)) for mark in changed_tokens(one, other)]
    return torch.tensor(marks, dtype=torch.bool)
