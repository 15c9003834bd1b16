import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders.pairs.relevance import (
    effective_sample_size,
    grouped_weights,
    scaled_scores,
    weight_report,
    weights_of,
)
from rewards.config.input_error import InputError

DATA = Path(os.environ.get("CLINALIGN_DATA", Path(__file__).parents[4] / "shared" / "data")) / "mmedpo"
needs_mmedpo = pytest.mark.skipif(not DATA.is_dir(), reason="MMedPO's released pairs are absent (set CLINALIGN_DATA)")
SCORES = [0.2, 0.4, 0.8, 1.0, 1.0]
"""Mean .68, population standard deviation .3249615."""


@pytest.mark.parametrize(
    ("reading", "want"),
    [
        ("raw", SCORES),
        # z-scores: -1.477, -.862, .369, .985, .985
        ("text", [0.75, 0.75, 0.75, 0.9847320, 0.9847320]),
        # (s - 1) / .3162278: never above 0
        ("appendix", [0.75] * 5),
        # 1 + .3162278 z: .533 and .728 are clipped up, 1.311 down
        ("sensible", [0.75, 0.75, 1.116775, 1.25, 1.25]),
    ],
)
def test_each_reading_gives_its_golden_weights(reading, want):
    assert weights_of(SCORES, reading).tolist() == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("reading", ["text", "sensible"])
@pytest.mark.parametrize("scores", [[0.3, 0.3, 0.3], [0.8], [0.1 + 0.2, 0.3]])
def test_equal_scores_weigh_one(reading, scores):
    assert weights_of(scores, reading).tolist() == [1.0] * len(scores)


def test_a_score_of_zero_is_kept():
    assert weights_of([0.0, 1.0], "raw").tolist() == [0.0, 1.0]


@pytest.mark.parametrize("score", [float("nan"), -0.1, 1.25, 8.0, float("inf")])
@pytest.mark.parametrize("reading", ["raw", "text", "appendix", "sensible"])
def test_a_score_outside_its_scale_is_refused_whatever_the_reading(score, reading):
    with pytest.raises(InputError, match="score number 1 is"):
        weights_of([0.5, score], reading)


def test_the_first_score_outside_its_scale_is_named_and_all_are_counted():
    with pytest.raises(InputError, match=r"score number 1 is 8, outside 0 to 1 \(2 such\)"):
        weights_of([0.5, 8.0, 9.0], "raw")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.sampled_from(["text", "appendix", "sensible"]))
def test_normalised_weights_stay_within_their_bounds_and_keep_the_order(scores, reading):
    weights = weights_of(scores, reading)
    assert ((weights >= 0.75) & (weights <= 1.25)).all()
    order = np.argsort(scores, kind="stable")
    assert (np.diff(weights[order]) >= -1e-12).all()


@given(st.lists(st.floats(0.45, 0.55), min_size=10, max_size=50, unique=True))
def test_the_sensible_reading_has_a_mean_near_one(scores):
    assert weights_of(scores, "sensible").mean() == pytest.approx(1.0, abs=0.2)


def test_each_group_has_its_own_mean():
    weights = grouped_weights([0.1, 0.9, 0.2, 0.4], ["text", "image", "text", "image"], "sensible")
    assert weights.tolist() == pytest.approx(
        [*_pair(0.1, 0.2)[:1], _pair(0.4, 0.9)[1], _pair(0.1, 0.2)[1], _pair(0.4, 0.9)[0]]
    )
    assert not np.allclose(weights, weights_of([0.1, 0.9, 0.2, 0.4], "sensible"))


def _pair(low, high):
    return weights_of([low, high], "sensible").tolist()


def test_verdicts_are_brought_to_one_scale():
    assert scaled_scores(["a", "b"], {"a": 8.0, "b": 0.0}, scale=10.0) == [0.8, 0.0]
    assert scaled_scores(["a"], {"a": 10.0}, scale=10.0) == [1.0]


def test_a_verdict_beyond_its_scale_is_refused_by_name():
    with pytest.raises(InputError, match="row 'b' has score 8, outside 0 to 1"):
        scaled_scores(["a", "b"], {"a": 0.5, "b": 8.0})
    with pytest.raises(InputError, match=r"row 'a' has score -0\.5, outside 0 to 10"):
        scaled_scores(["a"], {"a": -0.5}, scale=10.0)


def test_a_verdict_that_is_nan_is_refused():
    with pytest.raises(InputError, match="row 'a' has score nan"):
        scaled_scores(["a"], {"a": float("nan")})


def test_a_missing_verdict_is_an_error_unless_something_stands_for_it():
    verdicts = {"a": 0.2, "b": 0.6, "c": None}
    with pytest.raises(InputError, match=r"row 'c' has no score \(2 such of 4\)"):
        scaled_scores(["a", "b", "c", "d"], verdicts)
    assert scaled_scores(["a", "c"], verdicts, missing="one") == [0.2, 1.0]
    assert scaled_scores(["a", "b", "c", "d"], verdicts, missing="mean") == pytest.approx([0.2, 0.6, 0.4, 0.4])
    assert scaled_scores(["c"], {"c": None}, missing="mean") == [1.0]
    assert scaled_scores(["a", "b", "c"], {"a": 2.0, "b": 6.0}, scale=10.0, missing="mean") == pytest.approx(
        [0.2, 0.6, 0.4]
    )


def test_equal_weights_have_the_full_sample_size_and_no_weights_none():
    assert effective_sample_size([0.5] * 8) == pytest.approx(8)
    assert effective_sample_size([0.0, 0.0]) == 0.0
    assert effective_sample_size([]) == 0.0


@given(st.lists(st.floats(0, 2), min_size=1, max_size=40))
def test_the_effective_size_is_between_none_and_all(weights):
    assert 0 <= effective_sample_size(weights) <= len(weights) + 1e-6


def test_the_report_counts_zero_weights():
    assert weight_report([0.0, 1.0, 1.0, 2.0]) == {
        "rows": 4, "mean": 1.0, "min": 0.0, "max": 2.0, "zero": 1, "effective_share": pytest.approx(16 / 6 / 4),
    }  # fmt: skip
    assert weight_report([]) == {"rows": 0}


@needs_mmedpo
def test_the_released_slake_scores_give_the_published_effects():
    """Of 4,919 scores: 78 zero, effective share .84; read to the letter, 67 % collapse and none is above .87."""
    records = json.loads((DATA / "slake_dpo_weighted.json").read_text())
    scores = [float(record["weighted_score"]) for record in records]
    raw = weight_report(weights_of(scores, "raw"))
    assert (raw["rows"], raw["zero"]) == (4919, 78)
    assert raw["effective_share"] == pytest.approx(0.84, abs=0.005)
    letter = weights_of(scores, "text")
    assert (letter == 0.75).mean() == pytest.approx(0.67, abs=0.005)
    assert letter.max() == pytest.approx(0.87, abs=0.005)
    assert (weights_of(scores, "appendix") == 0.75).all()
    sensible = dict(zip(scores, weights_of(scores, "sensible"), strict=True))
    assert (sensible[0.2], sensible[1.0]) == (0.75, 1.25)
    assert sensible[0.8] == pytest.approx(1.078, abs=5e-4)
