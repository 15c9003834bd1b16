"""Terms beyond MMedPO's loss. Each is off by default, and each gives MMedPO back where its coefficient is 0.

Shape suffixes: B pairs, K ranked answers, T tokens of an answer, V vocabulary. Log-probabilities are in nats; a
reward is beta x (log pi - log pi_ref), a margin the chosen reward less the rejected one. Left out: V-DPO's visual
guidance, whose formula could not be checked.
"""

from collections.abc import Sequence
from difflib import SequenceMatcher

import torch
import torch.nn.functional as F

from alignment.training.losses import Reduction, weighted_dpo_loss, weighted_mean


def span_logps(
    logps_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    changed_BT: torch.Tensor,
    *,
    gamma: float = 1.0,
    average: bool = False,
) -> torch.Tensor:
    """Log-probability of each answer (B), the tokens that differ between chosen and rejected counted ``gamma`` times.

    RLHF-V's DDPO (arXiv 2312.00849) with ``average``: (1/N) (sum of unchanged + gamma x sum of changed), N =
    number of unchanged + gamma x number of changed. ``gamma`` 1 without ``average`` is the plain sum of MMedPO; with
    it, the mean over tokens, which takes the length out.
    """
    counted_BT = mask_BT * torch.where(changed_BT, gamma, 1.0)
    total_B = (logps_BT * counted_BT).sum(dim=1)
    return total_B / counted_BT.sum(dim=1).clamp(min=1e-12) if average else total_B


def changed_tokens(tokens: Sequence[int], other: Sequence[int]) -> list[bool]:
    """Which of ``tokens`` are not in the longest common blocks with ``other`` (RLHF-V's changed segments).

    >>> changed_tokens([5, 6, 7, 8], [5, 9, 7, 8])
    [False, True, False, False]
    """
    blocks = SequenceMatcher(None, tokens, other, autojunk=False).get_matching_blocks()
    same = {k for block in blocks for k in range(block.a, block.a + block.size)}
    return [k not in same for k in range(len(tokens))]


def anchor_loss(
    chosen_B: torch.Tensor,
    ref_chosen_B: torch.Tensor,
    weight_B: torch.Tensor | None = None,
    *,
    beta: float,
    delta: float = 0.0,
    reduction: Reduction = "mean",
) -> torch.Tensor:
    """The scalar mean of w x (-log sigmoid(reward of the chosen - delta)): keeps the chosen answer from sinking.

    mDPO's anchor (arXiv 2406.11839), whose weights are 1.
    """
    return weighted_dpo_loss(beta * (chosen_B - ref_chosen_B) - delta, weight_B, reduction=reduction)


def symmetric_loss(
    margin_B: torch.Tensor,
    mirrored_B: torch.Tensor,
    weight_B: torch.Tensor | None = None,
    *,
    coefficient: float = 0.0,
    consistency: float = 0.0,
) -> torch.Tensor:
    """What SymMPO (arXiv 2506.11712) adds for two look-alike images m, m' whose true answers are y, y'.

    ``margin_B``: r(m, y) - r(m, y'); ``mirrored_B``: r(m', y') - r(m', y). The scalar coefficient x (their two
    losses) + consistency x mean w (margin - mirrored)^2; the paper takes 0.5 and 1e-4. Each image has both answers,
    so that what depends on the image alone cancels exactly, as it does not between an image and its noised copy.
    """
    both = weighted_dpo_loss(margin_B, weight_B) + weighted_dpo_loss(mirrored_B, weight_B)
    return coefficient * both + consistency * weighted_mean((margin_B - mirrored_B) ** 2, weight_B)


def token_kl(logits_TV: torch.Tensor, ref_logits_TV: torch.Tensor) -> torch.Tensor:
    """KL(reference || policy) over the vocabulary at each token (T), in nats, not negative."""
    logps_TV, ref_TV = (F.log_softmax(logits.float(), dim=-1) for logits in (logits_TV, ref_logits_TV))
    return (ref_TV.exp() * (ref_TV - logps_TV)).sum(dim=-1)


def token_kl_margin(
    margin_B: torch.Tensor, kl_chosen_B: torch.Tensor, kl_rejected_B: torch.Tensor, *, beta: float, coefficient: float
) -> torch.Tensor:
    """The margin less beta x coefficient x (KL of the rejected - stop-gradient of the KL of the chosen) (B).

    The KLs are sums over an answer's tokens. The token level of CHiP (arXiv 2501.16629, as its released code has it).
    """
    return margin_B - beta * coefficient * (kl_rejected_B - kl_chosen_B.detach())
