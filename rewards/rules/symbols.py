"""The answer to one node read as a symbol, by the phrases of its answers, with negation and uncertainty.

One pass over the text, in linear time. A cue holds to the end of its clause; a negation reaches forward, uncertainty
covers the clause. What the clinician is quoted as saying is no answer. Left out: meaning beyond the lexicon, and
conclusions by elimination ("neither blood nor clot" is unparsed).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from rewards.answers.cues import ANSWER_CUES
from rewards.answers.final_answer import answer_region
from rewards.rules.nodes import Node

Kind = Literal["symbol", "not", "ambiguous", "hedged", "refused", "empty", "unparsed"]

ROLE_MARK = re.compile(
    r"(?:^|\n)[ \t]{0,4}(?:user|human|assistant|system|clinician)\s*:|<\|im_|</?s>|\[/?INST\]", re.IGNORECASE
)
OPENING = re.compile(r"\W{0,8}(?P<word>yes|no|agreed|i (?:fully )?agree|i (?:disagree|do not agree|don't agree))\b")
BARE = re.compile(r"\s*(?:[,.;:!]|$|with (?:you|the clinician|that)\b)")
NONE = r": (?:none|no|absent|negative)(?=\s*(?:[.,;]|$))"
END = r"[.!?;](?=\s|$)|:(?=\s)|,(?= (?:it|this|these|there|the|i|we|which|only|just)\b)"
MARKS = str.maketrans({"’": "'", "‘": "'", "–": "-", "‑": "-", "—": ";"})
LINKS = frozenset({"", "and", "or", "nor", "and the", "or the", "and a", "or a"})
LONGEST_LINK = 12


@dataclass(frozen=True)
class SymbolReading:
    """What an answer says. ``symbol``: what is stated (``symbol``) or denied (``not``). ``words``: read from these."""

    kind: Kind
    symbol: str | None = None
    words: tuple[str, ...] = ()

    @property
    def stated(self) -> str | None:
        """The symbol, where one is stated."""
        return self.symbol if self.kind == "symbol" else None


@dataclass
class _Hit:
    symbol: str
    words: str
    start: int
    end: int
    denied: bool


@dataclass
class _Clause:
    hits: list[_Hit] = field(default_factory=list[_Hit])
    negating: bool = False
    hedged: bool = False
    refused: bool = False
    quoted: bool = False


def read_symbol(text: str, node: Node, *, claim: str | None = None) -> SymbolReading:
    """The symbol that a text states for a node.

    ``claim``: the symbol that the clinician suggested for this node, to which a bare yes or no then answers.

    >>> from rewards.dialogues.dialogue import decision_of
    >>> diagnosis = decision_of("ecg_mi").nodes["diagnosis"]
    >>> read_symbol("Not a STEMI.", diagnosis).kind, read_symbol("This is an NSTEMI.", diagnosis).symbol
    ('not', 'nstemi')
    """
    if ROLE_MARK.search(text):
        return SymbolReading("unparsed")
    plain = _plain(answer_region(text))
    if not re.search(r"\w", plain):
        return SymbolReading("empty")
    opinion, rest = _opening(plain, node, claim)
    clauses = list(_clauses(rest, node))
    hits = [hit for clause in clauses if not (clause.hedged or clause.refused) for hit in clause.hits]
    asserted = {hit.symbol for hit in hits if not hit.denied}
    denied = {hit.symbol for hit in hits if hit.denied}
    doubted = {hit.symbol for clause in clauses if clause.hedged or clause.refused for hit in clause.hits}
    if opinion:
        (denied if opinion.denied else asserted).add(opinion.symbol)
    refused = any(clause.refused for clause in clauses)
    words = tuple(hit.words for clause in clauses for hit in clause.hits) + ((opinion.words,) if opinion else ())
    kind, symbol = _resolved(node, asserted, denied, doubted, refused)
    return SymbolReading(kind, symbol, words)


def _resolved(
    node: Node, asserted: set[str], denied: set[str], doubted: set[str], refused: bool
) -> tuple[Kind, str | None]:
    if len(asserted) > 1 or asserted & denied or (asserted and doubted - asserted):
        return "ambiguous", None
    if asserted:
        return ("hedged", None) if refused else ("symbol", next(iter(asserted)))
    if refused:
        return "refused", None
    if doubted:
        return "hedged", None
    return _by_denial(node, denied)


def _by_denial(node: Node, denied: set[str]) -> tuple[Kind, str | None]:
    """What denials alone say: the symbol that they state, or that one symbol is not so."""
    stated = {node.answers[symbol].negated if symbol in node.answers else None for symbol in denied}
    if len(stated) == 1 and (symbol := next(iter(stated))) is not None and symbol not in denied:
        return "symbol", symbol
    return ("not", next(iter(denied))) if len(denied) == 1 else ("unparsed", None)


def _plain(text: str) -> str:
    """The text on one line, its line ends as ends of sentences, its typographic marks as plain ones."""
    lines = (" ".join(line.split()) for line in text.translate(MARKS).splitlines())
    return " . ".join(line for line in lines if line)


def _opening(text: str, node: Node, claim: str | None) -> tuple[_Hit | None, str]:
    """What a yes or no at the beginning states, if anything, and the rest of the text."""
    match = OPENING.match(text.casefold())
    if not match or not BARE.match(text, match.end()):
        return None, text
    word, rest = match["word"], text[match.end() :]
    agrees = word in ("yes", "agreed") or (word.endswith(" agree") and not re.search("not|n't", word))
    if claim is not None:
        return _Hit(claim, word, 0, match.end(), not agrees), rest
    symbol = (node.if_yes if agrees else node.if_no) if word in ("yes", "no") else None
    return (_Hit(symbol, word, 0, match.end(), denied=False) if symbol else None), rest


def _clauses(text: str, node: Node) -> Iterator[_Clause]:
    """The clauses of a text with the phrases found in each."""
    pattern, owners = _lexicon(tuple((phrase, s) for s, phrases in node.lexicon.items() for phrase in phrases))
    clause = _Clause()
    for match in pattern.finditer(text):
        kind = match.lastgroup
        if kind == "phrase":
            words = match.group()
            clause.hits.append(_Hit(owners[words.casefold()], words, match.start(), match.end(), clause.negating))
        elif kind in ("end", "turn"):
            clause.hedged |= match.group() == "?"
            yield _heard(clause)
            clause = _following(clause, match.group())
        else:
            _cue(clause, kind or "", text)
    yield _heard(clause)


def _following(clause: _Clause, sign: str) -> _Clause:
    """The next clause. What comes before a colon or comma without naming anything speaks of what follows."""
    if not clause.hits and sign == ":":
        return _Clause(negating=clause.negating, hedged=clause.hedged, refused=clause.refused, quoted=clause.quoted)
    if not clause.hits and sign == ",":
        return _Clause(hedged=clause.hedged, refused=clause.refused)
    return _Clause()


def _heard(clause: _Clause) -> _Clause:
    return _Clause() if clause.quoted else clause


def _cue(clause: _Clause, kind: str, text: str) -> None:
    if kind == "negation":
        clause.negating = True
    elif kind == "hedge":
        clause.hedged = True
    elif kind == "refuse":
        clause.refused = True
    elif kind == "echo":
        clause.quoted = True
    elif kind in ("after", "none"):
        clause.negating |= not clause.hits
        _deny_last(clause.hits, text)


def _deny_last(hits: list[_Hit], text: str) -> None:
    """Denies the last phrase and those that are listed with it ("blasts and plasma cells are absent")."""
    for k in range(len(hits) - 1, -1, -1):
        if hits[k].denied:
            return
        hits[k].denied = True
        gap = text[hits[k - 1].end : hits[k].start] if k and hits[k].start - hits[k - 1].end <= LONGEST_LINK else "-"
        if gap.strip(" ,").casefold() not in LINKS:
            return


@lru_cache(maxsize=256)
def _lexicon(phrases: tuple[tuple[str, str], ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    """One pattern of all phrases (longest first) and cues, and the symbol of each phrase."""
    longest_first = sorted({_plain(phrase) for phrase, _ in phrases}, key=lambda phrase: (-len(phrase), phrase))
    listed = "|".join(re.escape(phrase) for phrase in longest_first)
    cues = "|".join(rf"(?P<{name}>(?:{cue})(?!\w))" for name, cue in ANSWER_CUES.items())
    pattern = rf"(?P<none>{NONE})|(?P<end>{END})|(?<!\w)(?:(?P<phrase>(?:{listed})(?!\w))|{cues})"
    return re.compile(pattern, re.IGNORECASE), {_plain(phrase).casefold(): symbol for phrase, symbol in phrases}
