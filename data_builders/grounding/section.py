"""The section ``grounding`` of a build spec: questions about sequences of images in place of those about single ones.

Two sources have sequences: ``phantom_chest``, whose patients are drawn with and without a finding, and ``lidc_ct``,
whose neighbouring slices show one. Left out: preference rows.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from data_builders.grounding.grounding import TASKS
from data_builders.grounding.sequences import Sequence, ct_sequences, phantom_sequences
from data_builders.imaging.images import ImageError, decoded
from data_builders.schema import Quarantined, box_fault
from data_builders.sources.source import Source
from rewards.config.input_error import nearest
from rewards.rules.rule_set import load_rule_set


class Grounding(BaseModel):
    """``tasks``: which of MedSG-Bench's eight are asked of each sequence, in this order."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    tasks: list[str] | Literal["all"] = "all"

    @field_validator("tasks")
    @classmethod
    def _are_known(cls, tasks: list[str] | Literal["all"]) -> list[str] | Literal["all"]:
        for task in () if tasks == "all" else tasks:
            if task not in TASKS:
                raise ValueError(f"no task '{task}'.{nearest(task, list(TASKS))} Known: all, or {', '.join(TASKS)}.")
        if not tasks or (len({*tasks}) < len(tasks) and tasks != "all"):
            raise ValueError("name each task once, at least one, or write all.")
        return tasks

    @property
    def asked(self) -> list[str]:
        """The tasks by name."""
        return list(TASKS) if self.tasks == "all" else self.tasks


def source_fault(source: Source) -> str | None:
    """Why no sequences can be made of a source; None where they can."""
    knobs = source.knobs
    if source.name == "phantom_chest":
        unused = "images_per_patient" in knobs
        return "source.images_per_patient: has no effect on sequences, which have three views." if unused else None
    if source.name == "lidc_ct":
        whole = knobs.get("views") == 1 and {"lung", "soft"} <= {*knobs.get("windows", ("lung", "soft"))}
        return None if whole else "source: sequences are of whole slices under both windows: views: 1, no windows key."
    return f"grounding: source {source.name} has no sequences. phantom_chest and lidc_ct have."


def sequences_of(
    source: Source, *, seed: int, split_of: Callable[[str], str], left_out: Counter[str]
) -> Iterator[Sequence | Quarantined]:
    """Every sequence of a source. ``left_out`` counts those that cannot be made, by reason."""
    if source.name == "lidc_ct":
        return ct_sequences(source.samples(), seed=seed)
    source.samples()  # what is out of range is told by the source itself
    knobs: dict[str, Any] = source.checked_knobs()
    return phantom_sequences(**knobs, split_of=split_of, left_out=left_out)


def fault_of_sequence(seq: Sequence) -> str | None:
    """Why a sequence cannot be used; None if it can."""
    rules = load_rule_set(seq.rule_set)
    if seq.finding not in rules.findings:
        return f"finding '{seq.finding}' is not in rule set {rules.id}"
    for view in (*seq.views, seq.before, seq.before_moved, seq.other_contrast, seq.example):
        try:
            decoded(view.image)
        except ImageError as fault:
            return str(fault)
        if view.box is not None and (fault := box_fault(view.box, seq.finding, view.image.size)):
            return fault
    return None
