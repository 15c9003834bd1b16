"""Credit of single turns: each turn's tokens get the advantage of that turn among the group's dialogues.

A turn earns what its answer is worth and what the dialogue as a whole earns beyond its answers (consistency), which
is thereby credited to every answer; both are then normalised over the group, turn by turn, as GRPO does with whole
responses (Shao et al. 2024, sec. 4.1.2). Shapes: N dialogues, K turns, T tokens of completion.
"""

from collections.abc import Sequence
from typing import Any

import torch

from rewards.loading import Reward

EPSILON = 1e-4
"""Added to the standard deviation, as TRL does."""


def turn_returns(
    rewards: Sequence[tuple[Reward, float]], rows: Sequence[dict[str, Any]], *, num_turns: int
) -> torch.Tensor:
    """(N, K): what each turn earns under weighted rewards; NaN where there is no such turn, or no judgement.

    ``rows`` hold ``model_turns``, ``overlong`` and the columns that the rewards read.
    """
    found = torch.full((len(rows), num_turns), torch.nan)
    for index, row in enumerate(rows):
        if not row["overlong"]:
            returns = _row_returns(rewards, row)
            found[index, : len(returns)] = torch.tensor(returns)
    return found


def _row_returns(rewards: Sequence[tuple[Reward, float]], row: dict[str, Any]) -> list[float]:
    total = [0.0] * len(row["model_turns"])
    for reward, weight in rewards:
        turns, beyond = reward.by_turn(row["model_turns"], **row)
        total = [sum_so_far + weight * (turn + beyond) for sum_so_far, turn in zip(total, turns, strict=True)]
    return total


def turn_advantages(returns_NK: torch.Tensor, group_size: int, *, scale: bool) -> torch.Tensor:
    """(N, K): returns less their mean over the group's same turn, over its standard deviation if ``scale``.

    Rows of one group stand together. What is NaN takes no part and has advantage 0.

    >>> turn_advantages(torch.tensor([[1.0, 0.0], [3.0, 0.0]]), 2, scale=False).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    grouped = returns_NK.view(-1, group_size, returns_NK.shape[1])
    known = ~grouped.isnan()
    count = known.sum(1, keepdim=True)
    centred = (grouped - grouped.nansum(1, keepdim=True) / count).nan_to_num(0.0)
    if scale:
        deviation = (centred.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
        centred = centred / (deviation + EPSILON)
    return centred.reshape(returns_NK.shape)


def over_tokens(advantages_NK: torch.Tensor, turn_of_token: Sequence[Sequence[int]], width: int) -> torch.Tensor:
    """(N, T): each token's advantage is that of its turn; 0 for the clinician's tokens and for padding.

    >>> over_tokens(torch.tensor([[5.0, 7.0]]), [[0, 0, -1, 1]], 5).tolist()
    [[5.0, 5.0, 0.0, 7.0, 0.0]]
    """
    found = advantages_NK.new_zeros(len(turn_of_token), width)
    for row, turns in enumerate(turn_of_token):
        turn_of = torch.tensor(turns, device=found.device)
        found[row, : len(turns)] = torch.where(turn_of >= 0, advantages_NK[row, turn_of.clamp(min=0)], 0.0)
    return found
