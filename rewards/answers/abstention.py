"""Closed answers where not knowing may be said: guessing must not pay more than "I cannot tell".

With credit c, abstaining is the better choice exactly when the chance of being right is below c.
"""

import re

from rewards.answers.declining import THING
from rewards.answers.final_answer import answer_region, visible
from rewards.config.knobs import Share
from rewards.tasks import WORDED

BOUNDS = (0.0, 1.0)
TASKS = WORDED
ABSTAINS = re.compile(
    r"\b(?:(?:I )?(?:cannot|can't|can not|could not|unable to) (?:tell|determine|say|answer|be determined|assess|judge)"
    r"|(?:not|in)determina(?:ble|te)|cannot be (?:determined|assessed)|unknown|unanswerable|I do(?:n't| not) know"
    r"|not enough information|insufficient information)\b",
    re.IGNORECASE,
)
# An abstention as a reference stands by itself; "carcinoma of unknown primary" is none.
ABSTENTION = re.compile(
    rf"(?:(?:it|this|that|the answer|answer)(?: is)?\W+)?{ABSTAINS.pattern}"
    r"(?:\s*(?:from|on|in|with|by|at|given|based|here)\b.*)?\W*",
    re.IGNORECASE,
)
# What is left open ("whether it is left or right") is no answer, nor is the "no" of "no image".
LEFT_OPEN = re.compile(r"\b(?:whether|if|which|between)\b[^.,;\n]*", re.IGNORECASE)
SLIPPED = re.compile(
    r"\b(?:yes|left|right|both|bilateral|present|absent|normal|abnormal|positive|negative)\b"
    rf"|\bno\b(?! (?:\w+ )?{THING}\b| one\b)",
    re.IGNORECASE,
)


def abstention(response: str, answer: str | None, *, credit: Share = 0.25) -> float | None:
    """1 if right, ``credit`` if the response abstains, 0 if wrong, empty or both at once; None without a reference.

    Where the reference itself abstains ("cannot be determined"), abstaining earns 1 and any answer 0. The answer is the
    tagged one, or the whole response without its final full stop; an abstention may stand in a sentence, but not beside
    an answer ("I cannot tell, but no").

    >>> abstention("I cannot tell.", "yes"), abstention("Yes", "yes"), abstention("cannot be determined", "unknown")
    (0.25, 1.0, 1.0)
    """
    if not answer:
        return None
    text, true = answer_region(response).strip().removesuffix(".").strip(), visible(answer).strip()
    if text.casefold() == true.casefold():
        return 1.0
    if not ABSTAINS.search(text) or _slips_in(text, true):
        return 0.0
    return 1.0 if ABSTENTION.fullmatch(true) else credit


def _slips_in(text: str, answer: str) -> bool:
    """Whether an abstention gives the answer, or another, as well."""
    rest = LEFT_OPEN.sub(" ", ABSTAINS.sub(" ", text))
    return bool(SLIPPED.search(rest) or re.search(rf"\b{re.escape(answer)}\b", rest, re.IGNORECASE))
