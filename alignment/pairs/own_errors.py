"""Which of a model's own answers is rejected, and with what weight."""

from collections import Counter

from rewards.reading.reading import read
from rewards.reports.severity import errors_of
from rewards.rules.facts import Facts
from rewards.rules.rule_set import load_rule_set


def worst_of(truth: Facts, responses: list[str]) -> str | None:
    """The response with most errors, among equals the one that leaves out most; None if none is wrong and readable.

    Taking inventions first would spend recall: a model that is only ever shown its inventions learns to claim less.
    Severity does not choose, it weighs: chosen by it, mild errors would hardly ever be rejected.
    """
    judged = [(sum(n), n[1], response) for response in responses if (n := num_errors(truth, response))]
    return max(judged, key=lambda one: one[:2])[2] if judged else None


def graded(truth: Facts, chosen: str, responses: list[str]) -> list[tuple[str, str]]:
    """Further pairs (better, worse) among the truth and ranked wrong responses.

    HSCR (arXiv 2506.00805) as rows: fewer errors are preferred to more, and the truth to all; the pair of the truth
    and the worst is left to ``worst_of``. Responses with equally many errors are not ranked.
    """
    errors = {response: sum(n) for response in responses if (n := num_errors(truth, response))}
    worst = worst_of(truth, responses)
    ranked = sorted(errors, key=lambda response: (errors[response], response == worst))
    return [(chosen, response) for response in ranked if response != worst] + [
        (better, worse)
        for k, better in enumerate(ranked)
        for worse in ranked[k + 1 :]
        if errors[better] < errors[worse]
    ]


def num_errors(truth: Facts, response: str) -> tuple[int, int] | None:
    """How many findings a report invents (or misplaces) and leaves out; None if it is right or cannot be read.

    A wrong size or count alone makes no pair, but adds to the relevance of one.
    """
    claimed = read(response, load_rule_set(truth.rule_set)).facts
    kinds = Counter(kind for _, kind in errors_of(truth, claimed))
    numbers = kinds["invented"] + kinds["side"], kinds["missed"]
    return numbers if claimed.findings and any(numbers) else None
