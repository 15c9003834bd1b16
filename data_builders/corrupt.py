"""Corrupt: plausible wrong versions of the facts, each with the severity of what was changed.

Left out: wrong places, measurements, and errors that a rule set's implications would give away.
"""

import random
from dataclasses import dataclass

from rewards.facts import Facts, Finding
from rewards.rule_set import ErrorKind, FindingRule, RuleSet


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
    possible = options(facts, rules)
    allowed: list[ErrorKind] = sorted({kind for kind, _, _ in possible if kinds is None or kind in kinds})
    if not allowed:
        return None
    kind: ErrorKind = rng.choice(allowed)
    _, name, wrong = rng.choice([option for option in possible if option[0] == kind])
    wrong_facts = facts.model_copy(update={"findings": {**facts.findings, name: wrong}})
    return Corruption(wrong_facts, kind, name, rules.severity(name, kind))


def options(facts: Facts, rules: RuleSet) -> list[tuple[ErrorKind, str, Finding]]:
    """Every single error that can be made of these facts: kind, finding, and the wrong version of it."""
    return [
        (kind, name, wrong)
        for name, finding in facts.findings.items()
        if name in rules.findings
        for kind, wrong in _wrong_versions(finding, rules.findings[name])
    ]


def _wrong_versions(finding: Finding, rule: FindingRule) -> list[tuple[ErrorKind, Finding]]:
    if finding.polarity == "absent":
        sides, sizes = rule.sides or [None], rule.sizes or [None]
        count = 1 if rule.counted else None
        return [("invented", Finding(polarity="present", side=a, size=b, count=count)) for a in sides for b in sizes]
    if finding.polarity == "uncertain":
        return []
    bare = finding.model_copy(update={"boxes": ()})
    wrong: list[tuple[ErrorKind, Finding]] = []
    wrong.append(("missed", Finding(polarity="absent", count=0 if rule.counted else None)))
    for side in rule.sides if finding.side else []:
        wrong.append(("side", bare.model_copy(update={"side": side})))
    for size in rule.sizes if finding.size else []:
        wrong.append(("size", bare.model_copy(update={"size": size})))
    for step in (-2, -1, 1, 2) if finding.count else ():
        wrong.append(("count", bare.model_copy(update={"count": (finding.count or 0) + step})))
    return [(kind, f) for kind, f in wrong if f != bare and (f.count is None or f.count > 0 or f.polarity == "absent")]
