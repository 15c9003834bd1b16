"""Checks on a generated question and answer: length, leaks, sources, refusals, near-duplicates, contradiction.

Each check says in a few words why an item is rejected. Left out: judging style.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from rewards.llm.item_lists import Item, is_refusal
from rewards.reading.reading import read
from rewards.rules.compare import compare
from rewards.rules.facts import Facts
from rewards.rules.rule_set import load_rule_set

WORD = re.compile(r"\w+(?:[.,]\d+)?", re.UNICODE)
SOURCE_WORDS = ("description", "described", "report", "reported", "mentioned", "mention", "specified", "according to")
HABITUAL = frozenset(
    WORD.findall(
        "a an the is are was were be been there any of in on at to for and or no not yes it this that these with "
        "without do does did you see seen show shows shown image scan what which where how many much can could"
    )
)


@dataclass(frozen=True)
class ItemChecks:
    """Which checks an item must pass. ``tokens`` counts an answer's length (words by default).

    ``leak``: largest share of an answer's telling words that may stand in its question. ``similar``: largest Jaccard
    similarity of word triples to an earlier item. ``facts``: the image's truth, which no answer may contradict.
    """

    max_tokens: int = 400
    min_tokens: int = 1
    source_words: tuple[str, ...] = SOURCE_WORDS
    leak: float = 0.8
    similar: float = 0.8
    facts: Facts | None = None
    tokens: Callable[[str], int] = lambda text: len(WORD.findall(text))

    def __call__(self, item: Item, kept: list[Item]) -> str | None:
        """Why the item is rejected, or None.

        >>> ItemChecks()(Item("What does the report say?", "A nodule."), [])
        "names its source: 'report'"
        """
        length = self.tokens(item.answer)
        source = source_word(f"{item.question} {item.answer}", self.source_words)
        reasons = {
            "refusal": is_refusal(item.answer),
            f"shorter than {self.min_tokens} tokens": length < self.min_tokens,
            f"longer than {self.max_tokens} tokens": length > self.max_tokens,
            f"names its source: '{source}'": source is not None,
            "the question gives the answer away": leak(item) > self.leak,
            "contradicts the findings": self.facts is not None and contradicts(item, self.facts),
            "near-duplicate": any(similarity(item, other) > self.similar for other in kept),
        }
        return next((reason for reason, holds in reasons.items() if holds), None)


def source_word(text: str, words: tuple[str, ...] = SOURCE_WORDS) -> str | None:
    """The first word that betrays that there was a text beside the image; whole words, any case."""
    hit = re.search(rf"\b(?:{'|'.join(map(re.escape, words))})\b", text, re.IGNORECASE) if words else None
    return hit.group().casefold() if hit else None


def leak(item: Item) -> float:
    """Share of the answer's telling words that already stand in the question, in [0, 1].

    Zero for answers that take a side ("yes", "no ...") or choose among offered options ("left or right?"), whose words
    must stand in the question.

    >>> leak(Item("Where is the large left nodule?", "Large left nodule.")), leak(Item("Is it left?", "Yes, left."))
    (1.0, 0.0)
    """
    words = [w.casefold() for w in WORD.findall(item.answer)]
    if not words or words[0] in ("yes", "no") or re.search(r"\bor\b", item.question, re.IGNORECASE):
        return 0.0
    telling = {w for w in words if w not in HABITUAL}
    question_words = {w.casefold() for w in WORD.findall(item.question)}
    return len(telling & question_words) / len(telling) if telling else 0.0


def similarity(a: Item, b: Item) -> float:
    """Jaccard similarity of the word triples of two items, in [0, 1]; 1 where both are equal but for form."""
    first, second = _triples(a), _triples(b)
    return len(first & second) / len(first | second) if first | second else 1.0


def _triples(item: Item) -> set[tuple[str, ...]]:
    words = [w.casefold() for w in WORD.findall(f"{item.question} | {item.answer}")]
    return {tuple(words[k : k + 3]) for k in range(max(1, len(words) - 2))} if words else set()


def contradicts(item: Item, facts: Facts) -> bool:
    """True if the answer claims a finding that the truth denies or places elsewhere, or denies one that is there.

    What the truth does not know contradicts nothing. A bare "yes" or "no" is read as saying or denying what the
    question asks.
    """
    stated = read(_statement(item), load_rule_set(facts.rule_set)).facts
    found = compare(facts, stated, unsupported="ignore")
    denied = [n for n in found.omissions if n in stated.findings and stated.findings[n].polarity == "absent"]
    return bool(found.hallucinations or denied)


def _statement(item: Item) -> str:
    """The answer, with the question turned into a statement before it where the answer is yes or no."""
    bare = re.fullmatch(r"\W*(yes|no)\b[\s,.:;-]*(.*)", item.answer, re.IGNORECASE | re.DOTALL)
    if not bare:
        return item.answer
    claim = item.question.replace("?", "")
    claim = re.sub(
        r"^\W*(?:is|are|does|do|can|has|have)\b(?: there| you see| the image show)?(?: any)?", "", claim, flags=re.I
    )
    statement = f"There is {claim.strip()}." if bare.group(1).casefold() == "yes" else f"There is no {claim.strip()}."
    return f"{statement} {bare.group(2)}"
