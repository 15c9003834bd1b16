"""Normal phrases: parts of a sentence by which a report denies many findings at once ("no acute disease").

Which they are and what each denies stands in a rule set's ``wording.normal``. Only a whole part of a sentence counts:
it begins the sentence or follows a stop or a conjunction, and nothing narrows what it says ("in the left lung").
Left out: normal statements about one organ, and in words that the rule set does not list.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from rewards.reading.assertion import lowered, lowered_assertions

AROUND = 48
"""So many characters before a phrase and behind it may hold what its part of the sentence begins and ends with."""
REACH = 160
"""So many characters behind a phrase may hold a cue that takes it back ("..., cannot be confirmed")."""
MASK = "x"
"""What stands for a phrase where cues are looked for: its own "no" is none."""
_STOP = r"[,;:()\"*\u2013\u2014]|(?<= )-(?= )"
_BEGINS = re.compile(
    rf"(?:^|{_STOP}|\b(?:and|but|with|however|otherwise|yet|shows|showing|demonstrates)\b)"
    r"(?:[\W\d]*\W)??(?:there (?:is|are|remains?) |(?:this |it )?(?:is |are )?(?:an? |the )?|essentially )?$"
)
_SEEN = (
    r"(?:seen|identified|noted|present|evident|demonstrated|appreciated|visuali[sz]ed|detected|found|apparent|shown)"
)
_ENDS = re.compile(
    rf" *(?:(?:is |are |was |were |can be )?{_SEEN}\b)? *(?:(?:at|on|in) (?:this|the present|the current) \w+\b)?"
    rf" *(?:$|[.!?]|{_STOP}"
    r"|(?:and|or|nor|but|with|however|though|although|otherwise|except(?:ing)?|aside from|apart from|other than)\b)"
)
# What was seen on an earlier study is no statement about this one, unless that study is only compared with.
_EARLIER = re.compile(r"\b(?:prior|previous|previously|earlier|old|last|outside|history|was|were)\b")
_COMPARED = re.compile(r"\b(?:compar\w+|since|than|from|unchanged|stable)\b")


def phrases_in(text: str, pattern: re.Pattern[str]) -> Iterator[str]:
    """The normal phrases that a sentence in lower case states plainly, in the form of ``folded``.

    >>> pattern = normal_pattern({"No acute disease": ["effusion"]})
    >>> list(phrases_in("heart normal, no acute disease.", pattern)), list(phrases_in("no acute disease?", pattern))
    (['no acute disease'], [])
    """
    for hit in pattern.finditer(text):
        before = text[max(0, hit.start() - AROUND) : hit.start()]
        if hit.start() > AROUND:
            before = MASK + before
        behind = text[hit.end() : hit.end() + REACH]
        if _BEGINS.search(before) and not _is_earlier(before) and _ENDS.match(behind) and _is_plain(behind):
            yield folded(hit.group())


def normal_pattern(normal: Mapping[str, list[str]]) -> re.Pattern[str]:
    """One pattern that matches every phrase in lower-case text: by its first letter, longest first."""
    by_letter: dict[str, list[str]] = {}
    for phrase in sorted(map(folded, normal), key=len, reverse=True):
        by_letter.setdefault(phrase[0], []).append(" +".join(map(re.escape, phrase[1:].split(" "))))
    # Where words begin and end is for ``_BEGINS`` and ``_ENDS``; a search for plain letters skips faster.
    return re.compile("|".join(f"{re.escape(x)}(?:{'|'.join(rest)})" for x, rest in by_letter.items()))


def folded(phrase: str) -> str:
    """A phrase in lower case with single spaces, by which it is looked up."""
    return " ".join(lowered(phrase).split())


def _is_earlier(before: str) -> bool:
    return _EARLIER.search(before) is not None and _COMPARED.search(before) is None


@lru_cache(maxsize=4096)
def _is_plain(behind: str) -> bool:
    """Whether nothing behind a phrase denies or doubts it."""
    assertion = lowered_assertions(MASK + behind, [(0, len(MASK))])[0]
    return assertion.polarity == "present"
