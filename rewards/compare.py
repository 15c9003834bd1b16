"""Facts against facts: what a text claims, beside what is true."""

from dataclasses import dataclass

from rewards.facts import Facts


@dataclass(frozen=True)
class Comparison:
    """Names of findings. Only what the truth knows (present or absent) is judged.

    A claim of one side is right where the truth is ``bilateral``; a claim of both sides is not where it is one.
    ``claims``: said to be there. ``hallucinations``: claims that the truth denies, or places on the other side.
    ``true_findings``: are there. ``found``: are there and claimed, on the right side.
    ``omissions``: are there and denied or left out (a wrong side is a hallucination and no find, but no omission).
    """

    claims: tuple[str, ...]
    hallucinations: tuple[str, ...]
    true_findings: tuple[str, ...]
    found: tuple[str, ...]
    omissions: tuple[str, ...]


def compare(truth: Facts, claimed: Facts) -> Comparison:
    """The claims of ``claimed`` judged by ``truth``."""
    known = {name: f for name, f in truth.findings.items() if f.polarity != "uncertain"}
    claims = {name: f for name, f in claimed.present().items() if name in known}
    wrong_side = {n for n, f in claims.items() if known[n].side not in (None, f.side, "bilateral") and f.side}
    false = {n for n in claims if known[n].polarity == "absent"} | wrong_side
    true = [n for n, f in known.items() if f.polarity == "present"]
    return Comparison(
        claims=tuple(claims),
        hallucinations=tuple(n for n in claims if n in false),
        true_findings=tuple(true),
        found=tuple(n for n in true if n in claims and n not in false),
        omissions=tuple(n for n in true if n not in claims),
    )
