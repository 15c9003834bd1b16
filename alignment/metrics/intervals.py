"""Metrics of answers: each row's outcome as counts, each metric a ratio of summed counts.

A ratio of sums (all hallucinated claims / all claims) lets a report with five claims weigh five times one
with a single claim. The interval is a percentile bootstrap over patients, whose rows stand or fall together.
A metric whose denominator is zero is left out rather than called 0 or 1; one patient gives no interval.
Left out: text overlap (BLEU, ROUGE), which rewards wording and is blind to negation.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from alignment.metrics import capability as capability_outcomes
from alignment.metrics import dialogue_outcomes
from alignment.metrics.capability import Confused, capability_metrics, counts_by_finding, findings_counted, judged
from alignment.metrics.dialogue_outcomes import DIALOGUE_RATIOS, dialogue_counts, ratios_by_scenario
from alignment.metrics.unjudged import why_unjudged
from data_builders.schema import message_text
from rewards.answers.final_answer import final_answer
from rewards.boxes.coordinate_space import Units, answered_boxes, true_boxes
from rewards.boxes.geometry import MAX_BOXES, iou_matrix, is_valid, match_boxes
from rewards.boxes.sequence_boxes import components as sequence_components
from rewards.reading.box_absence import says_none
from rewards.reading.box_text import written_boxes
from rewards.reading.reading import RulesKey, read
from rewards.rules.compare import Comparison, compare
from rewards.rules.facts import Facts, Finding
from rewards.rules.rule_set import RuleSet, load_rule_set

HIT_IOU = 0.5
SEVERE = 0.8
"""An error of at least this severity, by the rule set, is a severe one."""


@dataclass(frozen=True)
class Metric:
    """A value with its 95 % interval, and on how much it rests. ``low``, ``high``: None with one patient."""

    value: float
    low: float | None
    high: float | None
    num_rows: int
    num_patients: int


@dataclass(frozen=True)
class Outcome:
    """One row judged: counts that add up over rows. No counts: the row cannot be judged (see ``why_unjudged``).

    ``wrong`` names the findings that a report claims and the facts deny (or place on the other side, or do not know).
    """

    id: str
    patient: str
    task: str
    finding: str | None
    counts: dict[str, float]
    wrong: tuple[str, ...] = ()
    boxes: tuple[tuple[float, ...], ...] = ()


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
FAMILIES = (*BY_FINDING, *DIALOGUE_RATIOS, *capability_outcomes.METRICS)
"""Metrics that have a bracket: a finding, a scenario, or a group of closed questions."""

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
        "false_boxes_on_empty",
        *dialogue_outcomes.LOWER_IS_BETTER,
        *capability_outcomes.LOWER_IS_BETTER,
    }
)


def score_answers(
    rows: Sequence[Mapping[str, Any]], answers: Sequence[str | list[str]], *, rules: RuleSet | None = None
) -> list[Outcome]:
    """The outcome of each prompt row under its answer (in a dialogue, the model's turns).

    ``rules``: where the rows' rule set is not shipped.
    """
    return [_outcome(row, answer, rules=rules) for row, answer in zip(rows, answers, strict=True)]


def final_words(response: str) -> str:
    """What a response finally says: the one tagged answer at its end, or all of it where nothing is tagged.

    Empty where tags are broken: two answers, an open tag, or words after the tag.

    >>> final_words("<think>dense base</think><answer>Yes</answer>")
    'Yes'
    >>> final_words(" No "), final_words("<answer>No")
    ('No', '')
    """
    if "<answer>" not in response and "</answer>" not in response:
        return response.strip()
    return final_answer(response) or ""


def asked_finding(row: Mapping[str, Any], rules: RuleSet) -> str | None:
    """The finding that the row asks about: its ``target``, else by the longest phrase in it; None for a report."""
    if row["task"] == "report":
        return None
    if row.get("target") in rules.findings:
        return row["target"]
    return _named(message_text(row["prompt"]).casefold(), RulesKey(rules))


@lru_cache(maxsize=4096)  # a few hundred questions are asked of thousands of images
def _named(question: str, key: RulesKey) -> str | None:
    named = [
        (len(phrase), finding)
        for finding, rule in key.rules.findings.items()
        for phrase in [*rule.phrases, *([rule.plural] if rule.plural else [])]
        if re.search(rf"\b{re.escape(phrase.casefold())}\b", question)
    ]
    return max(named)[1] if named else None


def _outcome(row: Mapping[str, Any], answer: str | list[str], *, rules: RuleSet | None) -> Outcome:
    if not isinstance(answer, str):
        counts = dialogue_counts(answer, row["dialogue"])
        return Outcome(row["id"], row["patient"], row["task"], None, counts=counts)
    task, words = row["task"], final_words(answer)
    about: dict[str, Any] = dict(id=row["id"], patient=row["patient"], task=task, finding=None)
    rules = rules or (load_rule_set(row["rule_set"]) if row["rule_set"] else None)
    if why_unjudged(row, rules):
        return Outcome(**about, counts={})
    if rules is not None:
        about["finding"] = asked_finding(row, rules)
    if row.get("box_images"):
        return _sequence_outcome(row, words, rules, about)
    if task == "box":
        return _box_outcome(row, words, about)
    return _words_outcome(row, words, rules, about)


def _words_outcome(row: Mapping[str, Any], words: str, rules: RuleSet | None, about: dict[str, Any]) -> Outcome:
    """Of an answer in words: by the findings it states where a rule set reads them, else by the words themselves."""
    if rules is not None and row.get("capability"):
        return _capability_outcome(row, words, rules, about)
    if rules is not None and row["task"] == "report":
        return _report_outcome(row, words, rules, about)
    if row["task"] == "open":
        return Outcome(**about, counts=_open_counts(row["answer"], words))
    return Outcome(**about, counts=_closed_counts(row["task"], row["answer"], words, about["finding"]))


def _closed_counts(task: str, truth: str, words: str, finding: str | None) -> dict[str, float]:
    """A closed answer by equality; a yes or no also under the finding that was asked for."""
    correct = float(_folded(words) == _folded(truth))
    key = _folded(truth) if task == "presence" else task
    counts = {"closed": 1.0, "closed_correct": correct, key: 1.0, f"{key}_correct": correct}
    if task == "presence" and finding:
        counts |= {f"{key}[{finding}]": 1.0, f"{key}_correct[{finding}]": correct}
    return counts


def _open_counts(truth: str, words: str) -> dict[str, float]:
    """An open answer by the share of the truth's words that it recalls."""
    wanted, said = (re.findall(r"\w+", text.casefold()) for text in (truth, words))
    return {"open": 1.0, "open_recalled": sum(word in set(said) for word in wanted) / len(wanted)}


def _folded(words: str) -> str:
    return words.strip().removesuffix(".").casefold()


def _capability_outcome(row: Mapping[str, Any], words: str, rules: RuleSet, about: dict[str, Any]) -> Outcome:
    """A closed question by its options, an open one by the findings that its reference states."""
    closed = judged(row, words)
    if closed is not None:
        return Outcome(**about, counts=closed.counts)
    stated = read(row["answer"] or "", rules).facts.without_boxes()
    if not stated.findings:
        return Outcome(**about, counts={})
    stated = _with_unasked(stated, row["facts"])
    outcome = _findings_outcome(stated, words, rules, about)
    judged_by_name = compare(stated, read(words, rules).facts, unsupported=rules.unsupported)
    return replace(outcome, counts=outcome.counts | counts_by_finding(judged_by_name))


def _with_unasked(stated: Facts, known: str | None) -> Facts:
    """What a reference states; what it leaves out, and the row's facts do not deny, is uncertain: it is not judged."""
    findings = Facts.told(known).findings if known else {}
    left_out = [n for n, f in findings.items() if f.polarity != "absent" and n not in stated.findings]
    unasked = dict.fromkeys(left_out, Finding(polarity="uncertain"))
    return stated.model_copy(update={"findings": {**stated.findings, **unasked}})


def _report_outcome(row: Mapping[str, Any], words: str, rules: RuleSet, about: dict[str, Any]) -> Outcome:
    """A report fails to parse when no finding is read from it, or any of its sentences is not understood."""
    truth = Facts.told(row["facts"]).without_boxes()
    outcome = _findings_outcome(truth, words, rules, about)
    judged = compare(truth, read(words, rules).facts, unsupported=rules.unsupported)
    return replace(outcome, counts=outcome.counts | counts_by_finding(judged))


def _findings_outcome(truth: Facts, words: str, rules: RuleSet, about: dict[str, Any]) -> Outcome:
    """Claims and omissions, plainly and by severity; what is not known is hallucinated, or ignored by the rule set."""
    reading = read(words, rules)
    judged = compare(truth, reading.facts, unsupported=rules.unsupported)
    counts = {
        "reports": 1,
        "claims": len(judged.claims),
        "hallucinations": len(judged.hallucinations),
        "unsupported": len(judged.unsupported),
        "ignored_claims": len(judged.unsupported) if rules.unsupported == "ignore" else 0,
        "true_claims": len(judged.claims) - len(judged.hallucinations),
        "true_findings": len(judged.true_findings),
        "found": len(judged.found),
        "omissions": len(judged.omissions),
        "hallucinated": bool(judged.hallucinations),
        "unparsed_report": bool(not reading.facts.findings or reading.unread),
        **_severities(judged, rules),
    }
    return Outcome(
        **about,
        counts={name: float(count) for name, count in counts.items()},
        wrong=tuple(judged.hallucinations),
    )


def _severities(judged: Comparison, rules: RuleSet) -> dict[str, float]:
    """Severity summed over what is hallucinated (invented, or on the wrong side) and over what is left out."""
    invented = [
        rules.severity(name, "side" if name in judged.true_findings else "invented") for name in judged.hallucinations
    ]
    missed = [rules.severity(name, "missed") for name in judged.omissions if name in rules.findings]
    return {
        "hallucinated_severity": sum(invented),
        "severe_hallucinations": sum(severity >= SEVERE for severity in invented),
        "omitted_severity": sum(missed),
    }


def _box_outcome(row: Mapping[str, Any], words: str, about: dict[str, Any]) -> Outcome:
    """IoU summed over the true boxes under the best matching; a miss and an unread answer add 0.

    All in the truth's units, into which the answer is brought (``rewards.boxes.coordinate_space``).
    """
    units = Units.of(row)
    said = answered_boxes(words, units)
    boxes = [box for box in said or [] if is_valid(box)][:MAX_BOXES]
    truth = true_boxes(row["boxes"] or [], units)
    ious = matched_ious(boxes, truth)
    counts = {
        "box_answers": 1.0,
        "unparsed_boxes": float(said is None and not says_none(words, about["finding"], row["rule_set"])),
        "boxes": float(len(boxes)),
        "true_boxes": float(len(truth)),
        "iou": float(sum(ious)),
        "hits": float(sum(iou >= HIT_IOU for iou in ious)),
    }
    if not truth:
        counts |= {"empty_answers": 1.0, "boxes_on_empty": counts["boxes"]}
    if about["finding"]:
        counts |= {f"{key}[{about['finding']}]": counts[key] for key in ("iou", "true_boxes")}
    return Outcome(**about, counts=counts, boxes=tuple(boxes))


def _sequence_outcome(row: Mapping[str, Any], words: str, rules: RuleSet | None, about: dict[str, Any]) -> Outcome:
    """Boxes over several images: as in one image, but a box on the wrong image is a miss; by grounding task."""
    units, num_true = Units.of(row), len(row["boxes"])
    said = written_boxes(words)
    parts = sequence_components(
        words, row["boxes"], row["box_images"], box_grid=units.box_grid, image_size=units.image_size,
        processed_size=units.processed_size, box_space=units.space,
    )  # fmt: skip
    counts = {
        "box_answers": 1.0,
        "unparsed_boxes": float(said is None),
        "boxes": float(sum(map(is_valid, said or []))),
        "true_boxes": float(num_true),
        "iou": parts["mean_iou"] * num_true,
        "hits": parts["found_at_50"] * num_true,
    }
    counts |= {f"{key}[{row['task']}]": counts[key] for key in ("iou", "true_boxes")}
    return Outcome(**{**about, "task": "box", "finding": row["task"]}, counts=counts)


Made = tuple[Ratio, ...] | Macro | Confused
"""How a metric is made: the mean of ratios of counts, a mean of such, or from a confusion of counts."""


def ratios_in(outcomes: Sequence[Outcome]) -> dict[str, Made]:
    """The metrics, with ``mean_iou[finding]`` for each finding whose box was asked for, ``A_C[scenario]`` and so on."""
    scenarios = ratios_by_scenario(o.counts for o in outcomes)
    found = RATIOS | {name: (Ratio((over,), (under,)),) for name, (over, under) in scenarios.items()}
    each = {
        name: {finding: tuple(ratio.of(finding) for ratio in RATIOS[name]) for finding in findings}
        for name, findings in _findings_of(outcomes).items()
    }
    by_finding = {f"{name}[{f}]": ratios for name, own in each.items() for f, ratios in own.items()}
    macros = {macro: Macro(tuple(each[name].values())) for macro, name in MACROS.items() if each[name]}
    return {**found, **by_finding, **macros, **capability_metrics(o.counts for o in outcomes)}


def _findings_of(outcomes: Sequence[Outcome]) -> dict[str, list[str]]:
    """By metric: the findings that it is also said of."""
    boxed = sorted({o.finding for o in outcomes if o.task == "box" and o.finding})
    asked = sorted({o.finding for o in outcomes if o.task == "presence" and o.finding})
    reported = findings_counted(outcomes)
    own = {"mean_iou": boxed, "finding_recall": reported, "finding_f1": reported}
    return {name: own.get(name, asked) for name in BY_FINDING}


def summarise(outcomes: Sequence[Outcome], *, num_resamples: int = 1000, seed: int = 0) -> dict[str, Metric]:
    """Every metric that the outcomes allow, with a 95 % bootstrap interval clustered by patient."""
    sums = _PatientSums.of(outcomes, patients=sorted({o.patient for o in outcomes}))
    weights = _resamples(len(sums.patients), num_resamples, seed)
    return {
        name: metric
        for name, ratios in ratios_in(outcomes).items()
        if (metric := _metric(ratios, outcomes, sums.statistic(ratios), sums.statistic(ratios, weights)))
    }


def differences(
    before: Sequence[Outcome], after: Sequence[Outcome], *, num_resamples: int = 1000, seed: int = 0
) -> dict[str, Metric]:
    """After minus before, each resample drawing the same patients for both: tighter than two intervals."""
    patients = sorted({o.patient for o in [*before, *after]})
    first, second = (_PatientSums.of(outcomes, patients=patients) for outcomes in (before, after))
    weights = _resamples(len(patients), num_resamples, seed)
    found: dict[str, Metric | None] = {}
    for name, ratios in ratios_in([*before, *after]).items():
        change, changes = (second.statistic(ratios, w) - first.statistic(ratios, w) for w in (None, weights))
        found[name] = _metric(ratios, after, change, changes)
    return {name: metric for name, metric in found.items() if metric}


def _resamples(num_patients: int, num_resamples: int, seed: int) -> np.ndarray:
    """How often each patient is drawn in each resample: (resamples, patients)."""
    if num_patients == 0:
        return np.zeros((num_resamples, 0))
    even = np.full(num_patients, 1.0 / num_patients)
    return np.random.default_rng(seed).multinomial(num_patients, even, size=num_resamples).astype(np.float64)


@dataclass(frozen=True)
class _PatientSums:
    """Counts summed over each patient's rows: ``table[patient, count]``."""

    patients: list[str]
    columns: dict[str, int]
    table: np.ndarray

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], *, patients: list[str]) -> "_PatientSums":
        columns = {name: n for n, name in enumerate(sorted({key for o in outcomes for key in o.counts}))}
        row_of = {patient: n for n, patient in enumerate(patients)}
        table = np.zeros((len(patients), len(columns)))
        for outcome in outcomes:
            for key, count in outcome.counts.items():
                table[row_of[outcome.patient], columns[key]] += count
        return cls(patients, columns, table)

    def statistic(self, ratios: Made, weights: np.ndarray | None = None) -> np.ndarray:
        """The metric of each resample (or of the patients as they are); NaN where a denominator is 0."""
        drawn = np.ones((1, len(self.patients))) if weights is None else weights
        if isinstance(ratios, Confused):
            cells = [[self._sum((cell,), drawn) for cell in row] for row in ratios.cells]
            return ratios.value(np.moveaxis(np.array(cells), 2, 0))
        if isinstance(ratios, Macro):
            values = np.array([self._mean(part, drawn) for part in ratios.parts])
            with np.errstate(invalid="ignore"):
                return np.nansum(values, axis=0) / (~np.isnan(values)).sum(axis=0)
        return self._mean(ratios, drawn)

    def _mean(self, ratios: tuple[Ratio, ...], drawn: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = [self._sum(ratio.over, drawn) / self._sum(ratio.under, drawn) for ratio in ratios]
        return np.mean(parts, axis=0)

    def _sum(self, keys: tuple[str, ...], drawn: np.ndarray) -> np.ndarray:
        columns = [self.columns[key] for key in keys if key in self.columns]
        return drawn @ self.table[:, columns].sum(axis=1)


def _metric(ratios: Made, outcomes: Sequence[Outcome], value: np.ndarray, resampled: np.ndarray) -> Metric | None:
    if np.isnan(value[0]):
        return None
    under = _under(ratios)
    rows = [o for o in outcomes if under & o.counts.keys()]
    num_patients = len({o.patient for o in rows})
    seen = resampled[~np.isnan(resampled)]
    low, high = np.quantile(seen, [0.025, 0.975]) if num_patients > 1 and len(seen) else (None, None)
    return Metric(
        value=float(value[0]),
        low=None if low is None else float(low),
        high=None if high is None else float(high),
        num_rows=len(rows),
        num_patients=num_patients,
    )


def _under(made: Made) -> set[str]:
    """The counts below the line: the rows that hold one of them are those that the metric rests on."""
    if isinstance(made, Confused):
        return {cell for row in made.cells for cell in row}
    parts = made.parts if isinstance(made, Macro) else (made,)
    return {key for ratios in parts for ratio in ratios for key in ratio.under}


def matched_ious(boxes: Sequence[Any], true_boxes: Sequence[Any]) -> list[float]:
    """IoU of each matched pair, one box to one true box, so paired that the sum is largest."""
    ious = iou_matrix(boxes, true_boxes)
    return [float(ious[i, j]) for i, j in match_boxes(boxes, true_boxes, ious)]
