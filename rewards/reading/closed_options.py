"""Which of several options an answer chooses: word order, negation, synonyms, and the last conclusion.

An answer in sentences is read from its last conclusion ("In summary, ..."), else as a whole; two options asserted, a
doubt or a refusal are no choice, and the reason is given. Reading itself is ``rewards.rules.symbols``.
Left out: guessing between options that an answer names side by side, and the log-probabilities of options.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rewards.answers.final_answer import answer_region
from rewards.rules.nodes import Answer, Node, Pool
from rewards.rules.stages import Scale
from rewards.rules.symbols import read_symbol

PRESENT, ABSENT = "present", "absent"
BARE_ANSWERS = {
    **dict.fromkeys(("yes", "present", "positive", "true", "y", "seen", "visible"), PRESENT),
    **dict.fromkeys(
        ("no", "absent", "negative", "false", "n", "none", "not present", "not seen", "not visible"), ABSENT
    ),
}
"""Answers of a word or two that are a choice in themselves."""
GENERIC = frozenset({"amd", "stage", "disease", "the", "a"})
"""Words that do not tell one option from another, wherever they stand among those that do."""
GAP = r"[\s,()/:-]{1,3}"
CONCLUSION = re.compile(
    r"\b(?:in (?:conclusion|summary|short)|to (?:conclude|sum up)|conclusion|overall(?: stage)?"
    r"|final(?:ly)?(?: answer)?|therefore|hence|thus|consequently"
    r"|(?:the )?(?:most likely )?(?:stage|grade|diagnosis|answer|recommendation) is"
    r"|(?:stage|answer|recommendation|referral)(?=\s*:))\b"
)


@dataclass(frozen=True)
class Choice:
    """What an answer chooses. ``option`` is None where it chooses none or more than one, and ``reason`` says why."""

    option: str | None
    reason: str = ""


def chosen(text: str, options: Node) -> Choice:
    """The option that a text chooses.

    >>> from rewards.rules.guidelines import together
    >>> stages = level_options(together(("retina_amd@1",))[0].scales["stage"])
    >>> chosen("Late wet AMD, active.", stages).option
    'active late wet AMD'
    >>> chosen("Not early or intermediate; it is late dry.", stages).option
    'late dry AMD'
    >>> chosen("Early or intermediate.", stages)
    Choice(option=None, reason='ambiguous')
    """
    region = answer_region(text)
    bare = re.sub(r"[\s.!]+", " ", region).strip().casefold()
    if bare in BARE_ANSWERS and BARE_ANSWERS[bare] in options.answers:
        return Choice(BARE_ANSWERS[bare])
    plain = in_order(region, options)
    ends = [match.end() for match in CONCLUSION.finditer(plain.casefold())]
    if ends:
        last = _read(plain[ends[-1] :].lstrip(" ,:"), options)
        if last.option or last.reason not in ("empty", "unparsed"):
            return last
    return _read(plain, options)


def _read(text: str, options: Node) -> Choice:
    reading = read_symbol(text, options)
    return Choice(reading.stated, "" if reading.stated else "denied" if reading.kind == "not" else reading.kind)


def in_order(text: str, options: Node) -> str:
    """The text with the words of each option in the option's own order, wherever they stand together.

    >>> from rewards.rules.guidelines import together
    >>> in_order("AMD, wet, late, active", level_options(together(("retina_amd@1",))[0].scales["stage"]))
    'active late wet AMD'
    """
    run, owners = _runs(tuple(options.answers))
    if run is None:
        return text

    def named(match: re.Match[str]) -> str:
        return owners.get(_content(match.group()), match.group())

    return run.sub(named, text)


def _content(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", name.casefold())) - GENERIC


@lru_cache(maxsize=64)
def _runs(names: tuple[str, ...]) -> tuple[re.Pattern[str] | None, Mapping[frozenset[str], str]]:
    """A pattern of words of option names side by side, and the option whose words they are."""
    owners = {_content(name): name for name in names if len(_content(name)) > 1}
    words = {word for name in names for word in _content(name)} | (GENERIC - {"the", "a"})
    if not owners:
        return None, owners
    word = rf"(?:{'|'.join(sorted(map(re.escape, words)))})"
    return re.compile(rf"(?<!\w){word}(?!\w)(?:{GAP}{word}(?!\w)\)?)+", re.IGNORECASE), owners


def level_options(scale: Scale) -> Node:
    """The levels of a scale as options, each read from its name and its phrases."""
    return _node({level.name: [level.name, *level.phrases] for level in scale.levels})


def _node(phrases: Mapping[str, Sequence[str]]) -> Node:
    nothing = Pool(train=["?"], test=["?"])
    answers = {name: Answer(phrases=list(words), say=nothing) for name, words in phrases.items()}
    return Node(gloss="options", ask=nothing, answers=answers)
