import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.ratings.preference_metrics import best_of_n, calibration, length_bias, pairwise_accuracy, reliability

SCORES = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=1, max_size=20)


def test_accuracy_counts_ties_as_half():
    found = pairwise_accuracy([2, 1, 0, 3], [1, 1, 1, 0])
    assert (found.value, found.num_cases) == (0.625, 4)
    assert found.low < 0.625 < found.high
    assert math.isnan(pairwise_accuracy([], []).value)


@given(SCORES)
def test_accuracy_mirrors_and_does_not_depend_on_a_shift(pairs):
    chosen, rejected = map(list, zip(*pairs, strict=True))
    there = pairwise_accuracy(chosen, rejected).value
    assert pairwise_accuracy(rejected, chosen).value == pytest.approx(1 - there)
    assert pairwise_accuracy([c + 7 for c in chosen], [r + 7 for r in rejected]).value == there


@pytest.mark.parametrize(("chosen", "rejected"), [([1, 2], [1]), ([math.nan], [0]), ([0], [math.inf]), ([[1]], [[0]])])
def test_scores_that_do_not_pair_are_refused(chosen, rejected):
    with pytest.raises(ValueError, match="two equal lists of finite numbers"):
        pairwise_accuracy(chosen, rejected)


def test_a_model_that_says_what_it_knows_is_calibrated():
    random = np.random.default_rng(0)
    margin = random.normal(0, 1.5, 40_000)
    right = random.random(40_000) < 1 / (1 + np.exp(-margin))
    signed = np.where(right, margin, -margin)
    honest = calibration(signed, np.zeros(40_000))
    boastful = calibration(5 * signed, np.zeros(40_000))
    assert honest.ece < 0.01
    assert boastful.ece > 0.1
    assert honest.log_loss < boastful.log_loss
    assert honest.brier < boastful.brier


def test_a_model_that_knows_nothing_has_the_golden_figures():
    found = calibration([0.0, 0.0], [0.0, 0.0])
    assert (found.ece, found.brier) == (0.0, 0.25)
    assert found.log_loss == pytest.approx(math.log(2))


def logit(p):
    return math.log(p / (1 - p))


def test_ten_bins_worked_by_hand():
    # .72 that won and .78 that lost share the bin of .7 to .8: predicted .75, observed .5; mirrored below one half.
    chosen, rejected = [logit(0.72), 0.0], [0.0, logit(0.78)]
    found = reliability(chosen, rejected)
    assert [(b.predicted, b.observed, b.num_cases) for b in found] == [
        (pytest.approx(0.25), 0.5, 2),
        (pytest.approx(0.75), 0.5, 2),
    ]
    worked = calibration(chosen, rejected)
    assert worked.ece == pytest.approx(0.25)
    assert worked.brier == pytest.approx((0.28**2 + 0.78**2) / 2)
    assert worked.log_loss == pytest.approx(-(math.log(0.72) + math.log(0.22)) / 2)


def test_certainty_falls_into_the_last_bin_and_not_beyond():
    found = reliability([50.0, 3.0, logit(0.85)], [0.0] * 3)
    assert [(round(b.predicted, 3), b.num_cases) for b in found[-2:]] == [(0.85, 1), (0.976, 2)]


def test_without_pairs_nothing_is_calibrated():
    nothing = calibration([], [])
    assert all(math.isnan(value) for value in (nothing.ece, nothing.brier, nothing.log_loss))


def test_pairs_of_equal_length_are_of_neither_side():
    found = length_bias([1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [2, 1, 1], [1, 1, 2])
    assert (found.chosen_longer.value, found.chosen_longer.num_cases) == (1.0, 1)
    assert (found.chosen_shorter.value, found.chosen_shorter.num_cases) == (0.0, 1)


def test_a_correlation_needs_two_pairs_and_both_to_vary():
    assert length_bias([0.2, 0.0], [0.0, 0.2], [2, 1], [1, 2]).correlation == pytest.approx(1.0)
    assert length_bias([0.2, 0.0], [0.0, 0.2], [5, 6], [6, 6]).correlation == pytest.approx(-1.0)
    assert math.isnan(length_bias([1.0, 1.0], [0.0, 0.0], [1, 2], [2, 1]).correlation)
    assert math.isnan(length_bias([1.0, 0.0], [0.0, 1.0], [1, 1], [2, 2]).correlation)
    assert math.isnan(length_bias([], [], [], []).correlation)


def test_a_model_that_only_measures_length_is_seen():
    random = np.random.default_rng(1)
    ours, theirs = random.integers(1, 90, 300), random.integers(1, 90, 300)
    found = length_bias(ours, theirs, ours, theirs)
    assert found.correlation == pytest.approx(1.0)
    assert (found.chosen_longer.value, found.chosen_shorter.value) == (1.0, 0.0)
    fair = length_bias(random.normal(1, 1, 300), random.normal(0, 1, 300), ours, theirs)
    assert abs(fair.correlation) < 0.2
    assert abs(fair.chosen_longer.value - fair.chosen_shorter.value) < 0.2
    assert math.isnan(length_bias([1.0], [0.0], [3], [3]).correlation)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=6), st.integers(1, 6))
def test_best_of_n_equals_every_subset_tried(samples, n):
    n = min(n, len(samples))
    proxy, gold = map(list, zip(*samples, strict=True))
    wanted = []
    for chosen in itertools.combinations(range(len(samples)), n):
        top = max(proxy[k] for k in chosen)
        wanted.append(np.mean([np.mean([gold[j] for j in range(len(samples)) if proxy[j] == top])]))
    (found,) = best_of_n([proxy], [gold], [n])
    assert found.gold == pytest.approx(np.mean(wanted))


def test_a_proxy_that_is_gamed_shows_falling_gold():
    proxy = np.array([[1.0, 2.0, 3.0, 9.0]])
    curve = best_of_n(proxy, [[0.2, 0.5, 0.9, 0.0]], [1, 2, 4])
    assert [round(b.gold, 4) for b in curve] == [0.4, 0.3833, 0.0]
    assert curve[0].proxy < curve[1].proxy < curve[2].proxy
    assert curve[2].kl == pytest.approx(math.log(4) - 0.75)


def test_best_of_two_cases_is_the_mean_of_both():
    # of one: (0 + 1) / 2 and (0 + .5) / 2; of two: the second sample (1), and the first (0)
    one, two = best_of_n([[1.0, 2.0], [4.0, 1.0]], [[0.0, 1.0], [0.0, 0.5]], [1, 2])
    assert (one.gold, one.proxy, one.kl) == (pytest.approx(0.375), pytest.approx(2.0), 0.0)
    assert (two.gold, two.proxy, two.kl) == (pytest.approx(0.5), pytest.approx(3.0), pytest.approx(math.log(2) - 0.5))


@pytest.mark.parametrize(
    ("proxy", "gold", "n"),
    [([[1.0, 2.0]], [[1.0, 2.0]], 3), ([[1.0]], [[1.0]], 0), ([1.0], [1.0], 1), ([[1.0]], [[]], 1)],
)
def test_samples_that_cannot_be_drawn_are_refused(proxy, gold, n):
    with pytest.raises(ValueError, match="best_of_n"):
        best_of_n(proxy, gold, [n])


def test_reliability_is_symmetric_and_holds_every_pair_twice():
    found = reliability([1.0, 2.0, -0.5], [0.0, 0.0, 0.0])
    assert sum(one.num_cases for one in found) == 6
    mirrored = [(round(1 - one.predicted, 9), round(1 - one.observed, 9)) for one in reversed(found)]
    assert mirrored == [(round(one.predicted, 9), round(one.observed, 9)) for one in found]


def test_the_gaps_of_the_bins_are_the_calibration_error():
    chosen, rejected = [3.0, 0.2, -1.0, 2.0], [0.0, 0.0, 0.0, 2.5]
    bins = reliability(chosen, rejected)
    gap = sum(one.num_cases * abs(one.predicted - one.observed) for one in bins) / sum(one.num_cases for one in bins)
    assert gap == pytest.approx(calibration(chosen, rejected).ece)
