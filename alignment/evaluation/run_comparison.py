"""Two evaluations on the same rows held against each other: paired differences by patient, and McNemar's test.

The interval draws the same patients for both runs. Left out: a correction for many metrics; name the one that matters
before looking.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from alignment.metrics.answer_lines import AnswerLine
from alignment.metrics.mcnemar import mcnemar
from rewards.config.input_error import InputError


def compared(before: Path, after: Path, *, num_resamples: int = 1000, seed: int = 0) -> dict[str, object]:
    """``differences`` (after minus before, of every metric of both) and ``mcnemar`` by group of closed questions.

    ``of_one_alone``: metrics that only one of the two has, as where the other claims nothing.

    Raises: InputError if a folder holds no evaluation, or the two answered other rows.
    """
    from alignment.evaluation.answer_files import outcomes_of
    from alignment.evaluation.evaluation_file import Evaluation
    from alignment.metrics.intervals import differences, summarise

    data = [Evaluation.read(folder).data_sha256 for folder in (before, after)]
    one, other = outcomes_of(before, "clean"), outcomes_of(after, "clean")
    if data[0] != data[1] or [o.id for o in one] != [o.id for o in other]:
        raise InputError(f"{before} and {after} answered other rows. Evaluate both on the same data, with one limit.")
    changes = differences(one, other, num_resamples=num_resamples, seed=seed)
    tests = mcnemar([o.counts for o in one], [o.counts for o in other])
    return {
        "of_one_alone": sorted({*summarise(one, num_resamples=1)} ^ {*summarise(other, num_resamples=1)}),
        "differences": {name: asdict(change) for name, change in changes.items()},
        "mcnemar": {group: asdict(test) for group, test in tests.items()},
    }


def mcnemar_tables(answers: Mapping[str, Sequence[AnswerLine]]) -> list[dict[str, object]]:
    """McNemar's test of each model against the one before it, over the rows that both answered, for the report."""
    return [
        {"before": one, "after": other, "group": group, **asdict(test)}
        for one, other in pairwise(answers)
        for group, test in mcnemar(*_shared(answers[one], answers[other])).items()
    ]


def _shared(
    before: Sequence[AnswerLine], after: Sequence[AnswerLine]
) -> tuple[list[Mapping[str, float]], list[Mapping[str, float]]]:
    counts = {line["id"]: line["counts"] for line in after}
    pairs = [(line["counts"], counts[line["id"]]) for line in before if line["id"] in counts]
    return [one for one, _ in pairs], [other for _, other in pairs]
