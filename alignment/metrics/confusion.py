"""Tables of true and stated levels, and the figures that come of them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alignment.metrics.answer_lines import AnswerLine
from rewards.rules.guidelines import together

INVALID = "invalid"


YES_NO = ("no", "yes")


CELL = re.compile(r"said\[(?P<group>.+) \| (?P<truth>.+) \| (?P<said>.+)\]")


METRICS = (
    "micro_f1",
    "macro_f1",
    "weighted_kappa",
    "under_referral",
    "over_referral",
    "invalid_rate",
    "class_f1",
)
"""By group, as ``micro_f1[stage, retina_amd@1]``; ``class_f1`` also by class."""


LOWER_IS_BETTER = ("under_referral", "over_referral", "invalid_rate")


@dataclass(frozen=True)
class Confused:
    """A metric of one group's confusion: ``of`` is its name in ``METRICS``, ``classes`` are ordered where it matters.

    ``positive``: the classes that F1 is over.
    """

    of: str
    group: str
    classes: tuple[str, ...]
    positive: tuple[str, ...]

    def cell(self, truth: str, answer: str) -> str:
        """The count that holds one cell."""
        return f"said[{self.group} | {truth} | {answer}]"

    @property
    def cells(self) -> list[list[str]]:
        """The counts by truth and answer, the invalid answers last."""
        return [[self.cell(truth, answer) for answer in (*self.classes, INVALID)] for truth in self.classes]

    def value(self, table: np.ndarray) -> np.ndarray:
        """The metric of tables of counts (tables, truth, answer); NaN where it is not defined."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return _VALUES[self.of](self, table)


def _per_class(metric: Confused, table: np.ndarray) -> np.ndarray:
    """F1 of each positive class (tables, classes). Invalid answers lower recall alone, as published."""
    here = [metric.classes.index(name) for name in metric.positive]
    right = np.stack([table[:, k, k] for k in here], axis=1)
    claimed, true = table[:, :, here].sum(axis=1), table[:, here, :].sum(axis=2)
    # F1 = 2 TP / (claimed + true): the same as from precision and recall, and defined where one of these is not.
    return np.where(true + claimed > 0, 2 * right / (claimed + true), np.nan)


def _micro_f1(metric: Confused, table: np.ndarray) -> np.ndarray:
    here = [metric.classes.index(name) for name in metric.positive]
    right = sum(table[:, k, k] for k in here)
    # Pooled over the classes before the division, so that common classes count for more.
    return 2 * right / (table[:, :, here].sum(axis=(1, 2)) + table[:, here, :].sum(axis=(1, 2)))


def _macro_f1(metric: Confused, table: np.ndarray) -> np.ndarray:
    """The mean over the positive classes that are true or said at all."""
    per_class = _per_class(metric, table)
    # NaN where a class is neither true nor claimed: it takes no part, instead of counting as 0.
    return np.nansum(per_class, axis=1) / (~np.isnan(per_class)).sum(axis=1)


def _weighted_kappa(metric: Confused, table: np.ndarray) -> np.ndarray:
    """Cohen's kappa with quadratic weights over the valid answers (Cohen 1968); read it beside the invalid rate."""
    valid = table[:, :, :-1]
    rank = np.arange(len(metric.classes), dtype=np.float64)
    cost = (rank[:, None] - rank[None, :]) ** 2
    total = valid.sum(axis=(1, 2))
    # Outer product of the margins over the total: the table that two independent raters would give.
    by_chance = valid.sum(axis=2)[:, :, None] * valid.sum(axis=1)[:, None, :] / total[:, None, None]
    return 1.0 - (cost * valid).sum(axis=(1, 2)) / (cost * by_chance).sum(axis=(1, 2))


def _under_referral(metric: Confused, table: np.ndarray) -> np.ndarray:
    """Of the cases above the lowest level, the share that was given a lower one than they have."""
    # Below the diagonal the answer is lower than the truth; row 0 has no lower one.
    return np.tril(table[:, :, :-1], k=-1).sum(axis=(1, 2)) / table[:, 1:, :].sum(axis=(1, 2))


def _over_referral(metric: Confused, table: np.ndarray) -> np.ndarray:
    """Of the cases below the highest level, the share that was given a higher one than they have."""
    # Above the diagonal the answer is higher than the truth; the last row has no higher one.
    return np.triu(table[:, :, :-1], k=1).sum(axis=(1, 2)) / table[:, :-1, :].sum(axis=(1, 2))


def _invalid_rate(metric: Confused, table: np.ndarray) -> np.ndarray:
    return table[:, :, -1].sum(axis=1) / table.sum(axis=(1, 2))


def _class_f1(metric: Confused, table: np.ndarray) -> np.ndarray:
    return _per_class(metric, table)[:, 0]


_VALUES = {
    "micro_f1": _micro_f1,
    "macro_f1": _macro_f1,
    "weighted_kappa": _weighted_kappa,
    "under_referral": _under_referral,
    "over_referral": _over_referral,
    "invalid_rate": _invalid_rate,
    "class_f1": _class_f1,
}


def capability_metrics(counts: Iterable[Mapping[str, float]]) -> dict[str, Confused]:
    """Every metric of every group of closed questions in these counts, by its name."""
    groups: dict[str, set[str]] = {}
    for key in {key for of in counts for key in of if key.startswith("said[")}:
        match = CELL.fullmatch(key)
        assert match is not None
        groups.setdefault(match["group"], set()).update({match["truth"], match["said"]} - {INVALID})
    return {name: metric for group, seen in sorted(groups.items()) for name, metric in _of_group(group, seen)}


def _of_group(group: str, seen: set[str]) -> Iterable[tuple[str, Confused]]:
    scale, _, guideline = group.partition(", ")
    if guideline == "yes or no":
        classes, positive, names = YES_NO, ("yes",), ("micro_f1", "macro_f1", "invalid_rate")
        positive_of_macro = YES_NO
    else:
        classes = tuple(level.name for level in together((guideline,))[0].scales[scale].levels) if guideline else ()
        positive = positive_of_macro = classes
        ordered = ("under_referral", "over_referral") if scale == "referral" else ()
        names = ("micro_f1", "macro_f1", "weighted_kappa", *ordered, "invalid_rate")
    for name in names:
        over = positive_of_macro if name == "macro_f1" else positive
        yield f"{name}[{group}]", Confused(name, group, classes, over)
    for one in positive if len(positive) > 1 else ():
        if one in seen:
            yield f"class_f1[{group}: {one}]", Confused("class_f1", group, classes, (one,))


def confusion_of(counts: Iterable[Mapping[str, float]]) -> dict[str, dict[str, dict[str, int]]]:
    """By group: how often each truth was answered by what, the invalid answers too."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for of in counts:
        for key, number in of.items():
            match = CELL.fullmatch(key)
            if match is not None:
                row = found.setdefault(match["group"], {}).setdefault(match["truth"], {})
                row[match["said"]] = row.get(match["said"], 0) + int(number)
    return found


def capability_tables(answers: Mapping[str, Sequence[AnswerLine]]) -> list[dict[str, object]]:
    """The confusion of every group and model, from lines of ``answers.jsonl``, as the report shows them."""
    return [
        {"stage": model, "node": group, "said": [*_order(group, rows), INVALID], "rows": rows}
        for model, lines in answers.items()
        for group, rows in confusion_of(line["counts"] for line in lines).items()
    ]


def _order(group: str, rows: Mapping[str, Mapping[str, int]]) -> list[str]:
    seen = {*rows, *(answer for row in rows.values() for answer in row)} - {INVALID}
    first = next(metric for _, metric in _of_group(group, seen))
    return [name for name in first.classes if name in seen]
