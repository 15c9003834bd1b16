import math

import numpy as np
import pytest

from rewards.ratings.bootstrap import drawn_counts, drawn_indices, interval


def test_the_interval_covers_a_mean_and_is_as_wide_as_its_error():
    values = np.random.default_rng(1).normal(0.3, 1, 200)
    counts = drawn_counts(200, num_resamples=300, seed=0)
    of_indices = [values[indices].mean() for indices in drawn_indices(range(200), num_resamples=300, seed=0)]
    for means in (counts @ values / 200, of_indices):
        low, high = interval(means)
        assert low < values.mean() < high
        assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(200), rel=0.2)


def test_a_seed_gives_the_draws_that_it_always_gave():
    """Every interval that was published rests on these."""
    assert drawn_counts(4, num_resamples=2, seed=0).tolist() == [[1, 0, 0, 3], [0, 2, 2, 0]]
    indices = np.array(drawn_indices("pqrs", num_resamples=2, seed=0))
    assert indices.tolist() == [[3, 2, 2, 1], [1, 0, 0, 0]]


def test_the_cases_of_a_cluster_are_drawn_together():
    draws = drawn_indices(["a", "a", "b", "a"], num_resamples=50, seed=0)
    assert len(draws) == 50
    for drawn in map(list, draws):
        assert drawn.count(0) == drawn.count(1) == drawn.count(3)
        assert drawn.count(0) + drawn.count(2) == 2


def test_one_cluster_gives_no_draws_and_none_no_counts():
    assert drawn_indices(["a", "a"], num_resamples=5, seed=0) == []
    assert drawn_counts(0, num_resamples=5, seed=0).shape == (5, 0)


def test_what_is_no_number_is_left_out():
    assert interval([math.nan, 0.0, 1.0, math.nan]) == pytest.approx((0.025, 0.975))
    assert interval([math.nan]) is None
