import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.combination import (
    Gate,
    advantages,
    as_table,
    cluster_labels,
    decoupled,
    domain_advantages,
    normalised,
    weighted_sum,
)
from rewards.schedule import ThresholdSchedule

MODES = ["sum_then_normalize", "normalize_then_sum"]
GATE = Gate("a", "b")
HALF = 1 / math.sqrt(2)
SCORES = st.lists(st.lists(st.one_of(st.none(), st.floats(-5, 5)), min_size=8, max_size=8), min_size=1, max_size=3)


def test_a_two_sided_win_counts_more_only_when_rewards_are_decoupled():
    one_sided, two_sided = as_table([[0, 1], [0, 0]]), as_table([[0, 1], [0, 1]])
    for table in (one_sided, two_sided):
        assert advantages(table, [1, 1], group_size=2) == pytest.approx([-HALF, HALF], abs=2e-4)
    assert decoupled(one_sided, [1, 1], group_size=2) == pytest.approx([-HALF, HALF], abs=3e-4)
    assert decoupled(two_sided, [1, 1], group_size=2) == pytest.approx([-2 * HALF, 2 * HALF], abs=6e-4)


def test_the_papers_group_of_four():
    got = advantages(as_table([[0.5, 0.75, 0.25, 0.5]]), [1], group_size=4)
    assert got == pytest.approx([0, 1.224, -1.224, 0], abs=1e-3)


def test_gdpo_ends_with_a_batch_of_mean_0_and_deviation_1():
    table = as_table([[0, 1, 1, 0, 0.2, 0.4, 0.1, 0.9], [1, 0, 1, 0, 0, 0, 1, 1]])
    got = advantages(table, [1.0, 0.5], group_size=4, mode="normalize_then_sum")
    assert got.mean() == pytest.approx(0, abs=1e-12)
    assert got.std(ddof=1) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 7.7])
@pytest.mark.parametrize("mode", MODES)
def test_a_group_without_variance_has_exactly_no_advantage(mode, value):
    assert advantages(as_table([[value] * 3]), [1], group_size=3, mode=mode).tolist() == [0.0] * 3


def test_one_reward_without_variance_does_not_move_the_other():
    both, alone = as_table([[0, 1, 0.5, 0.5], [0.1] * 4]), as_table([[0, 1, 0.5, 0.5]])
    assert decoupled(both, [1, 1], group_size=4).tolist() == decoupled(alone, [1], group_size=4).tolist()


def test_none_is_left_out_and_not_zero():
    table = as_table([[1.0, None, 3.0], [None, None, 1.0]])
    assert np.isnan(weighted_sum(table, [1, 1]).tolist()[1])
    assert advantages(table[:, :1], [1], group_size=3) == pytest.approx([-HALF, 0, HALF], abs=1e-4)
    assert advantages(as_table([[None] * 4]), [1], group_size=4).tolist() == [0.0] * 4


def test_a_single_judged_response_has_no_advantage():
    assert advantages(as_table([[None, 5.0, None, None]]), [1], group_size=4).tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("scale", "want"), [("none", 0.5), ("group", HALF), ("batch", 0.5 / math.sqrt((1.5625 + 0.0625 + 2 * 0.5625) / 3))]
)
def test_scales(scale, want):
    table = as_table([[0, 1, 2, 2]])  # the batch's mean is 1.25
    assert advantages(table, [1], group_size=2, scale=scale)[1] == pytest.approx(want, abs=2e-4)


@given(
    SCORES, st.sampled_from(["sum_then_normalize", "normalize_then_sum"]), st.sampled_from(["group", "batch", "none"])
)
def test_no_advantage_is_ever_nan(scores, mode, scale):
    got = advantages(as_table(scores), [1.0] * len(scores), group_size=4, mode=mode, scale=scale)
    assert np.isfinite(got).all()


@given(SCORES, st.permutations(range(4)))
def test_the_order_within_a_group_does_not_matter(scores, order):
    table, places = as_table(scores), [*order, 4, 5, 6, 7]
    weights = [1.0] * len(scores)
    assert advantages(table[places], weights, group_size=4) == pytest.approx(
        advantages(table, weights, group_size=4)[places], abs=1e-6
    )


def test_normalised_columns_are_independent():
    table = as_table([[0, 1], [5, 9]])
    assert normalised(table, group_size=2)[:, 1] == pytest.approx([-HALF, HALF], abs=1e-4)


@pytest.mark.parametrize(
    ("gate", "score", "needed", "want"),
    [
        (GATE, 0.8, 1.0, 0.8), (GATE, 0.8, 0.5, 0.0), (Gate("a", "b", at_least=0.5), 0.8, 0.5, 0.8),
        (Gate("a", "b", multiply=True), 0.8, 0.5, 0.4), (GATE, None, 0.0, None), (GATE, 0.8, None, 0.8),
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
    plain = advantages(table, [1], group_size=4)
    got = domain_advantages(table, [1], ["ct"] * 8, group_size=4)
    assert np.argsort(got).tolist() == np.argsort(plain).tolist()
    assert got == pytest.approx(plain / plain.std(ddof=1))


@pytest.mark.parametrize("shift", [-3.0, -0.5, 0.0])
def test_negative_and_zero_means_neither_flip_nor_blow_up(shift):
    table = as_table([[shift + v for v in (0, 1, 0, 1, 0, 0.1, 0, 0.1)]])
    got = domain_advantages(table, [1], ["ct"] * 4 + ["x-ray"] * 4, group_size=4)
    assert np.isfinite(got).all()
    assert (np.sign(got) == np.sign(advantages(table, [1], group_size=4))).all()
    assert got.std(ddof=1) == pytest.approx(1)


def test_a_rare_and_hard_domain_counts_more():
    easy, hard = [0.9, 1.0, 0.9, 1.0] * 3, [0.1, 0.2, 0.1, 0.2]
    got = domain_advantages(as_table([[*easy, *hard]]), [1], ["easy"] * 12 + ["hard"] * 4, group_size=4)
    assert abs(got[-1]) > 2 * abs(got[1])


def test_clusters_split_a_domain_by_its_rewards():
    labels = cluster_labels(np.array([[0.0, 0.0], [0.1, 0.0], [1.0, 1.0], [0.9, 1.0]]), 2)
    assert labels[0] == labels[1] != labels[2] == labels[3]
    assert set(cluster_labels(np.zeros((5, 2)), 3)) == {0}


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
