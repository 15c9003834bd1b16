"""Facts against facts: what a text claims, beside what is true."""

from dataclasses import dataclass

from rewards.rules.facts import Facts, Unsupported
from rewards.rules.rule_set import load_rule_set


@dataclass(frozen=True)
class Comparison:
    """Names of findings. Findings that the truth calls uncertain are not judged.

    A claim of one side is right where the truth is ``bilateral``; a claim of both sides is not where it is one.
    ``claims``: said to be there. ``hallucinations``: claims that the truth denies, places on the other side, or does
    not know. ``unsupported``: claims that the truth does not know. Where these are ignored they are no claims and no
    hallucinations, and are listed here all the same. ``true_findings``: are there. ``found``: are there and claimed,
    on the right side. ``omissions``: are there and denied or left out (a wrong side is a hallucination and no find,
    but no omission). What is denied and not known is in none of them.
    """

    claims: tuple[str, ...]
    hallucinations: tuple[str, ...]
    true_findings: tuple[str, ...]
    found: tuple[str, ...]
    omissions: tuple[str, ...]
    unsupported: tuple[str, ...] = ()


def compare(truth: Facts, claimed: Facts, *, unsupported: Unsupported | None = None) -> Comparison:
    """The claims of ``claimed`` judged by ``truth``.

    ``unsupported``: what a claim that the truth does not know counts as; None: what the truth's rule set says.
    """
    counted = (unsupported or load_rule_set(truth.rule_set).unsupported) == "wrong"
    known = {name: f for name, f in truth.findings.items() if f.polarity != "uncertain"}
    present = claimed.present()
    unknown = tuple(name for name in present if name not in truth.findings)
    claims = {name: f for name, f in present.items() if name in known or (counted and name in unknown)}
    wrong_side = {
        n for n, f in claims.items() if n in known and known[n].side not in (None, f.side, "bilateral") and f.side
    }
    false = {n for n in claims if n not in known or known[n].polarity == "absent"} | wrong_side
    true = [n for n, f in known.items() if f.polarity == "present"]
    return Comparison(
        claims=tuple(claims),
        hallucinations=tuple(n for n in claims if n in false),
        true_findings=tuple(true),
        found=tuple(n for n in true if n in claims and n not in false),
        omissions=tuple(n for n in true if n not in claims),
        unsupported=unknown,
    )


def claims_nothing(truth: Facts, claimed: Facts) -> bool:
    """Whether a text says something of the findings, claims none, and doubts those that the truth doubts.

    All that can be asked of an answer where the truth holds nothing to earn by: the text of that truth does so, an
    empty or unreadable text does not.
    """
    said, doubted = (
        {name for name, f in facts.findings.items() if f.polarity == "uncertain"} for facts in (claimed, truth)
    )
    return bool(claimed.findings) and not claimed.present() and said == doubted
