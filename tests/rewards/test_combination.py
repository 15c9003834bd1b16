import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.combination import (
    Gate,
    as_table,
    cluster_labels,
    domain_advantages,
    normalised,
    weighted_sum,
)
from rewards.schedule import ThresholdSchedule

GATE = Gate("a", "b")
HALF = 1 / math.sqrt(2)
SCORES = st.lists(st.lists(st.one_of(st.none(), st.floats(-5, 5)), min_size=8, max_size=8), min_size=1, max_size=3)


def plain(table, weights, *, group_size):
    """GRPO's advantages, by group."""
    return np.nan_to_num(normalised(weighted_sum(table, weights)[:, None], group_size=group_size)[:, 0])


def test_the_papers_group_of_four():
    got = plain(as_table([[0.5, 0.75, 0.25, 0.5]]), [1], group_size=4)
    assert got == pytest.approx([0, 1.224, -1.224, 0], abs=1e-3)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 7.7])
def test_a_group_without_variance_has_exactly_no_advantage(value):
    assert plain(as_table([[value] * 3]), [1], group_size=3).tolist() == [0.0] * 3
    assert plain(as_table([[value] * 3 + [None]]), [1], group_size=4).tolist() == [0.0] * 4


def test_none_is_left_out_and_not_zero():
    table = as_table([[1.0, None, 3.0], [None, None, 1.0]])
    assert np.isnan(weighted_sum(table, [1, 1]).tolist()[1])
    assert plain(table[:, :1], [1], group_size=3) == pytest.approx([-HALF, 0, HALF], abs=1e-4)
    assert plain(as_table([[None] * 4]), [1], group_size=4).tolist() == [0.0] * 4


def test_weights_multiply():
    assert weighted_sum(as_table([[1.0, None], [0.5, 0.5]]), [2.0, 4.0]).tolist() == [4.0, 2.0]


def test_a_single_judged_response_has_no_advantage():
    assert np.isnan(normalised(as_table([[None, 5.0]]), group_size=2)[0, 0])
    assert normalised(as_table([[None, 5.0]]), group_size=2)[1, 0] == 0
    assert plain(as_table([[None, 5.0, None, None]]), [1], group_size=4).tolist() == [0.0] * 4


@given(SCORES)
def test_what_is_judged_never_becomes_nan(scores):
    table = as_table(scores)
    assert (np.isnan(normalised(table, group_size=4)) == np.isnan(table)).all()


@given(SCORES, st.permutations(range(4)))
def test_the_order_within_a_group_does_not_matter(scores, order):
    table, places = as_table(scores), [*order, 4, 5, 6, 7]
    weights = [1.0] * len(scores)
    assert plain(table[places], weights, group_size=4) == pytest.approx(
        plain(table, weights, group_size=4)[places], abs=1e-6
    )


def test_normalised_columns_are_independent():
    table = as_table([[0, 1], [5, 9]])
    assert normalised(table, group_size=2)[:, 1] == pytest.approx([-HALF, HALF], abs=1e-4)


@pytest.mark.parametrize(
    ("gate", "score", "needed", "want"),
    [
        (GATE, 0.8, 1.0, 0.8), (GATE, 0.8, 0.5, 0.0), (Gate("a", "b", at_least=0.5), 0.8, 0.5, 0.8),
        (Gate("a", "b", multiply=True), 0.8, 0.5, 0.4), (GATE, None, 0.0, None), (GATE, 0.8, None, 0.8),
        (Gate("a", "b", multiply=True), 0.8, 1.5, 0.8), (Gate("a", "b", multiply=True), 0.8, -0.5, 0.0),
    ],
)  # fmt: skip
def test_gates(gate, score, needed, want):
    assert gate.applied(score, needed, floor=0.0) == (None if want is None else pytest.approx(want))


def test_a_shut_gate_gives_the_floor_and_not_zero():
    assert Gate("a", "b").applied(-0.2, 0.0, floor=-1.0) == -1.0
    assert Gate("a", "b", multiply=True).applied(0.0, 0.5, floor=-1.0) == -0.5


def test_gating_decides_between_format_and_truth():
    # Format 0/1 and accuracy: a form without truth (1, 0) against the truth slightly malformed (0, 1), weights .5, 1.
    gate = Gate("accuracy", "format")
    open_sum = [0.5 * 1 + 0, 0 + 1.0]
    shut_sum = [0.5 * 1 + gate.applied(0.0, 1.0, floor=0.0), 0 + gate.applied(1.0, 0.0, floor=0.0)]
    assert open_sum[0] < open_sum[1]
    assert shut_sum[0] > shut_sum[1]


def test_one_domain_and_one_cluster_keep_grpos_order():
    table = as_table([[0, 1, 0.5, 0.2, 0.9, 0.1, 0.4, 0.3]])
    grpo = plain(table, [1], group_size=4)
    got = domain_advantages(table, [1], ["ct"] * 8, group_size=4)
    assert np.argsort(got).tolist() == np.argsort(grpo).tolist()
    assert got == pytest.approx(grpo / grpo.std(ddof=1))


@pytest.mark.parametrize("shift", [-3.0, -0.5, 0.0])
def test_negative_and_zero_means_neither_flip_nor_blow_up(shift):
    table = as_table([[shift + v for v in (0, 1, 0, 1, 0, 0.1, 0, 0.1)]])
    got = domain_advantages(table, [1], ["ct"] * 4 + ["x-ray"] * 4, group_size=4)
    assert np.isfinite(got).all()
    assert (np.sign(got) == np.sign(plain(table, [1], group_size=4))).all()
    assert got.std(ddof=1) == pytest.approx(1)


def ratio(advantages, first, second):
    return advantages[first] / advantages[second]


def test_temperatures_are_the_hand_worked_ones():
    # Advantages of a pair are +-1/sqrt 2. Domain a: (0, 1), T = sqrt 2 x .5; its one cluster is itself: T^2 = .5.
    # Domain b: (.2, .4), T = sqrt 2 x .3, T^2 = .18. So b's advantages are .5 / .18 of a's.
    got = domain_advantages(as_table([[0.0, 1.0, 0.2, 0.4]]), [1], ["a", "a", "b", "b"], group_size=2)
    assert ratio(got, 3, 1) == pytest.approx(0.5 / 0.18, rel=1e-3)
    # Domain b: (0, .02): sqrt 2 x .01 is below the floor of .1, T^2 = .01.
    got = domain_advantages(as_table([[0.0, 1.0, 0.0, 0.02]]), [1], ["a", "a", "b", "b"], group_size=2)
    assert ratio(got, 3, 1) == pytest.approx(0.5 / 0.01, rel=1e-2)
    # Rewards that are all positive are not shifted: T = sqrt 2 x .75 and sqrt 2 x .3.
    got = domain_advantages(as_table([[0.5, 1.0, 0.2, 0.4]]), [1], ["a", "a", "b", "b"], group_size=2)
    assert ratio(got, 3, 1) == pytest.approx((0.75 / 0.3) ** 2, rel=1e-3)
    # Negative rewards are shifted by the least one, here to (0, 1) and (.2, .4).
    got = domain_advantages(as_table([[-1.0, 0.0, -0.8, -0.6]]), [1], ["a", "a", "b", "b"], group_size=2)
    assert ratio(got, 3, 1) == pytest.approx(0.5 / 0.18, rel=1e-3)


def test_clusters_of_a_domain_have_their_own_temperatures():
    # (0, 1) and (0, .2) in one domain. One cluster (the default): one temperature. Two: sqrt 2 x .5 and sqrt 2 x .1.
    table, domains = as_table([[0.0, 1.0, 0.0, 0.2]]), ["a"] * 4
    assert ratio(domain_advantages(table, [1], domains, group_size=2), 3, 1) == pytest.approx(1, rel=1e-3)
    assert ratio(domain_advantages(table, [1], domains, group_size=2, clusters=2), 3, 1) == pytest.approx(5, rel=1e-3)


def test_clusters_are_told_apart_by_the_mean_of_what_is_judged():
    # Means 1 (of the one judged), .9 and .4: the first two are one cluster, T = 2.8 / sqrt 3, the third sqrt 2 x .4
    table = as_table([[1.0, None, 0.8, 1.0, 0.3, 0.5]])
    got = domain_advantages(table, [1], ["a"] * 6, group_size=2, clusters=2)
    assert ratio(got, 5, 3) == pytest.approx(2.8 / math.sqrt(3) / (math.sqrt(2) * 0.4), rel=1e-3)


def test_what_no_reward_judges_is_no_part_of_a_temperature():
    # Domain a: (0, 1) twice, or once beside a group that nothing judges: T = 2 x .5 against sqrt 2 x .5. Domain b: .18.
    domains, rest = ["a"] * 4 + ["b"] * 2, [0.2, 0.4]
    full = domain_advantages(as_table([[0.0, 1.0, 0.0, 1.0, *rest]]), [1], domains, group_size=2)
    half = domain_advantages(as_table([[0.0, 1.0, None, None, *rest]]), [1], domains, group_size=2)
    assert ratio(full, 5, 1) == pytest.approx(1 / 0.18, rel=1e-3)
    assert half[2:4].tolist() == [0.0, 0.0]
    # two clusters of one group each would be the same here: one cluster has all four, of which two are judged
    assert ratio(half, 5, 1) == pytest.approx(0.5 / 0.18, rel=1e-3)


def test_a_batch_of_two_and_of_one():
    assert domain_advantages(as_table([[0.0, 1.0]]), [1], ["a"] * 2, group_size=2) == pytest.approx([-HALF, HALF])
    assert domain_advantages(as_table([[0.5]]), [1], ["a"], group_size=1).tolist() == [0.0]
    assert domain_advantages(as_table([[None, None]]), [1], ["a"] * 2, group_size=2).tolist() == [0.0, 0.0]


def test_a_rare_and_hard_domain_counts_more():
    easy, hard = [0.9, 1.0, 0.9, 1.0] * 3, [0.1, 0.2, 0.1, 0.2]
    got = domain_advantages(as_table([[*easy, *hard]]), [1], ["easy"] * 12 + ["hard"] * 4, group_size=4)
    assert abs(got[-1]) > 2 * abs(got[1])


def test_clusters_split_a_domain_by_its_rewards():
    labels = cluster_labels(np.array([[0.0, 0.0], [0.1, 0.0], [1.0, 1.0], [0.9, 1.0]]), 2)
    assert labels[0] == labels[1] != labels[2] == labels[3]
    assert set(cluster_labels(np.zeros((5, 2)), 3)) == {0}


@pytest.mark.parametrize(
    ("points", "clusters", "want"),
    [
        ([[0.0], [0.1], [1.0]], 1, [0, 0, 0]),
        ([[0.0], [0.1], [1.0]], 2, [0, 0, 1]),
        # squared distances from the start: 25 and 18, although (3, 3) is further along the axes and by either sign
        ([[0.0, 0.0], [-5.0, 0.0], [3.0, 3.0]], 2, [0, 1, 0]),
        # the third start is the one furthest from the nearer of two: 4 (from 0: 4, from 9: 5)
        ([[0.0], [4.0], [9.0], [8.0]], 3, [0, 2, 1, 1]),
        # the start 9 takes the 5 with it (4 < 5), until the mean of the others, 3.2, is nearer than 7, the mean of both
        ([[0.0], [4.0], [4.0], [4.0], [4.0], [5.0], [9.0]], 2, [0, 0, 0, 0, 0, 0, 1]),
    ],
)
def test_clusters_worked_by_hand(points, clusters, want):
    assert cluster_labels(np.array(points), clusters).tolist() == want


@given(SCORES, st.integers(1, 4))
def test_domain_advantages_are_finite(scores, clusters):
    got = domain_advantages(
        as_table(scores), [1.0] * len(scores), ["a"] * 4 + ["b"] * 4, group_size=4, clusters=clusters
    )
    assert np.isfinite(got).all()


@given(st.lists(st.lists(st.floats(0, 1), max_size=5), max_size=40))
def test_a_schedule_only_tightens_and_ends_at_its_end(batches):
    schedule = ThresholdSchedule(start=0.3, end=0.7, step=0.15, window=2, success=0.5)
    values = [schedule.update(batch) for batch in batches]
    assert values == sorted(values)
    assert all(0.3 <= v <= 0.7 for v in values)


@given(st.lists(st.floats(0, 1), min_size=4, max_size=20), st.integers(0, 19))
def test_a_schedule_resumes_where_it_was(scores, cut):
    def fresh():
        return ThresholdSchedule(start=0.3, end=0.9, step=0.1, window=3, success=0.4)

    whole, first, second = fresh(), fresh(), fresh()
    want = [whole.update([s]) for s in scores]
    got = [first.update([s]) for s in scores[:cut]]
    second.restore(first.state())
    assert got + [second.update([s]) for s in scores[cut:]] == want
