"""Render: facts written as words, by the templates of a rule set. The reader gives the same facts back.

Boxes are written in the units of the facts (see ``schema.facts_on_grid``). A report tells no boxes, and no size
of an uncertain finding. Left out: questions about several findings.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from data_builders.schema import Task
from rewards.rules.facts import Box, Facts, Finding
from rewards.rules.rule_set import FindingRule, RuleSet

Choice = random.Random | None
"""None writes the first template of each list; a generator picks among them."""
PRESENT = Finding(polarity="present")
"""What a question may tell of its finding: nothing, or it would give the answer away."""


@dataclass(frozen=True)
class QuestionAnswer:
    """One question about an image and its true answer. ``boxes`` only where a box was asked for."""

    task: Task
    finding: str | None
    question: str
    answer: str
    boxes: tuple[Box, ...] | None = None


def report(facts: Facts, rules: RuleSet, *, rng: Choice = None) -> str:
    """One sentence a finding that the facts know, in the order of the rule set.

    Each sentence draws by itself: under equal generators, facts that differ in one finding differ in one sentence.
    """
    known = _known(facts, rules)
    draws = [None if rng is None else random.Random(rng.getrandbits(64)) for _ in known]
    return " ".join(sentence(f, rule, rules, rng=draw) for (_, rule, f), draw in zip(known, draws, strict=True))


def sentence(finding: Finding, rule: FindingRule, rules: RuleSet, *, rng: Choice = None) -> str:
    """The sentence that states one finding."""
    return _filled(_pick(_statements(finding, rule, rules), rng), rule, finding)


def _statements(finding: Finding, rule: FindingRule, rules: RuleSet) -> list[str]:
    wording = rules.wording
    if finding.polarity == "absent":
        return wording.absent
    if finding.polarity == "uncertain":
        return wording.uncertain
    return wording.count if rule.counted and finding.count is not None and wording.count else wording.present


def questions(facts: Facts, rules: RuleSet, task: Task, *, rng: Choice = None) -> list[QuestionAnswer]:
    """Every question of a task that these facts can answer."""
    return list(_QUESTIONS[task](facts, rules, rng))


def _presence(facts: Facts, rules: RuleSet, rng: Choice) -> Iterator[QuestionAnswer]:
    for name, rule, finding in _known(facts, rules):
        if finding.polarity != "uncertain":
            question = _filled(_pick(rules.wording.ask_presence, rng), rule, PRESENT)
            yield QuestionAnswer("presence", name, question, "Yes" if finding.polarity == "present" else "No")


def _side(facts: Facts, rules: RuleSet, rng: Choice) -> Iterator[QuestionAnswer]:
    yield from _attribute(facts, rules, rng, "side", rules.wording.ask_side)


def _size(facts: Facts, rules: RuleSet, rng: Choice) -> Iterator[QuestionAnswer]:
    yield from _attribute(facts, rules, rng, "size", rules.wording.ask_size)


def _count(facts: Facts, rules: RuleSet, rng: Choice) -> Iterator[QuestionAnswer]:
    yield from _attribute(facts, rules, rng, "count", rules.wording.ask_count)


def _attribute(
    facts: Facts, rules: RuleSet, rng: Choice, task: Literal["side", "size", "count"], templates: list[str]
) -> Iterator[QuestionAnswer]:
    for name, rule, finding in _known(facts, rules):
        value: str | int | None = getattr(finding, task)
        if templates and value is not None and finding.polarity == "present":
            question = _filled(_pick(templates, rng), rule, PRESENT)
            yield QuestionAnswer(task, name, question, str(value).capitalize())


def _box(facts: Facts, rules: RuleSet, rng: Choice) -> Iterator[QuestionAnswer]:
    for name, rule, finding in _known(facts, rules):
        if rules.wording.ask_box and finding.polarity == "present" and finding.boxes:
            question = _filled(_pick(rules.wording.ask_box, rng), rule, PRESENT)
            yield QuestionAnswer("box", name, question, box_answer(finding, rule), finding.boxes)


def absent_boxes(facts: Facts, rules: RuleSet, *, rng: Choice = None) -> list[QuestionAnswer]:
    """Questions for the boxes of what is not there, answered by an empty list: a model must learn to find nothing."""
    return [
        QuestionAnswer(
            "box", name, _filled(_pick(rules.wording.ask_box, rng), rule, PRESENT), box_answer(finding, rule), ()
        )
        for name, rule, finding in _known(facts, rules)
        if rules.wording.ask_box and finding.polarity == "absent"
    ]


def box_answer(finding: Finding, rule: FindingRule) -> str:
    """The finding's name and its boxes in whole units, as models of the field write them.

    >>> from rewards.rules.rule_set import load_rule_set
    >>> rule = load_rule_set("chest_xray").findings["nodule"]
    >>> box_answer(Finding(polarity="present", boxes=((12, 34, 56, 78),)), rule)
    'nodule [[12,34,56,78]]'
    """
    listed = ",".join("[" + ",".join(str(round(v)) for v in box) + "]" for box in finding.boxes)
    return f"{rule.plural if rule.plural and len(finding.boxes) > 1 else rule.name} [{listed}]"


def _report(facts: Facts, rules: RuleSet, rng: Choice) -> Iterator[QuestionAnswer]:
    if _known(facts, rules):
        question = _pick(rules.wording.ask_report, rng)
        yield QuestionAnswer("report", None, question, report(facts, rules, rng=rng))


_QUESTIONS = {
    "presence": _presence,
    "side": _side,
    "size": _size,
    "count": _count,
    "box": _box,
    "report": _report,
}


def _known(facts: Facts, rules: RuleSet) -> list[tuple[str, FindingRule, Finding]]:
    findings = facts.findings
    return [(name, rule, findings[name]) for name, rule in rules.findings.items() if name in findings]


def _pick(templates: list[str], rng: Choice) -> str:
    return templates[0] if rng is None else rng.choice(templates)


def _filled(template: str, rule: FindingRule, finding: Finding) -> str:
    what = " ".join(filter(None, [finding.size, rule.name]))
    if rule.article:
        what = f"{'an' if what[0] in 'aeiou' else 'a'} {what}"
    text = template.format(
        what=what,
        What=what[0].upper() + what[1:],
        name=rule.name,
        names=rule.plural if rule.plural and finding.count != 1 else rule.name,
        where=f" {rule.where.format(side=finding.side)}" if finding.side else "",
        count=finding.count,
    )
    return text[0].upper() + text[1:]
