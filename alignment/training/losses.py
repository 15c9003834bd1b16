"""Losses of preference training.

Shape suffixes: B pairs. Log-probabilities are sums over the answer's tokens, in nats.
"""

from typing import Literal

import torch
import torch.nn.functional as F

Reduction = Literal["mean", "sum_w"]


def preference_margin(
    chosen_B: torch.Tensor,
    rejected_B: torch.Tensor,
    ref_chosen_B: torch.Tensor,
    ref_rejected_B: torch.Tensor,
    *,
    beta: float,
) -> torch.Tensor:
    """The margin d of MMedPO eq. 3 (B): beta x [(chosen - ref_chosen) - (rejected - ref_rejected)].

    For image-side pairs ``rejected`` is the same answer under the noised image.
    """
    return beta * ((chosen_B - ref_chosen_B) - (rejected_B - ref_rejected_B))


def weighted_dpo_loss(
    margin_B: torch.Tensor,
    weight_B: torch.Tensor | None = None,
    *,
    reduction: Reduction = "mean",
) -> torch.Tensor:
    """The scalar (1/B) sum of w x (-log sigmoid(d)), MMedPO eq. 3; w = 1 is DPO (Rafailov et al. 2023).

    ``sum_w`` divides by the sum of weights instead of B, so that weights do not scale the step.
    """
    return weighted_mean(-F.logsigmoid(margin_B), weight_B, reduction=reduction)


def weighted_mean(
    values_B: torch.Tensor, weight_B: torch.Tensor | None = None, *, reduction: Reduction = "mean"
) -> torch.Tensor:
    """The scalar sum of w x value over B, or over the sum of weights (0 where all weights are 0)."""
    if weight_B is None:
        return values_B.mean()
    total = (weight_B * values_B).sum()
    return total / (len(values_B) if reduction == "mean" else weight_B.sum().clamp(min=1e-12))
