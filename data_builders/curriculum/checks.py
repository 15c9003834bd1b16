"""Is a question and answer fit for training? Whoever wrote it, it is held against what is known of the image.

To the checks of ``data_builders.curriculum.item_checks`` (length, leaks, sources, refusals, near-duplicates) these are
added: findings that the facts deny or place elsewhere, levels that the guidelines do not give, numbers that were not
measured. Left out: statements about what is not known; nothing decides them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from data_builders.curriculum.item_checks import ItemChecks
from data_builders.curriculum.templates import Case
from rewards.answers.measurements import measurements
from rewards.llm.item_lists import Item
from rewards.reading.reading import read
from rewards.rules.compare import compare
from rewards.rules.facts import Facts, Polarity
from rewards.rules.guidelines import read_level
from rewards.rules.rule_set import load_rule_set

SOURCE_WORDS = (
    "description",
    "described",
    "mentioned",
    "mention",
    "mentions",
    "specified",
    "according to the",
    "in the report",
    "the report says",
    "the report states",
    "the text",
    "the guideline",
    "the guidelines",
    "the list",
    "the table",
)
YES_NO = re.compile(
    r"^\W*(?P<first>yes\b|no\b(?=\s*(?:[.,:;!]|-\s|$)))[\s,.:;-]*|\bso the answer is (?P<last>yes|no)\b\W*",
    re.IGNORECASE,
)
NO_MEASUREMENT = re.compile(r"\b\d+-lead\b|\b[IVaR]{1,3}\d?\b")
Claims = dict[str, Polarity]


@dataclass(frozen=True)
class CurriculumChecks:
    """Checks for the items of one case. ``similar`` and ``leak`` as in ``ItemChecks``."""

    case: Case
    similar: float = 0.8
    leak: float = 0.8
    general: ItemChecks = field(init=False)

    def __post_init__(self) -> None:
        checks = ItemChecks(
            max_tokens=self.case.task.max_tokens, source_words=SOURCE_WORDS, similar=self.similar, leak=self.leak
        )
        object.__setattr__(self, "general", checks)

    def __call__(self, item: Item, kept: list[Item]) -> str | None:
        """Why an item is rejected, or None."""
        return self.general(item, kept) or next(self.faults(item), None)

    def faults(self, item: Item) -> Iterator[str]:
        """What is wrong with an item by the facts and the guidelines."""
        yes, rest = opinion(item.answer)
        facts = self.case.worked.facts
        if any(_denied(facts, name, polarity) for name, polarity in agreed(item.question, yes, facts.rule_set).items()):
            yield "contradicts the findings"
        if _contradicts(rest, facts):
            yield "contradicts the findings"
        for scale, staged in self.case.worked.scales.items():
            allowed = (staged.level, *staged.could_be)
            stated = read_level(rest, scale, self.case.guidelines)
            level = (
                read_level(item.question.replace("?", "."), scale, self.case.guidelines) if yes is not None else None
            )
            agrees = level is None or (level in allowed if yes else level != staged.level or bool(staged.could_be))
            if not agrees or (stated is not None and stated not in allowed):
                yield f"contradicts the {scale}"
        numbers = unmeasured(rest, self.case)
        if numbers:
            yield "a number that was not measured"


def opinion(answer: str) -> tuple[bool | None, str]:
    """Whether an answer says yes or no (None: neither), and the rest of it.

    >>> opinion("No. There is fluid."), opinion("There is fluid. So the answer is no.")
    ((False, 'There is fluid.'), (False, 'There is fluid. '))
    >>> opinion("No fluid can be seen.")[0] is None
    True
    """
    match = YES_NO.search(answer)
    if not match:
        return None, answer
    word = (match["first"] or match["last"]).casefold()
    return word == "yes", answer[: match.start()] + answer[match.end() :]


def agreed(question: str, yes: bool | None, rule_set: str) -> Claims:
    """What a yes or no to a question claims of the findings that it names: a yes to several claims nothing certain.

    >>> agreed("Is the scan free of drusen?", False, "retina_amd@1")
    {'drusen': 'present'}
    """
    if yes is None:
        return {}
    findings = read(question.replace("?", "."), load_rule_set(rule_set)).facts.findings
    claims: Claims = {name: f.polarity for name, f in findings.items() if f.polarity != "uncertain"}
    if yes:
        return claims if len(claims) == 1 else {}
    if len(claims) > 1 and "absent" in claims.values():
        return {}
    return {name: "absent" if polarity == "present" else "present" for name, polarity in claims.items()}


def _contradicts(text: str, facts: Facts) -> bool:
    """Whether a text claims a finding that is not there or lies elsewhere, or denies one that is there."""
    stated = read(text, load_rule_set(facts.rule_set)).facts
    found = compare(facts, stated, unsupported="ignore")
    denied = [
        name for name in found.omissions if stated.findings.get(name) and stated.findings[name].polarity == "absent"
    ]
    return bool(found.hallucinations or denied)


def _denied(facts: Facts, name: str, polarity: Polarity) -> bool:
    known = facts.findings.get(name)
    return known is not None and known.polarity not in ("uncertain", polarity)


def unmeasured(text: str, case: Case) -> list[float]:
    """Numbers of a text that are no measured value, within the tolerance of any; none without measurements."""
    known = case.curriculum.measurements
    if not known:
        return []
    values = [
        (float(value), known[name].tolerance)
        for name, value in case.worked.facts.values.items()
        if name in known and isinstance(value, int | float)
    ]
    numbers = [m.value for m in measurements(NO_MEASUREMENT.sub(" ", text), bare=True)]
    return [n for n in numbers if not any(abs(n - value) <= tolerance + 1e-9 for value, tolerance in values)]
