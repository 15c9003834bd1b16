"""A knob that tightens as the model succeeds: a curriculum over a threshold (MedLoc-R1, arXiv 2603.28120)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class ThresholdSchedule:
    """From ``start`` to ``end`` in steps, one whenever the mean score over ``window`` batches reaches ``success``.

    The value never falls, so a run of bad luck does not undo what was reached. ``state`` and ``restore`` carry it over
    a checkpoint.

    >>> schedule = ThresholdSchedule(start=0.3, end=0.5, step=0.1, window=2, success=0.6)
    >>> [schedule.update([score]) for score in (0.9, 0.5, 0.9, 0.9, 0.9, 0.9)]
    [0.3, 0.4, 0.4, 0.5, 0.5, 0.5]
    """

    start: float
    end: float
    step: float
    window: int
    success: float
    value: float = field(init=False)
    recent: list[float] = field(init=False, default_factory=list[float])

    def __post_init__(self) -> None:
        self.value = self.start

    def update(self, scores: Sequence[float | None]) -> float:
        """The value after one batch of scores; unjudged ones (None) do not count."""
        judged = [score for score in scores if score is not None]
        if not judged:
            return self.value
        self.recent.append(sum(judged) / len(judged))
        if len(self.recent) == self.window:
            if sum(self.recent) / self.window >= self.success:
                self.value = min(self.end, round(self.value + self.step, 9))
            self.recent.clear()
        return self.value

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to keep."""
        return {"value": self.value, "recent": list(self.recent)}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a checkpoint's state."""
        self.value, self.recent = float(state["value"]), [float(v) for v in state["recent"]]
