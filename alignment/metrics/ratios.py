"""Every figure that is a ratio of counts."""

from collections.abc import Sequence
from typing import NamedTuple

from alignment.metrics import closed_readers, confusion, dialogue_outcomes, text_overlap
from alignment.metrics.capability import findings_counted
from alignment.metrics.confusion import Confused, capability_metrics
from alignment.metrics.dialogue_outcomes import DIALOGUE_RATIOS, ratios_by_scenario
from alignment.metrics.outcomes import Outcome
from alignment.metrics.text_overlap import BLEUS, Bleu, names_in


class Ratio(NamedTuple):
    """A metric: the sum of the counts ``over`` divided by the sum of the counts ``under``."""

    over: tuple[str, ...]
    under: tuple[str, ...]

    def of(self, group: str) -> "Ratio":
        """The same over the counts of a group: a finding, a scenario."""
        return Ratio(*(tuple(f"{key}[{group}]" for key in keys) for keys in self))


class Macro(NamedTuple):
    """A mean of metrics, one a finding; those whose denominator is zero are left out of it."""

    parts: tuple[tuple[Ratio, ...], ...]


RATIOS: dict[str, tuple[Ratio, ...]] = {
    "closed_accuracy": (Ratio(("closed_correct",), ("closed",)),),
    **{name: (Ratio((over,), (under,)),) for name, (over, under) in closed_readers.METRICS.items()},
    "balanced_accuracy": (Ratio(("yes_correct",), ("yes",)), Ratio(("no_correct",), ("no",))),
    "sensitivity": (Ratio(("yes_correct",), ("yes",)),),
    "specificity": (Ratio(("no_correct",), ("no",)),),
    "side_accuracy": (Ratio(("side_correct",), ("side",)),),
    "size_accuracy": (Ratio(("size_correct",), ("size",)),),
    "count_accuracy": (Ratio(("count_correct",), ("count",)),),
    "open_recall": (Ratio(("open_recalled",), ("open",)),),
    "finding_precision": (Ratio(("true_claims",), ("claims",)),),
    "finding_recall": (Ratio(("found",), ("true_findings",)),),
    "finding_f1": (Ratio(("true_claims", "found"), ("claims", "true_findings")),),
    "hallucination_rate": (Ratio(("hallucinations",), ("claims",)),),
    "severity_hallucination_rate": (Ratio(("hallucinated_severity",), ("claims",)),),
    "severe_hallucination_rate": (Ratio(("severe_hallucinations",), ("claims",)),),
    "unsupported_rate": (Ratio(("unsupported",), ("claims", "ignored_claims")),),
    "hallucinated_reports": (Ratio(("hallucinated",), ("reports",)),),
    "omission_rate": (Ratio(("omissions",), ("true_findings",)),),
    "severity_omission_rate": (Ratio(("omitted_severity",), ("true_findings",)),),
    "claims_per_report": (Ratio(("claims",), ("reports",)),),
    "report_parse_failure": (Ratio(("unparsed_report",), ("reports",)),),
    "mean_iou": (Ratio(("iou",), ("true_boxes",)),),
    "f1_at_50": (Ratio(("hits", "hits"), ("boxes", "true_boxes")),),
    "box_parse_failure": (Ratio(("unparsed_boxes",), ("box_answers",)),),
    "boxes_per_answer": (Ratio(("boxes",), ("box_answers",)),),
    "false_boxes_on_empty": (Ratio(("boxes_on_empty",), ("empty_answers",)),),
    "win_rate": (Ratio(("won",), ("contests",)),),
    "truth_logp": (Ratio(("truth_logp",), ("truth_tokens",)),),
    **{name: (Ratio((over,), (under,)),) for name, (over, under) in DIALOGUE_RATIOS.items()},
}
"""Each metric is the mean of its ratios (balanced accuracy has two: over yes rows and over no rows)."""


BY_FINDING = ("balanced_accuracy", "sensitivity", "specificity", "finding_recall", "finding_f1", "mean_iou")
"""Also said of each finding, as ``sensitivity[nodule]``: a pooled figure hides a finding that is never found."""


MACROS = {"macro_balanced_accuracy": "balanced_accuracy", "macro_finding_f1": "finding_f1"}
"""Means over findings, by the metric that they are the mean of."""


FAMILIES = (*BY_FINDING, *DIALOGUE_RATIOS, *confusion.METRICS, *text_overlap.METRICS)
"""Metrics that have a bracket: a finding, a scenario, a group of closed questions, or a task of written texts."""


LOWER_IS_BETTER = frozenset(
    {
        "hallucination_rate",
        "severity_hallucination_rate",
        "severe_hallucination_rate",
        "unsupported_rate",
        "hallucinated_reports",
        "omission_rate",
        "severity_omission_rate",
        "report_parse_failure",
        "box_parse_failure",
        "closed_unread",
        "false_boxes_on_empty",
        *dialogue_outcomes.LOWER_IS_BETTER,
        *confusion.LOWER_IS_BETTER,
    }
)


Made = tuple[Ratio, ...] | Macro | Confused | Bleu
"""How a metric is made: the mean of ratios of counts, a mean of such, from a confusion of counts, or as BLEU."""


def ratios_in(outcomes: Sequence[Outcome]) -> dict[str, Made]:
    """The metrics, with ``mean_iou[finding]`` for each finding whose box was asked for, ``A_C[scenario]`` and so on."""
    scenarios = ratios_by_scenario(o.counts for o in outcomes)
    found = RATIOS | {name: (Ratio((over,), (under,)),) for name, (over, under) in scenarios.items()}
    each = {
        name: {finding: tuple(ratio.of(finding) for ratio in RATIOS[name]) for finding in findings}
        for name, findings in _findings_of(outcomes).items()
    }
    by_finding = {f"{name}[{f}]": ratios for name, of_finding in each.items() for f, ratios in of_finding.items()}
    macros = {macro: Macro(tuple(each[name].values())) for macro, name in MACROS.items() if each[name]}
    texts = {
        f"{name}[{task}]": _of_texts(name, task)
        for task, names in names_in(o.counts for o in outcomes).items()
        for name in names
    }
    return {**found, **by_finding, **macros, **texts, **capability_metrics(o.counts for o in outcomes)}


def _of_texts(name: str, task: str) -> Made:
    """A metric of texts for the rows of a task."""
    if name in BLEUS:
        return Bleu(BLEUS.index(name) + 1, task)
    return (Ratio((f"{name}[{task}]",), (f"texts[{task}]",)),)


def _findings_of(outcomes: Sequence[Outcome]) -> dict[str, list[str]]:
    """By metric: the findings that it is also said of."""
    boxed = sorted({o.finding for o in outcomes if o.task == "box" and o.finding})
    presence = sorted({o.finding for o in outcomes if o.task == "presence" and o.finding})
    reported = findings_counted(o.counts for o in outcomes)
    of_metric = {"mean_iou": boxed, "finding_recall": reported, "finding_f1": reported}
    return {name: of_metric.get(name, presence) for name in BY_FINDING}
