"""Assertion: whether a sentence says that what it names is there, is not there, or may be there.

Cues hold forwards ("no ...", "possible ...") or backwards ("... has resolved", "... cannot be excluded") as far as the
clause reaches, after NegEx (Chapman et al. 2001) and ConText (Harkema et al. 2009); which they are: `answers.cues`.
One pass over the words finds the cues, one in each direction gives them to the spans: linear time on any text.
Kept by hand: the packages that hold NegEx and ConText (negspacy, medspacy) are pipes of spaCy, a parser and its models
beside a reward that reads a report in a millisecond.
Left out: syntax. "No effusion, nodule" is read as a list of two, since nothing but meaning tells it from a list.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from rewards.answers.cues import LIST_END, REPORT_CUES, RESTRICTED
from rewards.rules.facts import Polarity

Span = tuple[int, int]
"""(start, end) of a phrase in a sentence, half-open."""

NEAR = 48
"""How many characters before a phrase may hold the adjectives that belong to it."""


@dataclass(frozen=True)
class Assertion:
    """What a sentence says of one span.

    ``polarity``: None where it is named without a claim ("history of", "evaluate for"). ``cue``: the words that
    decided, empty where it is plainly stated. ``restricted``: only some of its kind are denied ("no large effusion").
    """

    polarity: Polarity | None = "present"
    cue: str = ""
    restricted: bool = False


@dataclass(frozen=True)
class _Cue:
    kind: str
    start: int
    end: int

    @property
    def opens(self) -> bool:
        """Whether it holds for what follows."""
        return self.kind == "not_asserted" or self.kind.endswith(("_before", "_around"))

    @property
    def closes(self) -> bool:
        """Whether it holds for what stands before it."""
        return self.kind.endswith(("_after", "_around"))


def _ends(held: _Cue, cue: _Cue) -> bool:
    """Whether a cue that holds stops holding at ``cue``: an alternative ("versus") is bound to its next neighbours."""
    if held.kind.endswith("_around") and (cue.kind == "comma" or cue.opens):
        return True
    return cue.kind in ("end", "list_end") or (cue.kind == "end_of_denial" and held.kind.startswith("absent"))


@cache
def _pattern() -> re.Pattern[str]:
    kinds = "|".join(rf"(?P<{kind}>{cues})" for kind, cues in REPORT_CUES.items())
    marks = rf"(?P<list_end>{LIST_END})|(?P<possible_query_around>\?)|(?P<comma>,)"
    return re.compile(rf"(?:\b|(?=[:?]))(?:{kinds})(?!\w)|{marks}")


def lowered_assertions(text: str, spans: Sequence[Span]) -> list[Assertion]:
    """What one sentence, which `lowered` made, says of each span; the spans are in order and do not overlap.

    >>> said = lowered_assertions("no effusion but possible nodule", [(3, 11), (25, 31)])
    >>> [(a.polarity, a.cue) for a in said]
    [('absent', 'no'), ('uncertain', 'possible')]
    """
    cues = [_Cue(m.lastgroup or "", *m.span()) for m in _pattern().finditer(text)]
    before, after = _before(text, spans, cues), _after(spans, cues)
    last_ends = [0, *(end for _, end in spans)]
    return [
        _decided(text, span, _clause_words(text, last_end, span[0]), *pair)
        for span, last_end, *pair in zip(spans, last_ends, before, after, strict=False)
    ]


def lowered(text: str) -> str:
    r"""The text in lower case with every character in its place, blanks as spaces.

    >>> lowered("NO\tNodule")
    'no nodule'
    """
    return text.replace("\u0130", "I").lower().replace("\n", " ").replace("\t", " ").replace("\u2019", "'")


def _before(text: str, spans: Sequence[Span], cues: list[_Cue]) -> Iterator[_Cue | None]:
    """For each span the cue before it, or in it, that reaches it."""
    held: _Cue | None = None
    k, last = 0, 0
    for _, end in spans:
        while k < len(cues) and cues[k].start < end:
            held = _held(text, held, cues[k], last)
            k += 1
        yield held
        last = end


def _held(text: str, held: _Cue | None, cue: _Cue, last_span: int) -> _Cue | None:
    """The cue that holds after ``cue``; doubt within a negation ("no findings suspicious for") is no doubt."""
    if held is None or _ends(held, cue):
        return cue if cue.opens else None
    if held.kind == "not_asserted" and cue.kind.startswith("possible"):
        return held
    if cue.opens:
        doubt = held.kind == "absent_before" and cue.kind != "absent_before" and last_span <= held.start
        return held if doubt and not _comma(text, held.end, cue.start) else cue
    return held


def _after(spans: Sequence[Span], cues: list[_Cue]) -> list[_Cue | None]:
    """For each span the cue behind it that reaches back to it."""
    held: _Cue | None = None
    found: list[_Cue | None] = []
    k = len(cues) - 1
    for start, end in reversed(spans):
        while k >= 0 and cues[k].start >= end:
            if cues[k].closes:
                held = cues[k]
            elif held and _ends(held, cues[k]):
                held = None
            k -= 1
        while k >= 0 and cues[k].start >= start:
            k -= 1
        found.append(held)
    return found[::-1]


def _clause_words(text: str, last_end: int, start: int) -> str:
    """The words before a phrase that belong to it alone: since the phrase before and the last comma."""
    return text[max(last_end, start - NEAR) : start].rpartition(",")[2]


def _decided(text: str, span: Span, clause: str, before: _Cue | None, after: _Cue | None) -> Assertion:
    if before and before.kind == "not_asserted":
        return Assertion(None, _words(text, before))
    denied = before is not None and before.kind == "absent_before"
    if after and after.kind == "absent_after" and not denied:
        return Assertion("absent", _words(text, after))
    if (
        after
        and after.kind.startswith("possible")
        and (before is None or not denied or _comma(text, before.end, span[0]))
    ):
        return Assertion("uncertain", _words(text, after))
    if before is None:
        return Assertion()
    if not denied:
        return Assertion("uncertain", _words(text, before))
    return Assertion("absent", _words(text, before), restricted=RESTRICTED.search(clause) is not None)


def _comma(text: str, start: int, end: int) -> bool:
    """Whether a comma stands between, not looking further back than the near words."""
    return "," in text[max(start, end - 2 * NEAR) : end]


def _words(text: str, cue: _Cue) -> str:
    return text[cue.start : cue.end].strip(" :,")
