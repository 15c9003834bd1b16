"""The recipe's sections about rewards taken together: how they are combined, and the signs of hacking to be watched."""

from typing import Literal

from pydantic import Field, model_validator

from rewards.config.strict_model import StrictModel

CanaryStatistic = Literal[
    "words", "empty_rate", "distinct_words", "tag_rate", "boxes_per_answer", "largest_box_share", "whole_image_rate",
    "false_boxes_on_empty",
]  # fmt: skip


class GateEntry(StrictModel):
    """``reward`` counts only where the reward ``needs`` gives ``at_least``; with ``multiply``, in its proportion."""

    reward: str
    needs: str
    at_least: float = 1.0
    multiply: bool = False


class ScheduleEntry(StrictModel):
    """A knob of ``reward`` that rises from ``start`` to ``end`` as the mean score over ``window`` batches succeeds."""

    reward: str
    knob: str = "threshold"
    start: float
    end: float
    step: float = Field(default=0.1, gt=0)
    window: int = Field(default=10, ge=1)
    success: float = 0.5


class DomainEntry(StrictModel):
    """DRPO: advantages over temperatures of the domain that a data column names, and of clusters in it."""

    column: str
    clusters: int = Field(default=1, ge=1)
    floor: float = Field(default=0.1, gt=0)


class CombinationSection(StrictModel):
    """How several rewards become one advantage. Weights stand with the rewards; ``mode`` goes to TRL by its own name.

    ``sum_then_normalize``: GRPO. ``normalize_then_sum``: GDPO. ``domains``: DRPO, which replaces both.
    """

    mode: Literal["sum_then_normalize", "normalize_then_sum"] = "sum_then_normalize"
    gates: list[GateEntry] = []
    schedules: list[ScheduleEntry] = []
    domains: DomainEntry | None = None

    @model_validator(mode="after")
    def _one_normalisation(self) -> "CombinationSection":
        if self.domains and self.mode != "sum_then_normalize":
            raise ValueError("'domains' (DRPO) normalises by itself; leave 'mode' out.")
        return self


CANARY_LIMITS = {
    "boxes_per_answer": 20.0,
    "whole_image_rate": 0.5,
    "false_boxes_on_empty": 2.0,
    "empty_rate": 0.5,
    "distinct_words": 0.2,
}


class CanarySection(StrictModel):
    """Signs of reward hacking, logged every ``every`` batches; with ``stop``, an alarm ends the run.

    ``limits``: a statistic beyond its limit for ``patience`` observations in a row is an alarm (``distinct_words`` and
    ``tag_rate`` below it, the others above).
    """

    every: int = Field(default=10, ge=1)
    stop: bool = False
    patience: int = Field(default=3, ge=1)
    limits: dict[CanaryStatistic, float] = CANARY_LIMITS  # pyright: ignore[reportAssignmentType]
