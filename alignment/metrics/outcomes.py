"""What an answer counts for, held against the facts of its row."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypedDict

from alignment.metrics.capability import counts_by_finding, judged
from alignment.metrics.closed_readers import read_counts
from alignment.metrics.dialogue_outcomes import dialogue_counts
from alignment.metrics.evaluated_row import EvaluatedRow
from alignment.metrics.text_overlap import text_counts
from alignment.metrics.unjudged import has_facts, why_unjudged
from data_builders.schema import message_text
from rewards.answers.final_answer import final_words
from rewards.boxes.coordinate_space import Units, answered_boxes, true_boxes
from rewards.boxes.geometry import MAX_BOXES, Box, iou_matrix, is_valid, match_boxes
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
    boxes: tuple[Box, ...] = ()


class _About(TypedDict):
    """What an outcome says of its row."""

    id: str
    patient: str
    task: str
    finding: str | None


def score_answers(
    rows: Sequence[EvaluatedRow], answers: Sequence[str | list[str]], *, rules: RuleSet | None = None
) -> list[Outcome]:
    """The outcome of each prompt row under its answer (in a dialogue, the model's turns).

    ``rules``: where the rows' rule set is not shipped.
    """
    outcomes = [_outcome(row, answer, rules=rules) for row, answer in zip(rows, answers, strict=True)]
    texts = text_counts(rows, answers)
    return [replace(o, counts=o.counts | counts) if counts else o for o, counts in zip(outcomes, texts, strict=True)]


def question_finding(row: EvaluatedRow, rules: RuleSet) -> str | None:
    """The finding that the row asks about: its ``target``, else by the longest phrase in it; None for a report."""
    if row["task"] == "report":
        return None
    if (target := row.get("target")) in rules.findings:
        return target
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


def _outcome(row: EvaluatedRow, answer: str | list[str], *, rules: RuleSet | None) -> Outcome:
    if not isinstance(answer, str):
        counts = dialogue_counts(answer, row.get("dialogue") or "")
        return Outcome(row["id"], row["patient"], row["task"], None, counts=counts)
    task, words = row["task"], final_words(answer)
    about: _About = {"id": row["id"], "patient": row["patient"], "task": task, "finding": None}
    rules = rules or (load_rule_set(row["rule_set"]) if row["rule_set"] else None)
    if why_unjudged(row, rules):
        return Outcome(**about, counts={})
    if rules is not None:
        about["finding"] = question_finding(row, rules)
    if row.get("box_images"):
        return _sequence_outcome(row, words, rules, about)
    if task == "box":
        return _box_outcome(row, words, about)
    return _words_outcome(row, words, rules, about)


def _words_outcome(row: EvaluatedRow, words: str, rules: RuleSet | None, about: _About) -> Outcome:
    """Of an answer in words: by the findings it states where a rule set reads them, else by the words themselves."""
    if rules is not None and row.get("capability"):
        return _capability_outcome(row, words, rules, about)
    if rules is not None and row["task"] == "report":
        return _report_outcome(row, words, rules, about) if has_facts(row, rules) else Outcome(**about, counts={})
    if row["task"] == "report":
        return Outcome(**about, counts={})  # nothing but its wording is known
    if row["task"] == "open":
        return Outcome(**about, counts=_open_counts(_accepted(row), words))
    return Outcome(**about, counts=_closed_counts(row, words, about["finding"]))


def _accepted(row: EvaluatedRow) -> list[str]:
    """Every answer that counts as right, the reference first."""
    return row.get("answers") or [row["answer"] or ""]


def _closed_counts(row: EvaluatedRow, words: str, finding: str | None) -> dict[str, float]:
    """A closed answer by equality, and as its reader takes it; a yes or no also under the finding asked for."""
    task, correct = row["task"], float(_folded(words) in map(_folded, _accepted(row)))
    key = _folded(row["answer"] or "") if task == "presence" else task
    counts = {
        "closed": 1.0,
        "closed_correct": correct,
        key: 1.0,
        f"{key}_correct": correct,
        **read_counts(row, words, is_equal=bool(correct)),
    }
    if task == "presence" and finding:
        counts |= {f"{key}[{finding}]": 1.0, f"{key}_correct[{finding}]": correct}
    return counts


def _open_counts(accepted: Sequence[str], words: str) -> dict[str, float]:
    """An open answer by the share of the truth's words that it recalls; of several accepted ones the best."""
    answered = set(re.findall(r"\w+", words.casefold()))
    wanted = [found for text in accepted if (found := re.findall(r"\w+", text.casefold()))]
    return {"open": 1.0, "open_recalled": max(sum(word in answered for word in one) / len(one) for one in wanted)}


def _folded(words: str) -> str:
    return words.strip().removesuffix(".").casefold()


def _capability_outcome(row: EvaluatedRow, words: str, rules: RuleSet, about: _About) -> Outcome:
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


def _report_outcome(row: EvaluatedRow, words: str, rules: RuleSet, about: _About) -> Outcome:
    """A report fails to parse when no finding is read from it, or any of its sentences is not understood."""
    truth = Facts.told(row["facts"]).without_boxes()
    outcome = _findings_outcome(truth, words, rules, about)
    judged = compare(truth, read(words, rules).facts, unsupported=rules.unsupported)
    return replace(outcome, counts=outcome.counts | counts_by_finding(judged))


def _findings_outcome(truth: Facts, words: str, rules: RuleSet, about: _About) -> Outcome:
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


def _box_outcome(row: EvaluatedRow, words: str, about: _About) -> Outcome:
    """IoU summed over the true boxes under the best matching; a miss and an unread answer add 0.

    All in the truth's units, into which the answer is brought (``rewards.boxes.coordinate_space``).
    """
    units = Units.of(row)
    answered = answered_boxes(words, units)
    boxes = [box for box in answered or [] if is_valid(box)][:MAX_BOXES]
    truth = true_boxes(row["boxes"] or [], units)
    ious = matched_ious(boxes, truth)
    counts = {
        "box_answers": 1.0,
        "unparsed_boxes": float(answered is None and not says_none(words, about["finding"], row["rule_set"])),
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


def _sequence_outcome(row: EvaluatedRow, words: str, rules: RuleSet | None, about: _About) -> Outcome:
    """Boxes over several images: as in one image, but a box on the wrong image is a miss; by grounding task."""
    units, boxes = Units.of(row), row["boxes"] or []
    answered = written_boxes(words)
    parts = sequence_components(
        words,
        boxes,
        row.get("box_images"),
        box_grid=units.box_grid,
        image_size=units.image_size,
        processed_size=units.processed_size,
        box_space=units.space,
    )
    counts = {
        "box_answers": 1.0,
        "unparsed_boxes": float(answered is None),
        "boxes": float(sum(map(is_valid, answered or []))),
        "true_boxes": float(len(boxes)),
        "iou": parts["mean_iou"] * len(boxes),
        "hits": parts["found_at_50"] * len(boxes),
    }
    counts |= {f"{key}[{row['task']}]": counts[key] for key in ("iou", "true_boxes")}
    return Outcome(**{**about, "task": "box", "finding": row["task"]}, counts=counts)


def matched_ious(boxes: Sequence[Box], true_boxes: Sequence[Box]) -> list[float]:
    """IoU of each matched pair, one box to one true box, so paired that the sum is largest."""
    ious = iou_matrix(boxes, true_boxes)
    return [float(ious[i, j]) for i, j in match_boxes(boxes, true_boxes, ious)]
