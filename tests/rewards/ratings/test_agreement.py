import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.ratings.agreement import (
    cohen_kappa,
    fleiss_kappa,
    intransitive_share,
    krippendorff_alpha,
    percent_agreement,
    position_bias,
    wilson,
)

LABELS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=20)
# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", example C: four observers, twelve units.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]
UNITS = [list(unit) for unit in zip(*OBSERVERS, strict=True)]
# Fleiss (1971), as worked on Wikipedia: ten subjects, fourteen raters, five categories.
FLEISS = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip


def test_wilson_has_the_golden_interval():
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=5e-5)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_mirrors(case):
    won, total = case
    low, high = wilson(won, total)
    assert 0 <= low <= won / total <= high <= 1
    assert wilson(total - won, total) == pytest.approx((1 - high, 1 - low))


def test_cohens_kappa_has_the_golden_value():
    """20 both yes, 5 and 10 apart, 15 both no: (0.7 - 0.5) / 0.5."""
    a = ["y"] * 25 + ["n"] * 25
    b = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert cohen_kappa(a, b) == pytest.approx(0.4)


def test_weighted_kappas_forgive_near_misses():
    a, near, far = [1, 2, 3, 1, 2, 3], [2, 2, 3, 1, 2, 3], [3, 2, 3, 1, 2, 3]
    assert cohen_kappa(a, near, weighting="quadratic") > cohen_kappa(a, far, weighting="quadratic")
    assert cohen_kappa(a, near) == pytest.approx(cohen_kappa(a, far), abs=0.03)
    assert cohen_kappa([1, 3], [3, 1], weighting="linear") == -1.0


def test_quadratic_kappa_equals_the_formula_by_moments():
    """Weighted kappa = 2 cov / (var a + var b + (mean a - mean b)^2), population moments (Fleiss and Cohen 1973)."""
    random = np.random.default_rng(0)
    a, b = random.integers(1, 6, 50), random.integers(1, 6, 50)
    moments = 2 * np.cov(a, b, bias=True)[0, 1] / (a.var() + b.var() + (a.mean() - b.mean()) ** 2)
    assert cohen_kappa(a.tolist(), b.tolist(), labels=[1, 2, 3, 4, 5], weighting="quadratic") == pytest.approx(moments)


@given(LABELS)
def test_kappa_is_symmetric_and_blind_to_the_order_of_cases(pairs):
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    kappa = cohen_kappa(a, b)
    assert cohen_kappa(b, a) == pytest.approx(kappa, nan_ok=True)
    assert cohen_kappa(a[::-1], b[::-1]) == pytest.approx(kappa, nan_ok=True)
    assert math.isnan(kappa) or kappa <= 1
    assert len(set(a)) == 1 or cohen_kappa(a, a) == 1.0


def test_raters_who_never_vary_have_no_kappa():
    assert math.isnan(cohen_kappa(["y", "y"], ["y", "y"]))
    assert math.isnan(fleiss_kappa([["y", "y"], ["y", "y"]]))
    assert math.isnan(krippendorff_alpha([[1, 1], [1, 1]]))


def test_missing_ratings_do_not_count():
    assert cohen_kappa(["y", "n", None, "y"], ["y", "n", "n", None]) == 1.0
    assert percent_agreement(["y", None, "n"], ["y", "y", "y"])[0] == 0.5
    assert math.isnan(percent_agreement([None], ["y"])[0])


def test_fleiss_kappa_has_the_golden_value():
    ratings = [[label for label, count in enumerate(row) for _ in range(count)] for row in FLEISS]
    assert fleiss_kappa(ratings) == pytest.approx(0.210, abs=5e-4)


def test_fleiss_kappa_needs_equally_many_ratings():
    with pytest.raises(ValueError, match=r"cases have \[1, 2\] ratings"):
        fleiss_kappa([["a", "b"], ["a"]])


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorffs_alpha_has_the_golden_values(level, alpha):
    assert krippendorff_alpha(UNITS, level=level) == pytest.approx(alpha, abs=5e-4)


@given(st.lists(st.lists(st.sampled_from([1, 2, None]), min_size=3, max_size=3), min_size=1, max_size=10))
def test_alpha_does_not_care_which_rater_is_which(rows):
    turned = [row[::-1] for row in rows]
    assert krippendorff_alpha(turned) == pytest.approx(krippendorff_alpha(rows), nan_ok=True)


def test_a_judge_that_always_takes_the_first_is_all_position_bias():
    assert position_bias([1.0, 1.0], [1.0, 1.0])[0] == 1.0
    assert position_bias([1.0, 0.0, 0.5], [0.0, 1.0, 0.5])[0] == 0.0
    assert position_bias([1.0, None], [0.0, 1.0])[0] == 0.0
    assert math.isnan(position_bias([None], [1.0])[0])


def test_a_circle_is_seen():
    assert intransitive_share({("a", "b"): 1.0, ("b", "c"): 0.9, ("c", "a"): 0.6}) == 1.0
    assert intransitive_share({("a", "b"): 1.0, ("b", "c"): 0.9, ("a", "c"): 0.6}) == 0.0
    assert intransitive_share({("a", "b"): 1.0, ("b", "c"): 0.9, ("a", "c"): 0.5}) == 0.0
    assert math.isnan(intransitive_share({("a", "b"): 1.0}))
