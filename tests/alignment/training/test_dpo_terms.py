"""Terms beyond MMedPO: golden numbers derived by hand, and the law that each vanishes with its coefficient."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignment.training.dpo_terms import (
    anchor_loss,
    changed_tokens,
    span_logps,
    symmetric_loss,
    token_kl,
    token_kl_margin,
)
from alignment.training.losses import weighted_dpo_loss

LN2 = math.log(2)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def loss_of(margin):
    """-log sigmoid."""
    return math.log1p(math.exp(-margin))


LOGPS = tensor([-1.0, -2.0, -3.0, -9.0])
MASK = tensor([1.0, 1.0, 1.0, 0.0])
CHANGED = torch.tensor([[False, True, False, True]])


def test_changed_words_count_gamma_times_as_in_rlhf_v():
    # unchanged -1 - 3, changed -2, gamma 5: (-4 - 10) / (2 + 5) = -2; the padded token counts for nothing
    assert span_logps(LOGPS, MASK, CHANGED, gamma=5.0, average=True).tolist() == [-2.0]
    assert span_logps(LOGPS, MASK, CHANGED, gamma=5.0).tolist() == [-14.0]


def test_gamma_one_is_the_plain_sum_or_the_mean_over_tokens():
    assert span_logps(LOGPS, MASK, CHANGED).tolist() == [-6.0]
    assert span_logps(LOGPS, MASK, CHANGED, average=True).tolist() == [-2.0]


@given(st.lists(st.tuples(st.floats(-9, 0), st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_whatever_changed_gamma_one_gives_mmedpos_log_probability(tokens):
    logps, mask, changed = (torch.tensor([column]) for column in zip(*tokens, strict=True))
    assert torch.allclose(span_logps(logps, mask.float(), changed), (logps * mask).sum(dim=1))


def test_a_mean_over_less_than_one_whole_token_is_still_the_mean():
    # one changed token, gamma .1: (.1 x -2) / .1
    logps, one = tensor([-2.0]), tensor([1.0])
    assert span_logps(logps, one, torch.tensor([[True]]), gamma=0.1, average=True).item() == pytest.approx(-2.0)


def test_an_answer_without_tokens_has_no_log_probability_and_no_gradient_of_nan():
    logps = LOGPS.clone().requires_grad_()
    span_logps(logps, torch.zeros_like(MASK), CHANGED, average=True).sum().backward()
    assert logps.grad.tolist() == [[0.0] * 4]


@pytest.mark.parametrize(
    ("one", "other", "want"),
    [
        ([1, 2, 3], [1, 2, 3], [False] * 3),
        ([1, 2, 3], [], [True] * 3),
        ([1, 2, 3, 4], [1, 9, 9, 3, 4], [False, True, False, False]),
        ([], [1], []),
        ([1] + [5] * 300, [2] + [5] * 300, [True] + [False] * 300),  # what stands everywhere in a long answer
    ],
)
def test_changed_tokens_are_those_outside_the_common_blocks(one, other, want):
    assert changed_tokens(one, other) == want


@given(st.lists(st.integers(0, 5), max_size=12), st.lists(st.integers(0, 5), max_size=12))
def test_unchanged_tokens_are_the_same_on_both_sides(one, other):
    kept = [[t for t, c in zip(a, changed_tokens(a, b), strict=True) if not c] for a, b in ((one, other), (other, one))]
    assert len(kept[0]) <= min(len(one), len(other))
    assert (one == other) == (not any(changed_tokens(one, other)) and len(one) == len(other))


def test_the_anchor_is_the_loss_of_the_chosen_reward_alone():
    # beta .1: rewards .1, -.2; weights 1, .5: (loss(.1) + .5 loss(-.2)) / 2
    want = (loss_of(0.1) + 0.5 * loss_of(-0.2)) / 2
    got = anchor_loss(tensor(-12, -7), tensor(-13, -5), tensor(1.0, 0.5), beta=0.1)
    assert got.item() == pytest.approx(want, abs=1e-12)


def test_delta_asks_for_more_than_standing_still():
    still = tensor(-5.0)
    assert anchor_loss(still, still, beta=0.1).item() == pytest.approx(LN2)
    assert anchor_loss(still, still, beta=0.1, delta=1.0).item() == pytest.approx(loss_of(-1.0))


def test_the_anchor_pulls_the_chosen_up_and_a_weight_of_zero_lets_go():
    chosen = tensor(-5.0, -5.0).requires_grad_()
    anchor_loss(chosen, tensor(-4.0, -4.0), tensor(1.0, 0.0), beta=0.1).backward()
    assert chosen.grad[0] < 0
    assert chosen.grad[1] == 0


def test_rows_of_graded_negatives_are_hscrs_sum_over_all_pairs():
    """One row a pair of the truth and two negatives, the further ones weighted (arXiv 2506.00805 with weight 1)."""
    margins = tensor(0.9, 0.3, 0.6)  # rewards .5, .2, -.4
    assert (weighted_dpo_loss(margins, tensor(1.0, 0.5, 0.5)) * 3).item() == pytest.approx(
        loss_of(0.9) + 0.5 * (loss_of(0.3) + loss_of(0.6))
    )


def test_symmetric_pairs_have_the_papers_terms():
    # margins .4 and -.2: .5 (loss(.4) + loss(-.2)) + 1e-4 x .36
    want = 0.5 * (loss_of(0.4) + loss_of(-0.2)) + 1e-4 * 0.36
    got = symmetric_loss(tensor(0.4), tensor(-0.2), coefficient=0.5, consistency=1e-4)
    assert got.item() == pytest.approx(want, abs=1e-12)


def test_swapping_the_two_images_changes_nothing():
    one, two = tensor(0.4, 0.1), tensor(-0.2, 2.0)
    options = dict(coefficient=0.5, consistency=0.1)
    assert torch.equal(symmetric_loss(one, two, **options), symmetric_loss(two, one, **options))


@given(st.lists(st.tuples(*[st.floats(-5, 5)] * 4), min_size=1, max_size=5))
def test_without_coefficients_symmetry_and_token_kl_add_nothing(rewards):
    r = torch.tensor(rewards, dtype=torch.float64)
    assert symmetric_loss(r[:, 0], r[:, 1]).item() == 0.0
    assert torch.equal(token_kl_margin(r[:, 0], r[:, 1], r[:, 2], beta=0.1, coefficient=0.0), r[:, 0])


def test_token_kl_is_the_hand_worked_one():
    # reference (1/2, 1/2), policy (1/4, 3/4): .5 ln 2 + .5 ln(2/3)
    policy = torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log()
    reference = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log()
    want = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert token_kl(policy, reference).tolist() == pytest.approx([want, 0.0], abs=1e-6)


@given(st.lists(st.floats(-4, 4), min_size=6, max_size=6), st.lists(st.floats(-4, 4), min_size=6, max_size=6))
def test_kl_is_never_negative_and_nothing_between_equals(one, two):
    a, b = (torch.tensor(values).reshape(2, 3) for values in (one, two))
    assert token_kl(a, b).min().item() >= -1e-5
    assert token_kl(a, a).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_token_kl_holds_the_rejected_and_leaves_the_chosen_alone():
    chosen, rejected = tensor(0.3).requires_grad_(), tensor(0.5).requires_grad_()
    margin = token_kl_margin(tensor(1.0), chosen, rejected, beta=0.1, coefficient=2.0)
    assert margin.item() == pytest.approx(1.0 - 0.1 * 2 * 0.2)
    weighted_dpo_loss(margin).backward()
    assert chosen.grad is None
    assert rejected.grad.item() > 0
