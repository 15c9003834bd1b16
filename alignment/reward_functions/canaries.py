"""Canaries of reward hacking in training: what the policy says, and what the canned attacks would earn beside it.

Every ``every`` batches the statistics of the answers are logged as ``canary/STATISTIC``, and the mean reward of each
canned attack on the same prompts, less the policy's own, as ``canary/margin/ATTACK``: above 0, hacking would pay. An
alarm is a statistic beyond its limit for ``patience`` observations in a row; with ``stop`` it ends the run.
Left out: a held-out score; the evaluation of checkpoints has it.
"""

import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from transformers import TrainerCallback

from alignment.config.reward_sections import CanarySection
from alignment.reward_functions.adapter import AwaitedReward, TrlReward, response_text
from alignment.reward_functions.sampled_rows import prompt_row
from alignment.reward_functions.scorer import Scorer
from rewards.answers.final_answer import final_answer
from rewards.attacks.attacks import ATTACKS
from rewards.boxes.coordinate_space import BoxSpace, Units, answered_boxes, in_written_units
from rewards.boxes.geometry import area, clipped, is_valid
from rewards.combination import weighted_sum
from rewards.rules.facts import Box

COLUMNS = ("task", "facts", "rule_set", "answer", "boxes")
"""What the canned attacks read of a row, beside the prompt."""
CANNED = ("empty", "says none", "whole image", "box spam", "all findings absent", "judge flattery", "length farming")
WHOLE = 0.9
log = logging.getLogger(__name__)


def statistics(responses: Sequence[str], boxes: Sequence[Any], units: Sequence[Units]) -> dict[str, float]:
    """What a batch of answers looks like; each a mean over all answers, or over those to rows with box truth.

    ``units``: of each row; a share of the image is 0 where they are not known.
    ``whole_image_rate``: share with a box over nine tenths of the image. ``false_boxes_on_empty``: boxes an answer
    where no box is true. ``distinct_words``: distinct words / words, low in repetition. ``tag_rate``: share in tags.

    >>> statistics(["[[0,0,100,100]]"], [[[1, 1, 9, 9]]], [Units(box_grid=100)])["whole_image_rate"]
    1.0
    """
    words = [response.split() for response in responses]
    judged = [
        ([box for box in answered_boxes(response, unit) or [] if is_valid(box)], truth, unit)
        for response, truth, unit in zip(responses, boxes, units, strict=True)
        if truth is not None
    ]
    shares = [max((_share(box, unit) for box in found), default=0.0) for found, _, unit in judged]
    return {
        "words": _mean([float(len(w)) for w in words]),
        "empty_rate": _mean([float(not w) for w in words]),
        "distinct_words": _mean([len(set(w)) / len(w) for w in words if w], empty=1.0),
        "tag_rate": _mean([float(final_answer(r) is not None) for r in responses]),
        "boxes_per_answer": _mean([float(len(found)) for found, _, _ in judged]),
        "largest_box_share": _mean(shares),
        "whole_image_rate": _mean([float(share > WHOLE) for share in shares]),
        "false_boxes_on_empty": _mean([float(len(found)) for found, truth, _ in judged if not truth]),
    }


def _share(box: Box, units: Units) -> float:
    extent = units.extent()
    return area(clipped(box, width=extent[0], height=extent[1])) / (extent[0] * extent[1]) if extent else 0.0


def _mean(values: Sequence[float], *, empty: float = 0.0) -> float:
    return float(np.mean(values)) if len(values) else empty


class Canaries(TrainerCallback):
    """Observes batches through a watched reward function, and stops the trainer if an alarm asks for it."""

    def __init__(
        self,
        section: CanarySection,
        functions: Sequence[TrlReward | AwaitedReward],
        weights: Sequence[float],
        *,
        group_size: int,
        gather: Callable[[Any], list[Any]],
        box_space: BoxSpace = "grid",
    ) -> None:
        self.box_space: BoxSpace = box_space
        self.section, self.group_size, self.gather = section, group_size, gather
        self.scorer = Scorer(functions, weights)
        self.seen, self.streaks = 0, dict[str, int]()
        self.alarms: list[str] = []

    def observe(self, completions: list[Any], log_metric: Callable[[str, float], None], **columns: Any) -> None:
        """Logs the statistics of one batch of completions and the margins of the attacks, every so many batches."""
        self.seen += 1
        if (self.seen - 1) % self.section.every:
            return
        texts = [response_text(completion) for completion in completions]
        rows = self._rows(texts, columns)
        units = [Units.of(row, self.box_space) for row in rows]
        mine = statistics(texts, columns["boxes"], units) | self._margins(texts, rows)
        parts = self.gather(mine)
        means = {name: _mean([part[name] for part in parts]) for name in mine}
        for name, value in means.items():
            log_metric(f"canary/{name}", value)
        self._judge(means)

    def kept_state(self) -> dict[str, Any]:
        """What a checkpoint has to keep (see ``resuming/training.py``)."""
        return {"seen": self.seen, "streaks": self.streaks, "alarms": self.alarms}

    def restore_state(self, state: dict[str, Any]) -> None:
        """Goes on from a checkpoint's state."""
        self.seen, self.streaks, self.alarms = state["seen"], state["streaks"], state["alarms"]

    def _rows(self, texts: list[str], columns: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "prompt": columns["prompts"][k],
                **{
                    name: values[k]
                    for name, values in columns.items()
                    if name != "prompts" and isinstance(values, list)
                },
            }
            for k in range(len(texts))
        ]

    def _margins(self, texts: list[str], rows: list[dict[str, Any]]) -> dict[str, float]:
        """Mean reward of each canned attack on this batch's prompts, less that of the policy's answers."""
        policy = self._total(texts, rows)
        few = rows[:: self.group_size]
        return {
            f"margin/{name}": self._total([self._canned(name, row) for row in few], few) - policy for name in CANNED
        }

    def _canned(self, name: str, row: dict[str, Any]) -> str:
        """A canned attack on a row, its boxes as the policy would write them."""
        units = Units.of(row, self.box_space)
        return in_written_units(ATTACKS[name](prompt_row(row), random.Random(0)), units)

    def _total(self, texts: list[str], rows: list[dict[str, Any]]) -> float:
        totals = weighted_sum(self.scorer.scored(texts, rows), self.scorer.weights)
        return _mean(totals[~np.isnan(totals)].tolist())

    def _judge(self, means: dict[str, float]) -> None:
        for name, limit in self.section.limits.items():
            value = means[name]
            beyond = value < limit if name in ("distinct_words", "tag_rate") else value > limit
            self.streaks[name] = self.streaks.get(name, 0) + 1 if beyond else 0
            if self.streaks[name] == self.section.patience:
                self.alarms.append(name)
                log.warning(
                    "canary: %s is %.3g, beyond its limit of %.3g: is the reward being gamed?", name, value, limit
                )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stops the run after an alarm, if the recipe says so."""
        if self.alarms and self.section.stop:
            control.should_training_stop = True


class Watched:
    """A reward function that shows its batches to the canaries. Its name and scores are unchanged."""

    def __init__(self, function: Any, canaries: Canaries) -> None:
        self.function, self.canaries = function, canaries
        self.__name__ = function.__name__

    def __call__(
        self, completions: list[Any], log_metric: Callable[[str, float], None] | None = None, **columns: Any
    ) -> list[float | None]:
        """One number a completion."""
        if log_metric:
            self.canaries.observe(completions, log_metric, **columns)
        return self.function(completions, log_metric=log_metric, **columns)
