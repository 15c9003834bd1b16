"""Assertion: whether a sentence says that what it names is there, is not there, or may be there.

Cues hold forwards ("no ...", "possible ...") or backwards ("... has resolved", "... cannot be excluded") as far as the
clause reaches, after NegEx (Chapman et al. 2001) and ConText (Harkema et al. 2009); the cue lists are our own.
One pass over the words finds the cues, one in each direction gives them to the spans: linear time on any text.
Left out: syntax. "No effusion, nodule" is read as a list of two, since nothing but meaning tells it from a list.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from rewards.rules.facts import Polarity

Span = tuple[int, int]
"""(start, end) of a phrase in a sentence, half-open."""

# Between a cue and what it holds for: "no *significant interval* change". At most three, so that time stays linear.
_VERY = (
    r"(?:(?:significant|interval|acute|definite|substantial|appreciable|major|large|further|obvious|new)(?:ly)? ){0,3}"
)
# Between "not" and its verb: "not *completely* resolved", "cannot be *entirely* excluded".
_FULLY = r"(?:(?:completely|entirely|fully|definitely|definitively|totally|confidently|yet|currently|clearly) ){0,2}"
# Before a participle or an adjective: "effusion *is* absent", "effusion *remains* possible".
_BE = r"(?:is|are|was|were|be|been|being|appears?|remains?)"
# With "not" a denial, "not seen"; without it nothing but a statement.
_SEEN = (
    r"(?:seen|present|identified|visible|visuali[sz]ed|demonstrated|evident|appreciated|detected|observed|found|noted"
    r"|apparent|shown|suspected|recogni[sz]ed|appreciable|there)"
)
# Was there and is not: after "has" a denial, after "has not" a statement that it is there.
_GONE = r"(?:resolved|cleared|disappeared|regressed completely|gone away)"
# Between "has" and what is gone: "has *since completely* resolved".
_SINCE = r"(?:(?:since|now|also|completely|entirely|fully|largely|subsequently|been|interval) ){0,3}"
# Another film: what was "not seen on the prior" is on this one.
_PRIOR = r"(?:on|in|at) (?:the |any |his |her )?(?:prior|previous|earlier|old|lateral|frontal|comparison)"
# "No change" speaks of the course, and leaves the finding there.
_CHANGE = (
    r"(?:changed?|increased?|decreased?|improve(?:ment|d)|progress(?:ion|ed)|worsen(?:ing|ed)|difference|different)"
)

_CUES: dict[str, str] = {
    # Holds for nothing: words that look like a negation and are none.
    "neutral": rf"(?:no|without|not) (?:any )?{_VERY}{_CHANGE}"
    rf"|not {_SEEN} {_PRIOR}|not (?:as |so )?(?:well|clearly|optimally|fully) {_SEEN}|no doubt|not only|not necessarily"
    r"|no (?:prior|previous|comparison)|not (?:compared|included|imaged|evaluated|assessed)"
    rf"|(?:ha[sd]|have) not {_FULLY}{_GONE}|not {_FULLY}{_GONE}|(?:no|not|without) (?:absen(?:t|ce of)|resolution of)"
    r"|(?:partial|incomplete|near|near complete|nearly complete|improvement/) ?resolution of"
    r"|(?:compatible|consistent|associated|keeping|correlat\w+) with"
    r"|(?:partially|incompletely|nearly|almost|not) (?:completely )?resolved|more likely than not",
    # Behind the finding, in doubt: "effusion cannot be excluded", "effusion is suspected"; not "is likely due to".
    "possible_after": r"(?:cannot|can not|can't|could not|couldn't|not|never) (?:be )?"
    rf"{_FULLY}(?:be )?{_FULLY}(?:excluded|ruled out)|(?:difficult|hard|impossible) to {_FULLY}(?:exclude|rule out)"
    rf"(?= *[.,]|$)|{_BE} (?:also |still |thought |felt |considered )?(?:not )?(?:less |more |most )?"
    r"(?:possible|suspected|likely|questionable|questioned|uncertain|equivocal|unlikely|doubtful|probable|queried)"
    r"(?! (?:to|due|represent\w*|reflect\w*|related|secondary|from|for|because|on|that))"
    rf"|(?:may|might|could) (?:also |still )?(?:be {_SEEN}|persist|exist)"
    r"|(?:felt |considered )?less likely(?= *[.,)]|$)"
    rf"|(?:not|never|neither) confirmed|suspected(?= *[.,;]|$)"
    rf"|(?:{_BE}|would be) (?:also )?a (?:possibility|consideration|concern|question)",
    # Between two alternatives, of which each is in doubt: "atelectasis versus pneumonia".
    "possible_around": r"versus|vs\.?",
    # Behind the finding, denied: "effusion has resolved", "effusion: none", "effusion not seen".
    "absent_after": rf"{_BE} (?:now |all |also |both )?(?:absent|negative|gone|resolved)"
    rf"|(?:{_BE} )?(?:not|never|no longer) {_FULLY}(?:be )?{_SEEN}|(?:{_BE} )?(?:no longer)"
    rf"|(?:has|have|had) {_SINCE}{_GONE}|{_BE} (?:been )?(?:ruled out|excluded)"
    r"|(?:have|has) been (?:removed|ruled out|excluded)"
    r"|(?:now|since|interval(?:ly)?) (?:resolved|cleared|gone|absent)|none (?:seen|present|identified|visible)"
    r"|ruled out"
    r"|: (?:none|absent|negative(?! for)|no(?= *(?:[.,;)]|$)))|(?:absent|negative|resolved)(?= *(?:[.,;)]|$))",
    # Named and not claimed at all: "history of pneumonia", "evaluate for effusion", "if there is".
    "not_asserted": r"(?:past |prior |previous |known |remote |clinical |medical ){0,6}(?:history|hx) (?:of|for)|h/o|hx"
    r"|(?:to |please )?(?:evaluate|assess|evaluation|assessment|look|looking|check|screen|screening) for"
    r"|(?:clinical|any|strong) (?:concern|suspicion) (?:for|of)|risk (?:of|for)|if (?:there|clinical\w*|symptoms)"
    r"|(?:treated|treatment|therapy) for|negative predictive",
    # Before the finding, in doubt: "possible nodule", "cannot exclude effusion", "suspicious for".
    "possible_before": rf"(?:cannot|can not|can't|could not|not|to|unable to|impossible to|difficult to) {_FULLY}"
    r"(?:exclude|rule out)|rule out|r/o|possibl[ey]|possibility (?:of|for)|probabl[ey]|may|might|could"
    r"|suspect(?:ed)?"
    r"|suspicious for|suspicion (?:of|for)|questionable|questioned|question|query|uncertain|equivocal|perhaps"
    r"|concern(?:ing)? (?:for|of|about)|worrisome for|worry for|presumed|presumably|unlikely|likely|doubtful"
    r"|suggest(?:s|ing|ed|ive)?(?: of)?|potential(?:ly)?|conceivabl[ey]|either|differential (?:includes|diagnosis)"
    r"|less likely|cannot be certain|consider(?:ations?)?|correlat\w+ (?:clinically )?for|unclear (?:whether|if)"
    r"|(?:appropriate|proper|right|correct) clinical setting|concern is for|differential",
    # Before the finding, denied: "no effusion", "free of", "resolution of", "rather than pneumonia".
    "absent_before": r"no|not|without|w/o|nor|neither|never|absence of|absent|lack of|lacks|lacking|free (?:of|from)"
    r"|clear of|negative for|denie[sd]|denying|rather than|instead of|as opposed to|resolution of|disappearance of"
    r"|(?:interval |now |previously )?resolved|(?:interval )?(?:removal|clearing) of|ruled out|rules out|excludes?"
    r"|excluded|(?:cannot|can not|unable to) (?:see|identify|find|detect|appreciate)"
    r"|fail(?:s|ed)? to (?:show|demonstrate|reveal|identify)|argues? against|nonvisuali[sz]ation of|against",
    # A cause is not denied with what it causes: "no collapse due to effusion" has the effusion.
    "end_of_denial": r"secondary to|due to|related to|because",
    # A new clause, in which no earlier cue holds: "no effusion *but* a nodule", "*there is*", "*and the*".
    "end": r"but|however|although|though|except(?:ing)?|aside from|apart from|other than|besides|yet|whereas|while"
    r"|there (?:is|are|was|were|has|have)|with|which"
    r"|(?:and|then) (?:the|there|a|an|also|stable|unchanged|mild\w*|minimal\w*|moderate\w*|persist\w+|heart|lungs"
    r"|degenerative|old|chronic|cardiomegaly)",
}
# A list of denials ends where a comma opens a statement: "no effusion, *the* nodule is stable"; "(" and ";" too.
_LIST_END = (
    r", (?:and )?(?:the|there|this|these|it|stable|unchanged|persist\w+|mild\w*|minimal\w*|moderate\w*|old|chronic"
    r"|again|heart|lungs?|healed|calcified|otherwise|now|prior|remote|borderline)\b|;| - |\[|\]|\("
    r"|\b(?:seen|identified|noted|demonstrated|evident|appreciated|visuali[sz]ed),(?! (?:and |or )?no\b)"
)
# "No large effusion" denies the large ones only: such adjectives before a denied finding restrict the denial.
_RESTRICTED = re.compile(
    r"\b(?:large|new|acute(?:ly)?|suspicious|displaced|significant|other|additional|further|increasing|enlarging|worsening"
    r"|superimposed|developing|recurrent|definite|obvious|focal|discrete|sizable|overt|confluent|lobar|dominant|gross"
    r"|active|frank|discernible|convincing|substantial|measurable|tension|severe|noncalcified|non-calcified|progressive)\b"
)
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
    kinds = "|".join(rf"(?P<{kind}>{cues})" for kind, cues in _CUES.items())
    marks = rf"(?P<list_end>{_LIST_END})|(?P<possible_query_around>\?)|(?P<comma>,)"
    return re.compile(rf"(?:\b|(?=[:?]))(?:{kinds})(?!\w)|{marks}")


def assertions(sentence: str, spans: Sequence[Span]) -> list[Assertion]:
    """What one sentence says of each span; the spans are in order and do not overlap.

    >>> said = assertions("No effusion but possible nodule", [(3, 11), (25, 31)])
    >>> [(a.polarity, a.cue) for a in said]
    [('absent', 'no'), ('uncertain', 'possible')]
    """
    return lowered_assertions(lowered(sentence), spans)


def lowered_assertions(text: str, spans: Sequence[Span]) -> list[Assertion]:
    """`assertions` for a sentence that `lowered` made."""
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
    return Assertion("absent", _words(text, before), restricted=_RESTRICTED.search(clause) is not None)


def _comma(text: str, start: int, end: int) -> bool:
    """Whether a comma stands between, not looking further back than the near words."""
    return "," in text[max(start, end - 2 * NEAR) : end]


def _words(text: str, cue: _Cue) -> str:
    return text[cue.start : cue.end].strip(" :,")
