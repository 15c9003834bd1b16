"""Closed answers by their readers, beside equality."""

import pytest

from alignment.metrics.intervals import summarise
from alignment.metrics.outcomes import score_answers
from alignment.metrics.ratios import LOWER_IS_BETTER


def row(number, answer, task="closed", **columns):
    """A closed question without facts."""
    return {
        "id": f"q{number}", "patient": f"p{number}", "task": task, "prompt": [], "boxes": None, "rule_set": "",
        "facts": None, "answer": answer, **columns,
    }  # fmt: skip


def figures(rows, answers):
    """The values of the metrics."""
    return {name: metric.value for name, metric in summarise(score_answers(rows, answers)).items()}


def test_a_wordy_right_answer_is_right_to_the_reader_alone():
    rows = [row(0, "yes"), row(1, "no"), row(2, "yes"), row(3, "no")]
    found = figures(rows, ["Yes, on the left.", "no", "Hard to say.", "Yes."])
    assert found["closed_accuracy"] == pytest.approx(1 / 4)
    assert found["closed_accuracy_read"] == pytest.approx(2 / 4)
    assert found["closed_unread"] == pytest.approx(1 / 4)
    assert "closed_unread" in LOWER_IS_BETTER


def test_a_choice_is_read_by_its_options():
    rows = [row(k, "MRI", task="choice", options=["CT", "MRI"]) for k in range(4)]
    found = figures(rows, ["B", "The answer is B. MRI", "CT or MRI", "A"])
    assert found["closed_accuracy"] == 0
    assert (found["closed_accuracy_read"], found["closed_unread"]) == pytest.approx((2 / 4, 1 / 4))


def test_an_answer_that_no_reader_knows_is_judged_by_equality_alone():
    found = figures([row(0, "left"), row(1, "left")], ["left", "right"])
    assert found == {"closed_accuracy": pytest.approx(1 / 2)}


def test_every_accepted_answer_counts():
    rows = [
        row(0, "left lung", answers=["left lung", "left"]),
        row(1, "mass", task="open", answers=["mass", "a tumour"]),
    ]
    found = figures(rows, ["Left.", "tumour"])
    assert (found["closed_accuracy"], found["open_recall"]) == (1.0, 1 / 2)


def test_an_accepted_answer_needs_no_reading_and_a_longer_truth_has_no_reader():
    rows = [row(0, "no", answers=["no", "none"]), row(1, "yes, left")]
    found = figures(rows, ["none", "Yes, on the right"])
    assert (found["closed_accuracy"], found["closed_accuracy_read"], found["closed_unread"]) == (1 / 2, 1.0, 0.0)
