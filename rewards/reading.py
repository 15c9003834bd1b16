"""Reading: a text parsed back into facts, by the phrases of a rule set, with negation and uncertainty.

Sentences are read one by one, in linear time. A cue holds from where it stands to the end of its clause (``but``,
``however``, a semicolon). Left out: history ("history of"), and findings spread over two sentences.
"""

import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from rewards.boxes import labelled_boxes
from rewards.facts import Box, Facts, Finding, Polarity
from rewards.rule_set import FindingRule, RuleSet

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
CLAUSE_END = re.compile(r";|,?\s\b(?:but|however|although|though)\b", re.IGNORECASE)
NEGATIVE_BEFORE = re.compile(
    r"\b(?:no|not|without|absence of|free of|negative for|denies|rather than|resolution of|rules? out|ruled out)\b",
    re.IGNORECASE,
)
NEGATIVE_AFTER = re.compile(
    r"\b(?:(?:is|are|was|were) (?:absent|not (?:seen|present|identified|visible))"
    r"|ha(?:s|ve) resolved|ruled out)\b|: none\b",
    re.IGNORECASE,
)
UNCERTAIN = re.compile(
    r"\b(?:possibl[ey]|probabl[ey]|may|might|could|suspected|suspicious for|questionable|cannot be excluded"
    r"|not excluded|cannot exclude|uncertain|equivocal)\b|\?",
    re.IGNORECASE,
)
NUMBER_WORDS = {
    word: n
    for n, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    )
}


@dataclass(frozen=True)
class Reading:
    """Facts read from a text. ``unread``: sentences in which no finding was named.

    ``conflicts``: findings said to be there and not there, or on two sides; their polarity is ``uncertain``.
    """

    facts: Facts
    evidence: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    conflicts: frozenset[str] = frozenset()
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Mention:
    name: str
    finding: Finding
    words: str


def read(text: str, rules: RuleSet) -> Reading:
    """What a text claims under a rule set; boxes in the units as written.

    >>> from rewards.rule_set import load_rule_set
    >>> reading = read("No effusion. There is a small nodule on the left.", load_rule_set("chest_xray"))
    >>> reading.facts.findings["effusion"].polarity, reading.facts.findings["nodule"].side
    ('absent', 'left')
    """
    bare, boxes = labelled_boxes(text, phrase_pattern(rules))
    mentions: list[_Mention] = []
    unread: list[str] = []
    for sentence in filter(None, (s.strip() for s in SENTENCE_END.split(bare))):
        found = _mentions(sentence, rules)
        mentions += found
        if not found and re.search(r"\w", sentence):
            unread.append(sentence)
    by_name: dict[str, list[_Mention]] = {}
    for mention in mentions:
        by_name.setdefault(mention.name, []).append(mention)
    merged = {name: _merged([m.finding for m in said]) for name, said in by_name.items()}
    located = _with_boxes({n: f for n, (f, _) in merged.items()}, boxes, rules)
    return Reading(
        facts=Facts(rule_set=rules.id, findings=located),
        evidence={name: [m.words for m in said] for name, said in by_name.items()},
        conflicts=frozenset(name for name, (_, clash) in merged.items() if clash),
        unread=tuple(unread),
    )


@cache
def _names(rules_id: str, phrases: tuple[tuple[str, str], ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    del rules_id  # part of the cache key
    longest_first = sorted(phrases, key=lambda pair: -len(pair[0]))
    pattern = "|".join(re.escape(phrase) for phrase, _ in longest_first)
    return re.compile(rf"(?<!\w)(?:{pattern})(?!\w)", re.IGNORECASE), {p.casefold(): name for p, name in phrases}


def _lexicon(rules: RuleSet) -> tuple[re.Pattern[str], dict[str, str]]:
    pairs = [
        (phrase, name)
        for name, rule in rules.findings.items()
        for phrase in [*rule.phrases, *([rule.plural] if rule.plural else [])]
    ]
    return _names(rules.id, tuple(pairs))


def phrase_pattern(rules: RuleSet) -> re.Pattern[str]:
    """One pattern that matches every phrase of a rule set, on word boundaries, longest first."""
    return _lexicon(rules)[0]


def _mentions(sentence: str, rules: RuleSet) -> list[_Mention]:
    """The findings named in a sentence, clause by clause."""
    found: list[_Mention] = []
    for clause in CLAUSE_END.split(sentence):
        pattern, owners = _lexicon(rules)
        hits = list(pattern.finditer(clause))
        for k, hit in enumerate(hits):
            name = owners[hit.group().casefold()]
            before = clause[hits[k - 1].end() if k else 0 : hit.start()]
            after = clause[hit.end() : hits[k + 1].start() if k + 1 < len(hits) else len(clause)]
            polarity = _polarity(clause, hit, hits)
            found.append(_Mention(name, _finding(rules.findings[name], polarity, before, after), clause.strip()))
    return found


def _polarity(clause: str, hit: re.Match[str], hits: list[re.Match[str]]) -> Polarity:
    before, after = clause[: hit.start()], clause[hits[-1].end() :]
    if UNCERTAIN.search(before) or UNCERTAIN.search(after):
        return "uncertain"
    if NEGATIVE_BEFORE.search(before) or NEGATIVE_AFTER.search(after):
        return "absent"
    return "present"


def _finding(rule: FindingRule, polarity: Polarity, before: str, after: str) -> Finding:
    if polarity == "absent":
        return Finding(polarity="absent", count=0 if rule.counted else None)
    count = _count(before, after) if rule.counted else None
    if count == 0:
        return Finding(polarity="absent", count=0)
    side = _nearest_word(rule.sides, after, before)
    size = _nearest_word(rule.sizes, before, after) if polarity == "present" else None
    return Finding(polarity=polarity, side=side, size=size, count=count)


def _nearest_word(words: list[str], first: str, second: str) -> str | None:
    """The one of ``words`` that stands in the first text, or else in the second."""
    for text in (first, second):
        hits = [(m.start(), w) for w in words if (m := re.search(rf"\b{re.escape(w)}\b", text, re.IGNORECASE))]
        if hits:
            return min(hits)[1]
    return None


def _count(before: str, after: str) -> int | None:
    """The number right before a phrase ("12 red cells") or after its colon ("red cells: 12")."""
    match = re.search(r"(\d{1,6}|[a-z]+)\s*$", before, re.IGNORECASE) or re.match(
        r"\s*:\s*(\d{1,6}|[a-z]+)", after, re.IGNORECASE
    )
    if not match:
        return None
    word = match.group(1).casefold()
    return int(word) if word.isdigit() else NUMBER_WORDS.get(word)


def _merged(said: list[Finding]) -> tuple[Finding, bool]:
    """One finding from all its mentions, and whether they contradict each other."""
    polarities = {f.polarity for f in said}
    sides = {f.side for f in said if f.side}
    clash = {"present", "absent"} <= polarities or len(sides) > 1
    polarity: Polarity = "uncertain" if clash else "present" if "present" in polarities else said[0].polarity
    first: dict[str, Any] = {
        key: next((v for f in said if (v := getattr(f, key)) is not None), None) for key in ("side", "size", "count")
    }
    return Finding(polarity=polarity, **first), clash


def _with_boxes(findings: dict[str, Finding], boxes: list[tuple[str, Box]], rules: RuleSet) -> dict[str, Finding]:
    owners = _lexicon(rules)[1]
    for phrase, box in boxes:
        name = owners[phrase.casefold()]
        known = findings.get(name)
        if known is not None:
            findings[name] = known.model_copy(update={"boxes": (*known.boxes, box)})
    return findings
