"""MMedPO eq. 3, hand-worked: beta 0.1, the three pairs below, weights .8, 1, .2.

Margins: .1*((-12+13)-(-20+18)) = .3; .1*((.5)-(.5)) = 0; 0. -log sigmoid: .5543552, ln 2, ln 2.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignment.training.losses import preference_margin, weighted_dpo_loss, weighted_mean

CHOSEN = torch.tensor([-12.0, -5.0, -30.0], dtype=torch.float64)
REJECTED = torch.tensor([-20.0, -4.0, -30.0], dtype=torch.float64)
REF_CHOSEN = torch.tensor([-13.0, -5.5, -30.0], dtype=torch.float64)
REF_REJECTED = torch.tensor([-18.0, -4.5, -30.0], dtype=torch.float64)
WEIGHT = torch.tensor([0.8, 1.0, 0.2], dtype=torch.float64)


def margin(chosen=CHOSEN):
    return preference_margin(chosen, REJECTED, REF_CHOSEN, REF_REJECTED, beta=0.1)


def test_margins_are_the_hand_worked_ones():
    assert margin().tolist() == pytest.approx([0.3, 0.0, 0.0], abs=1e-12)


@pytest.mark.parametrize(
    ("weight", "reduction", "want"),
    [(WEIGHT, "mean", 0.4250869), (WEIGHT, "sum_w", 0.6376304), (None, "mean", 0.6468832)],
)
def test_loss_is_the_golden_number(weight, reduction, want):
    assert weighted_dpo_loss(margin(), weight, reduction=reduction).item() == pytest.approx(want, abs=1e-7)


def test_gradient_with_respect_to_the_chosen_log_probability_is_the_golden_one():
    chosen = CHOSEN.clone().requires_grad_()
    (weighted_dpo_loss(margin(chosen), WEIGHT) * 3).backward()
    assert chosen.grad.tolist() == pytest.approx([-0.0340446, -0.05, -0.01], abs=1e-7)


def test_weight_two_doubles_the_gradient_and_weight_zero_stops_it():
    grads = []
    for w in (0.0, 1.0, 2.0):
        chosen = CHOSEN.clone().requires_grad_()
        weighted_dpo_loss(margin(chosen), torch.full((3,), w, dtype=torch.float64)).backward()
        grads.append(chosen.grad)
    assert torch.equal(grads[0], torch.zeros(3, dtype=torch.float64))
    assert torch.allclose(grads[2], 2 * grads[1])


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=8))
def test_weights_of_one_give_plain_dpo(margins):
    d = torch.tensor(margins, dtype=torch.float64)
    assert torch.allclose(weighted_dpo_loss(d, torch.ones_like(d)), weighted_dpo_loss(d))


def test_equal_answers_under_one_image_teach_nothing():
    same = CHOSEN.clone().requires_grad_()
    weighted_dpo_loss(preference_margin(same, same, REF_CHOSEN, REF_CHOSEN, beta=0.1), WEIGHT).backward()
    assert same.grad.tolist() == [0.0, 0.0, 0.0]


def test_swapping_the_images_of_an_image_side_pair_flips_its_margin():
    there = preference_margin(CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED, beta=0.1)
    back = preference_margin(REJECTED, CHOSEN, REF_REJECTED, REF_CHOSEN, beta=0.1)
    assert torch.allclose(there, -back)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 2)), min_size=1, max_size=8))
def test_a_mixed_batch_is_the_mean_of_its_rows_one_by_one_in_any_order(rows):
    d, w = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
    alone = torch.stack([weighted_dpo_loss(d[k : k + 1], w[k : k + 1]) for k in range(len(d))])
    assert torch.allclose(weighted_dpo_loss(d, w), alone.mean())
    assert torch.allclose(weighted_dpo_loss(d.flip(0), w.flip(0)), weighted_dpo_loss(d, w))


def test_drawing_rows_by_weight_has_the_gradient_of_the_weighted_loss():
    """Spec item 18, in expectation exactly: sum_i p_i grad_i with p = w / sum w is the sum_w reduction."""
    d = margin().clone().requires_grad_()
    weighted_dpo_loss(d, WEIGHT, reduction="sum_w").backward()
    grads = torch.sigmoid(-margin()) * -1
    assert torch.allclose(d.grad, WEIGHT / WEIGHT.sum() * grads)


def test_weighted_means_of_no_weight_are_zero_and_not_nan():
    values, zero = torch.tensor([1.0, 2.0]), torch.zeros(2)
    assert weighted_mean(values, zero).item() == 0.0
    assert weighted_mean(values, zero, reduction="sum_w").item() == 0.0


def test_small_weights_are_divided_by_their_own_sum():
    # (.001 x 1 + .003 x 2) / .004 = 1.75
    weights = torch.tensor([0.001, 0.003], dtype=torch.float64)
    got = weighted_mean(torch.tensor([1.0, 2.0], dtype=torch.float64), weights, reduction="sum_w")
    assert got.item() == pytest.approx(1.75)
