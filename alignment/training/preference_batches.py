"""Batches of preference rows: a prompt with its chosen and rejected answers."""

from dataclasses import dataclass
from typing import Any

import torch

from alignment.shared_prefix.layout import Batch
from alignment.shared_prefix.prompt_groups import Group, collated, group
from alignment.training.dpo_terms import (
    changed_tokens,
)
from data_builders.schema import message_text
from rewards.config.input_error import InputError

LOSS_FIELDS = ("weight", "chosen", "rejected", "mirrored", "reference_logps", "changed", "truncated")


def preference_groups(processor: Any, row: dict[str, Any]) -> list[Group]:
    """Chosen and rejected behind one prompt; each behind its own where they are scored under different images.

    Raises: InputError for an empty answer, or as many rejected images as there are not images.
    """
    chosen, rejected, noised = row["chosen"], row["rejected"], row.get("rejected_images")
    if empty := [name for name in ("chosen", "rejected") if not message_text(row[name]).strip()]:
        raise InputError(f"{empty[0]}: a row's answer is empty; rebuild the data set.")
    if not noised:
        return [group(processor, row["images"], row["prompt"], [chosen, rejected])]
    if len(noised) != len(row["images"]):
        raise InputError("rejected_images: as many as images are needed; rebuild the data set.")
    return [
        group(processor, row["images"], row["prompt"], [chosen]),
        group(processor, noised, row["prompt"], [rejected]),
    ]


def mirrored_group(processor: Any, row: dict[str, Any]) -> Group:
    """The two answers under the look-alike's images, where the rejected one is true (SymMPO)."""
    return group(processor, row["mirror_images"], row["prompt"], [row["rejected"], row["chosen"]])


@dataclass
class PreferenceCollator:
    """The packed batch of preference rows; ``chosen`` and ``rejected`` (B) say which answers they are.

    ``weight`` (B); ``reference_logps`` (N), one an answer token, where the rows have them; ``changed`` (N), whether a
    token differs between the two answers, where ``mark_changed``; ``truncated`` (2B), whether an answer lost its end
    to ``max_length``, which cuts both sides by the same rule.
    """

    processor: Any
    shared: bool = True
    max_length: int | None = None
    mark_changed: bool = False
    mirror: bool = False

    def __call__(self, rows: list[dict[str, Any]]) -> Batch:
        """The batch of these rows; each row's answers stand in turn, the chosen one first."""
        groups = [g for row in rows for g in preference_groups(self.processor, row)]
        mirrored = [place for place, row in enumerate(rows) if self.mirror and row.get("mirror_images")]
        groups += [mirrored_group(self.processor, rows[place]) for place in mirrored]
        batch = collated(self.processor, groups, shared=self.shared, max_length=self.max_length)
        batch["chosen"] = torch.arange(0, 2 * len(rows), 2)
        batch["rejected"] = batch["chosen"] + 1
        batch["weight"] = torch.tensor([float(row.get("weight", 1.0)) for row in rows])
        if self.mirror:
            batch["mirrored"] = torch.tensor(mirrored, dtype=torch.long)
        if self.mark_changed:
            batch["changed"] = _changed(batch)
        if self.max_length is not None:
            whole = [
                len(self.processor.tokenizer(a, add_special_tokens=False)["input_ids"])
                for g in groups
                for a in g.answers
            ]
            batch["truncated"] = (batch["answer_lengths"] < torch.tensor(whole))[: 2 * len(rows)]
        if "reference_logps" in rows[0]:
            batch["reference_logps"] = torch.tensor([v for row in rows for v in row["reference_logps"]])
        return batch


def _changed(batch: Batch) -> torch.Tensor:
    """Whether each answer token (N) is outside what its answer has in common with the other one of its pair."""
    answers = [part.tolist() for part in batch["answer_labels"].split(batch["answer_lengths"].tolist())]
    pairs = [(answers[k], answers[k + 1]) for k in range(0, len(answers), 2)]
    marks = [mark for a, b in pairs for one, other in ((a, b), (b, a)) for mark in changed_tokens(one, other)]
    return torch.tensor(marks, dtype=torch.bool)
