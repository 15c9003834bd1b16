"""Closed answers as a reader understands them, beside plain equality: "B. MRI" for MRI, "Yes, on the left" for yes.

Equality calls a wordy right answer wrong; a reader says what it took for an answer, and how often it found none.
Left out: closed questions whose answer is neither yes or no nor one of the row's options; equality alone judges them.
"""

from collections.abc import Callable

from alignment.metrics.evaluated_row import EvaluatedRow
from data_builders.curriculum.checks import opinion
from rewards.answers.choice_answer import option_named

YES_NO = ("yes", "no")
METRICS = {"closed_accuracy_read": ("read_correct", "read"), "closed_unread": ("unread", "read")}
"""Each with the counts that it is a ratio of: of the rows with a reader, how many are right, and how many not read."""


def read_counts(row: EvaluatedRow, words: str, *, is_equal: bool = False) -> dict[str, float]:
    """Whether the reader of a closed row takes an answer for the right one, or for none; empty without a reader.

    ``is_equal``: it is one of the accepted answers, word for word, which needs no reading.

    >>> read_counts({"answer": "MRI", "options": ["CT", "MRI"]}, "Answer: B")
    {'read': 1.0, 'read_correct': 1.0, 'unread': 0.0}
    >>> read_counts({"answer": "no"}, "Hard to say.")
    {'read': 1.0, 'read_correct': 0.0, 'unread': 1.0}
    >>> read_counts({"answer": "left"}, "left")
    {}
    """
    if not row.get("options") and (row["answer"] or "").strip().rstrip(".").casefold() not in YES_NO:
        return {}
    read = _reader(row)
    truth = read(row["answer"] or "")
    if truth is None:
        return {}
    if is_equal:
        return {"read": 1.0, "read_correct": 1.0, "unread": 0.0}
    answer = read(words)
    return {"read": 1.0, "read_correct": float(answer == truth), "unread": float(answer is None)}


def _reader(row: EvaluatedRow) -> Callable[[str], int | bool | None]:
    """What reads the answers to a row: by its options, else as yes or no."""
    options = row.get("options")
    return (lambda text: option_named(text, options)) if options else (lambda text: opinion(text)[0])
