import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.config.input_error import InputError
from rewards.ratings.bradley_terry import (
    ELO_SCALE,
    Game,
    bradley_terry,
    bradley_terry_ratings,
    elo_ratings,
    groups,
    wins_matrix,
)

WINS = st.integers(2, 4).flatmap(
    lambda n: st.lists(st.lists(st.integers(1, 9), min_size=n, max_size=n), min_size=n, max_size=n)
)


def played(strengths, games, seed=0):
    """Games between players of true strengths, one case each."""
    random = np.random.default_rng(seed)
    pairs = list(itertools.combinations(strengths, 2))
    return [
        Game(a, b, float(random.random() < 1 / (1 + math.exp(strengths[b] - strengths[a]))), f"case {k}")
        for k in range(games)
        for a, b in pairs
    ]


def test_three_players_have_the_golden_strengths():
    assert bradley_terry([[0, 8, 6], [2, 0, 5], [4, 5, 0]]) == pytest.approx([0.5675, -0.4254, -0.1422], abs=5e-5)


def test_two_players_differ_by_the_log_odds():
    strength = bradley_terry([[0, 3], [1, 0]], ridge=1e-9)
    assert strength[0] - strength[1] == pytest.approx(math.log(3), abs=1e-5)


@given(WINS)
@settings(max_examples=40)
def test_strengths_sum_to_zero_and_follow_the_order_of_players(rows):
    wins = np.array(rows) * (1 - np.eye(len(rows)))
    strength = bradley_terry(wins)
    assert strength.sum() == pytest.approx(0, abs=1e-9)
    order = np.arange(len(rows))[::-1]
    assert bradley_terry(wins[np.ix_(order, order)]) == pytest.approx(strength[order], abs=1e-4)
    expected = 1 / (1 + np.exp(strength[None, :] - strength[:, None]))
    assert ((wins + wins.T) * expected).sum(1) == pytest.approx(wins.sum(1), abs=1e-3)


def test_one_who_always_wins_stays_finite_under_the_prior():
    strength = bradley_terry([[0, 9, 9], [0, 0, 5], [0, 5, 0]], ridge=0.1)
    assert np.isfinite(strength).all()
    assert strength[0] > 1
    assert strength[1] == pytest.approx(strength[2], abs=1e-6)


def test_a_tie_is_half_a_win_for_each():
    ties = [Game("a", "b", 0.5)] * 4
    wins = [Game("a", "b", 1.0), Game("a", "b", 0.0)] * 2
    assert (wins_matrix(ties, ["a", "b"]) == wins_matrix(wins, ["a", "b"])).all()


def test_groups_that_never_met_are_named():
    apart = [Game("a", "b", 1.0), Game("c", "d", 0.5)]
    assert groups(wins_matrix(apart, list("abcd"))) == [[0, 1], [2, 3]]
    with pytest.raises(InputError, match="never compared with each other: a, b; c, d"):
        bradley_terry_ratings(apart)


@pytest.mark.parametrize("bad", [Game("a", "b", 1.5), Game("a", "a", 1.0), Game("a", "b", math.nan)])
def test_a_comparison_that_is_none_is_refused(bad):
    with pytest.raises(InputError, match="expected two"):
        wins_matrix([bad], ["a", "b"])


def test_the_true_strengths_lie_within_the_intervals():
    truth = {"a": 0.8, "b": 0.0, "c": -0.8}
    found = bradley_terry_ratings(played(truth, 200), resamples=200)
    assert all(found[name].low <= truth[name] <= found[name].high for name in truth)
    assert all(found[name].high - found[name].low < 0.6 for name in truth)
    assert list(found) == ["a", "b", "c"]


def test_intervals_follow_the_seed_and_not_the_process():
    games = played({"a": 0.5, "b": 0.0}, 30)
    assert bradley_terry_ratings(games, resamples=50, seed=3) == bradley_terry_ratings(games, resamples=50, seed=3)
    assert math.isnan(bradley_terry_ratings(games, resamples=0)["a"].low)


def test_cases_are_resampled_whole():
    """Thirty comparisons of one case carry the evidence of one."""
    one_case = [Game("a", "b", float(k % 3 > 0), "x") for k in range(30)]
    rating = bradley_terry_ratings(one_case, resamples=50)["a"]
    assert rating.low == pytest.approx(rating.high)


def test_elo_does_not_depend_on_the_order_of_play():
    games = played({"a": 0.7, "b": 0.0, "c": -0.4}, 20)
    found, turned = elo_ratings(games, resamples=0), elo_ratings(games[::-1], resamples=0)
    assert {n: r.value for n, r in found.items()} == pytest.approx({n: r.value for n, r in turned.items()}, abs=1e-3)
    assert np.mean([r.value for r in found.values()]) == pytest.approx(1000)


def test_four_hundred_points_are_odds_of_ten():
    games = [Game("a", "b", 1.0)] * 10 + [Game("a", "b", 0.0)]
    found = elo_ratings(games, ridge=1e-9, resamples=0)
    assert found["a"].value - found["b"].value == pytest.approx(400, abs=0.1)
    assert pytest.approx(173.718, abs=1e-3) == ELO_SCALE
