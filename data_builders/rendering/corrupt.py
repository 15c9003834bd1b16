"""Corrupt: plausible wrong versions of the facts, each with the severity of what was changed.

Only errors that the words of a report show are made. What the facts deny is invented, since that is surely false; where
they deny nothing, what they do not know, unless the rule set ignores such claims. Left out: wrong places, measurements,
and errors that implications would give away.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from data_builders.rendering.render import sentence
from rewards.rules.facts import Facts, Finding
from rewards.rules.rule_set import ErrorKind, FindingRule, RuleSet

Option = tuple[ErrorKind, str, Finding]
"""Kind of error, finding, and the wrong version of it."""


@dataclass(frozen=True)
class Corruption:
    """Facts in which one finding is wrong. ``severity`` in [0, 1], by the rule set."""

    facts: Facts
    kind: ErrorKind
    finding: str
    severity: float


def corrupt(
    facts: Facts, rules: RuleSet, rng: random.Random, *, kinds: tuple[ErrorKind, ...] | None = None
) -> Corruption | None:
    """One error of one of ``kinds`` (all by default); None if these facts leave no room for one.

    The kind is drawn first, so that rare kinds are not drowned by common ones.
    """
    possible = [option for option in options(facts, rules) if kinds is None or option[0] in kinds]
    if not possible:
        return None
    drawn = rng.choice(sorted({kind for kind, _, _ in possible}))
    kind, name, wrong = rng.choice([option for option in possible if option[0] == drawn])
    wrong_facts = facts.model_copy(update={"findings": {**facts.findings, name: wrong}})
    return Corruption(wrong_facts, kind, name, rules.severity(name, kind))


def options(facts: Facts, rules: RuleSet) -> list[Option]:
    """Every single error that can be made of these facts and that their words would show; none of empty facts."""
    known: list[Option] = [
        (kind, name, wrong)
        for name, finding in facts.findings.items()
        if (rule := rules.findings.get(name)) is not None
        for kind, wrong in _wrong_versions(finding, rule)
        if sentence(wrong, rule, rules) != sentence(finding, rule, rules)
    ]
    return known if any(kind == "invented" for kind, *_ in known) else known + _unsupported(facts, rules)


def _unsupported(facts: Facts, rules: RuleSet) -> list[Option]:
    """Inventions of what the facts do not know; none where they know nothing, and so have no words to be changed."""
    if not facts.findings or rules.unsupported == "ignore":
        return []
    return [
        (kind, name, wrong)
        for name, rule in rules.findings.items()
        if name not in facts.findings
        for kind, wrong in _inventions(rule)
    ]


def _wrong_versions(finding: Finding, rule: FindingRule) -> Iterator[tuple[ErrorKind, Finding]]:
    if finding.polarity == "absent":
        yield from _inventions(rule)
    elif finding.polarity == "present":
        yield "missed", Finding(polarity="absent", count=0 if rule.counted else None)
        yield from _misstatements(finding.model_copy(update={"boxes": ()}), rule)


def _inventions(rule: FindingRule) -> Iterator[tuple[ErrorKind, Finding]]:
    count = 1 if rule.counted else None
    for side in rule.sides or [None]:
        for size in rule.sizes or [None]:
            yield "invented", Finding(polarity="present", side=side, size=size, count=count)


def _misstatements(finding: Finding, rule: FindingRule) -> Iterator[tuple[ErrorKind, Finding]]:
    """The finding with another side, size or count, where it states one."""
    for side in rule.sides if finding.side else []:
        if side != finding.side:
            yield "side", finding.model_copy(update={"side": side})
    for size in rule.sizes if finding.size else []:
        if size != finding.size:
            yield "size", finding.model_copy(update={"size": size})
    for step in (-2, -1, 1, 2) if finding.count else ():
        if finding.count and finding.count + step > 0:
            yield "count", finding.model_copy(update={"count": finding.count + step})
