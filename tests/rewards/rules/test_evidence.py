import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rewards.rules.evidence import Test, any_holds, every, holds

TRUTHS = st.sampled_from([True, False, None])


@pytest.mark.parametrize(
    ("asked", "value", "want"),
    [
        ("present", "present", True),
        ("present", "absent", False),
        ("present", None, None),
        (["small", "large"], "large", True),
        (True, False, False),
        (Test(above=0.2), 0.2, False),
        (Test(at_least=0.2), 0.2, True),
        (Test(below=3), 2, True),
        (Test(at_most=3), 4, False),
        (Test(above=0.2), "much", False),
        (Test(starts_with=["I21", "I22"]), ["Z01", "I214"], True),
        (Test(starts_with=["I21"]), ["Z01"], False),
        (Test(contains=["st elevation"]), "Marked ST  elevation, anterior", True),
        (Test(contains=["st elevation"]), "NST elevations", False),
        (Test(none_of=["left"]), "right", True),
        ("late", frozenset({"late"}), True),
        ("late", frozenset({"late", "early"}), None),
        ("none", frozenset({"late", "early"}), False),
    ],
)
def test_a_value_is_asked_in_three_values(asked, value, want):
    assert holds({"column": asked}, {"column": value}) is want


def test_a_test_that_asks_nothing_is_refused():
    with pytest.raises(ValidationError, match="nothing is asked"):
        Test()


def test_one_false_part_decides_a_clause_whatever_is_unknown():
    assert holds({"a": "x", "b": "y"}, {"a": "z"}) is False
    assert holds({"a": "x", "b": "y"}, {"a": "x"}) is None


def test_one_true_clause_decides_whatever_is_unknown():
    assert any_holds([{"a": "x"}, {"b": "y"}], {"b": "y"}) is True
    assert any_holds([{"a": "x"}, {"b": "y"}], {"b": "z"}) is None
    assert any_holds([], {}) is False


@given(st.lists(TRUTHS), TRUTHS)
def test_knowing_more_never_turns_yes_into_no(truths, known):
    """Kleene's logic is monotone: deciding an unknown keeps what was decided."""
    before = every(truths)
    after = every([known if truth is None else truth for truth in truths])
    assert before is None or after == before
