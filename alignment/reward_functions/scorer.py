"""Rewards of a recipe asked row by row, outside of training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.reward_functions.adapter import AwaitedReward, TrlReward
from alignment.reward_functions.sampled_rows import Row
from rewards.attacks.attacks import tagged
from rewards.boxes.coordinate_space import BoxSpace, Units, in_written_units
from rewards.combination import as_table, weighted_sum
from rewards.dialogues.dialogue import Responses

Array = NDArray[np.float64]


class Scorer:
    """The rewards of a recipe, gates included, as one table of scores. ``space``: the units of a model's boxes."""

    def __init__(
        self, functions: Sequence[TrlReward | AwaitedReward], weights: Sequence[float], *, space: BoxSpace = "grid"
    ) -> None:
        self.functions, self.weights = functions, weights
        self.space: BoxSpace = space
        self.names = _distinct([f.__name__ for f in functions])

    def table(self, responses: Sequence[Responses], rows: Sequence[Row]) -> Array:
        """Scores (N, K) of responses to their rows, each plain or tagged, whichever earns more in all.

        Boxes in the responses are in the truth's units, and are scored as a model states them.
        """
        texts = [
            self._written(response, row)
            for response, row in zip(responses, rows, strict=True)
            if isinstance(response, str)
        ]
        if len(texts) < len(responses):  # dialogues, whose turns are no think-then-answer
            return self.scored(responses, rows)
        plain, framed = (self.scored(response, rows) for response in (texts, [tagged(r) for r in texts]))
        better = np.nan_to_num(self.totals(framed), nan=-np.inf) > np.nan_to_num(self.totals(plain), nan=-np.inf)
        return np.where(better[:, None], framed, plain)

    def _written(self, response: str, row: Row) -> str:
        # In an audit no processor is at hand: "processed" is tried as if it resized nothing (see ``audit``).
        return in_written_units(response, Units.of(row, self.space), row.get("box_images"))

    def scored(self, responses: Sequence[Responses], rows: Sequence[Row]) -> Array:
        """Scores (N, K) of responses to their rows, as they are; a list of texts is the turns of a dialogue."""
        columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in rows[0]}
        texts = [r if isinstance(r, str) else "\n".join(r) for r in responses]
        if any(not isinstance(response, str) for response in responses):
            columns["model_turns"] = list(responses)
        columns["completion_ids"] = [text.split() for text in texts]
        return as_table([f(list(texts), **columns) for f in self.functions])

    def totals(self, table: Array) -> Array:
        """The weighted sum, NaN where no reward judges."""
        return weighted_sum(table, self.weights)


def _distinct(names: list[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name}[{k}]" for k, name in enumerate(names)]
