"""Reading: a text parsed back into facts, by the phrases of a rule set, with negation and uncertainty.

Sections that assert nothing (indication, history, comparison, technique) are skipped; sentences are read one by one,
in linear time, each phrase with the cue that holds for it (`rewards.reading.assertion`). A phrase may leave words open:
``heart ... enlarged`` is read from "the heart is mildly enlarged". A normal phrase ("no acute disease") denies the
findings that the rule set lists, but for those that the text says something else of: a statement about one finding
outweighs one about all. Left out: findings spread over two sentences, and what one finding implies for another.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from rewards.reading.assertion import lowered, lowered_assertions
from rewards.reading.box_text import labelled_boxes
from rewards.reading.laterality import BILATERAL, Near, near_words, nearest_word, side_of
from rewards.reading.normal_phrases import folded, normal_pattern, phrases_in
from rewards.reading.sections import sentences
from rewards.rules.facts import Box, Facts, Finding, Polarity
from rewards.rules.rule_set import FindingRule, RuleSet

OPEN_WORDS = r"(?: (?!(?:normal|with|and|without|or|within normal|limits|but|no)\b)[\w'/-]+){0,7}? "
MAX_CHARACTERS = 200_000
"""What a text may hold; the rest of a longer one is not read, and listed as ``unread``."""
QUOTED = 300
"""Longest evidence, in characters."""
KEPT = 2000
"""Longest text whose reading is kept: several rewards, and their components, read the same answer."""
NUMBER_WORDS = {
    word: n
    for n, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    )
}
NOTHING = r"(?!)"
"""Matches nowhere: the lexicon of a rule set without findings."""
BRACKET = re.compile(r"[\[(<]|x1|xmin")
"""Without one of these no box is written; looking for it first keeps reading fast."""


@dataclass(frozen=True)
class Reading:
    """Facts read from a text. ``unread``: sentences in which no finding was named.

    ``evidence``: by finding, the words that each of its mentions was read from; ``cues``: beside each, the cue that
    decided, empty where it was plainly stated. ``conflicts``: findings said to be there and not there, or on two
    sides where the rule set knows no ``bilateral``; their polarity is ``uncertain``.
    """

    facts: Facts
    evidence: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    conflicts: frozenset[str] = frozenset()
    unread: tuple[str, ...] = ()
    cues: dict[str, list[str]] = field(default_factory=dict[str, list[str]])


@dataclass(frozen=True)
class _Mention:
    name: str
    finding: Finding
    words: str
    cue: str
    restricted: bool
    side: str | None


@dataclass(frozen=True)
class _Lexicon:
    """Every phrase of a rule set as one pattern on lower-case text, whose n-th group is a phrase of ``owners[n]``."""

    pattern: re.Pattern[str]
    any_case: re.Pattern[str]
    owners: tuple[str, ...]

    def owner(self, match: re.Match[str]) -> str:
        assert match.lastindex is not None
        return self.owners[match.lastindex - 1]


def read(text: str, rules: RuleSet) -> Reading:
    """What a text claims under a rule set; boxes in the units as written.

    >>> from rewards.rules.rule_set import load_rule_set
    >>> reading = read("No effusion. There is a small nodule on the left.", load_rule_set("chest_xray"))
    >>> reading.facts.findings["effusion"].polarity, reading.facts.findings["nodule"].side
    ('absent', 'left')
    >>> reading.cues
    {'effusion': ['no'], 'nodule': ['']}
    """
    return (_just_read if len(text) <= KEPT else _read)(text, RulesKey(rules))


def _read(text: str, key: "RulesKey") -> Reading:
    rules = key.rules
    text, rest = text[:MAX_CHARACTERS], text[MAX_CHARACTERS:]
    bare, boxes = labelled_boxes(text, phrase_pattern(rules)) if BRACKET.search(text) else (text, [])
    by_name: dict[str, list[_Mention]] = {}
    denied: dict[str, list[_Mention]] = {}
    unread: list[str] = []
    for sentence in sentences(bare):
        named, found, normal = (_often_read if len(sentence) <= QUOTED else _mentions)(sentence, key)
        for mentions, of in ((found, by_name), (normal, denied)):
            for mention in mentions:
                of.setdefault(mention.name, []).append(mention)
        if not (named or normal) and re.search(r"\w", sentence):
            unread.append(sentence)
    unread += [rest] if rest else []
    by_name |= {name: of_finding for name, of_finding in denied.items() if name not in by_name}
    merged = {name: _merged(of_finding, rules.findings[name]) for name, of_finding in by_name.items()}
    located = _with_boxes({n: f for n, (f, _) in merged.items()}, boxes, rules)
    return Reading(
        facts=Facts(rule_set=rules.id, findings=located),
        evidence={name: [m.words for m in of_finding] for name, of_finding in by_name.items()},
        conflicts=frozenset(name for name, (_, clash) in merged.items() if clash),
        unread=tuple(unread),
        cues={name: [m.cue for m in of_finding] for name, of_finding in by_name.items()},
    )


_just_read = lru_cache(maxsize=4096)(_read)


@dataclass(frozen=True, eq=False)
class RulesKey:
    """A rule set by identity: a cheap key, which keeps it alive."""

    rules: RuleSet

    def __hash__(self) -> int:
        return id(self.rules)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RulesKey) and other.rules is self.rules


@lru_cache(maxsize=64)
def _lexicon(key: RulesKey) -> _Lexicon:
    phrases = [
        (phrase, name)
        for name, rule in key.rules.findings.items()
        for phrase in [*rule.phrases, *([rule.plural] if rule.plural else [])]
    ]
    by_letter: dict[str, list[tuple[str, str]]] = {}
    for phrase, name in sorted(phrases, key=lambda pair: -len(pair[0])):
        by_letter.setdefault(lowered(phrase[0]), []).append((lowered(phrase[1:]), name))
    pattern = "|".join(
        rf"{re.escape(letter)}(?<!\w.)(?:{'|'.join(f'({_rest(rest)})' for rest, _ in found)})"
        for letter, found in by_letter.items()
    )
    owners = tuple(name for found in by_letter.values() for _, name in found)
    pattern = rf"(?:{pattern})(?!\w)" if owners else NOTHING
    return _Lexicon(re.compile(pattern), re.compile(pattern, re.IGNORECASE), owners)


def _rest(phrase: str) -> str:
    return OPEN_WORDS.join(re.escape(part) for part in phrase.split(" ... "))


def phrase_pattern(rules: RuleSet) -> re.Pattern[str]:
    """One pattern that matches every phrase of a rule set, on word boundaries, longest first."""
    return _lexicon(RulesKey(rules)).any_case


@lru_cache(maxsize=64)
def _normal(key: RulesKey) -> tuple[re.Pattern[str], dict[str, list[str]]] | None:
    """The pattern of the normal phrases, and what each denies; None without any."""
    normal = key.rules.wording.normal
    return (normal_pattern(normal), {folded(phrase): names for phrase, names in normal.items()}) if normal else None


def _denials(sentence: str, text: str, key: RulesKey) -> Iterator[_Mention]:
    """What the normal phrases of a sentence, in lower case ``text``, deny."""
    pattern, denied = _normal(key) or (None, {})
    for phrase in dict.fromkeys(phrases_in(text, pattern)) if pattern else ():
        for name in denied[phrase]:
            absent = Finding(polarity="absent", count=0 if key.rules.findings[name].counted else None)
            yield _Mention(name, absent, sentence[:QUOTED], phrase, restricted=False, side=None)


def _mentions(sentence: str, key: RulesKey) -> tuple[bool, tuple[_Mention, ...], tuple[_Mention, ...]]:
    """Whether a sentence names a finding at all, what it claims of those, and what its normal phrases deny."""
    lexicon, text = _lexicon(key), lowered(sentence)
    hits = list(lexicon.pattern.finditer(text))
    claims = lowered_assertions(text, [hit.span() for hit in hits]) if hits else []
    found: list[_Mention] = []
    for k, (hit, claim) in enumerate(zip(hits, claims, strict=True)):
        if claim.polarity is None:
            continue
        before = text[hits[k - 1].end() if k else 0 : hit.start()]
        after = text[hit.end() : hits[k + 1].start() if k + 1 < len(hits) else len(text)]
        near = near_words(before, after, first=not k, last=k + 1 == len(hits))
        name = lexicon.owner(hit)
        finding, side = _finding(key.rules.findings[name], claim.polarity, near)
        found.append(_Mention(name, finding, _quoted(sentence, hit), claim.cue, claim.restricted, side))
    return bool(hits), tuple(found), tuple(_denials(sentence, text, key))


_often_read = lru_cache(maxsize=4096)(_mentions)
"""The same for short sentences, of which reports and models repeat most."""


def _quoted(sentence: str, hit: re.Match[str]) -> str:
    """The sentence, or of a very long one the words around the phrase."""
    if len(sentence) <= QUOTED:
        return sentence
    return sentence[max(0, hit.start() - QUOTED // 2) : hit.start() + QUOTED // 2].strip()


def _finding(rule: FindingRule, polarity: Polarity, near: Near) -> tuple[Finding, str | None]:
    """The finding, and the side it is claimed or denied on."""
    side = side_of(near, rule.sides) if rule.sides else None
    if polarity == "absent":
        return Finding(polarity="absent", count=0 if rule.counted else None), side
    count = _count(near.before, near.after) if rule.counted else None
    if count == 0:
        return Finding(polarity="absent", count=0), side
    size = nearest_word(rule.sizes, near.clause_before, near.clause_after) if polarity == "present" else None
    return Finding(polarity=polarity, side=side, size=size, count=count), side


def _count(before: str, after: str) -> int | None:
    """The number right before a phrase ("12 red cells") or after its colon ("red cells: 12")."""
    match = re.search(r"(\d{1,6}|[a-z]+)\s*$", before[-32:]) or re.match(r"\s*:\s*(\d{1,6}|[a-z]+)", after)
    if not match:
        return None
    word = match.group(1)
    return int(word) if word.isdigit() else NUMBER_WORDS.get(word)


def _merged(mentions: list[_Mention], rule: FindingRule) -> tuple[Finding, bool]:
    """One finding from all its mentions, and whether they contradict each other."""
    if len(mentions) == 1:
        return mentions[0].finding, False
    present = [m for m in mentions if m.finding.polarity == "present"]
    sides = {m.side for m in mentions if m.finding.polarity != "absent" and m.side}
    two_sided = BILATERAL in sides or BILATERAL in rule.sides
    clash = _denied(mentions, {m.side for m in present}) or (len(sides) > 1 and not two_sided)
    doubtful = not present and any(m.finding.polarity == "uncertain" for m in mentions)
    polarity: Polarity = "uncertain" if clash or doubtful else "present" if present else "absent"
    first: dict[str, Any] = {
        key: next((v for m in mentions if (v := getattr(m.finding, key)) is not None), None)
        for key in ("side", "size", "count")
    }
    if len(sides) > 1 and two_sided:
        first["side"] = BILATERAL
    return Finding(polarity=polarity, **first), clash


def _denied(mentions: list[_Mention], sides: set[str | None]) -> bool:
    """Whether what is said to be there is also denied, and neither only of another kind nor only on another side."""
    return bool(sides) and any(
        m.finding.polarity == "absent"
        and not m.restricted
        and (m.side is None or m.side == BILATERAL or bool(sides & {m.side, BILATERAL, None}))
        for m in mentions
    )


def _with_boxes(findings: dict[str, Finding], boxes: list[tuple[str, Box]], rules: RuleSet) -> dict[str, Finding]:
    lexicon = _lexicon(RulesKey(rules))
    for phrase, box in boxes:
        match = lexicon.pattern.fullmatch(lowered(phrase))
        known = findings.get(lexicon.owner(match)) if match else None
        if match and known is not None:
            findings[lexicon.owner(match)] = known.model_copy(update={"boxes": (*known.boxes, box)})
    return findings
