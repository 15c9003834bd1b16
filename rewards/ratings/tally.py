"""Wins, ties, losses and failures of one model against another."""

from collections.abc import Sequence
from dataclasses import dataclass

from rewards.ratings.agreement import wilson


@dataclass(frozen=True)
class Tally:
    """Outcomes of a model against one opponent. ``failed``: cases without a verdict."""

    won: int
    tied: int
    lost: int
    failed: int = 0

    @property
    def win_rate(self) -> float:
        """PulseMind's figure: wins over all cases, ties and failures in the denominator; NaN without a case."""
        total = self.won + self.tied + self.lost + self.failed
        return self.won / total if total else float("nan")

    @property
    def score(self) -> tuple[float, float, float]:
        """Wins and half the ties over the cases that were judged, with Wilson's interval (NaN, 0, 1 without one)."""
        judged = self.won + self.tied + self.lost
        points = self.won + self.tied / 2
        return (points / judged if judged else float("nan"), *wilson(points, judged))


def tally(scores: Sequence[float | None]) -> Tally:
    """Counts of scores above, at and below one half, and of None.

    >>> tally([1.0, 0.5, 0.25, None])
    Tally(won=1, tied=1, lost=1, failed=1)
    """
    valid = [score for score in scores if score is not None]
    tied = sum(abs(score - 0.5) < 1e-9 for score in valid)
    won = sum(score > 0.5 for score in valid) - sum(0.5 < score < 0.5 + 1e-9 for score in valid)
    return Tally(won, tied, len(valid) - won - tied, len(scores) - len(valid))
