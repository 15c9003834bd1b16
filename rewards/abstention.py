"""Closed answers where not knowing may be said: guessing must not pay more than "I cannot tell".

With credit c, abstaining is the better choice exactly when the chance of being right is below c.
"""

import re

from rewards.knobs import Share
from rewards.tasks import WORDED
from rewards.text import answer_region

BOUNDS = (0.0, 1.0)
TASKS = WORDED
ABSTAINS = re.compile(
    r"\b(?:(?:I )?(?:cannot|can't|can not|could not|unable to) (?:tell|determine|say|answer|be determined|assess|judge)"
    r"|(?:not|in)determina(?:ble|te)|cannot be (?:determined|assessed)|unknown|unanswerable|I do(?:n't| not) know"
    r"|not enough information|insufficient information)\b",
    re.IGNORECASE,
)


def abstention(response: str, answer: str | None, *, credit: Share = 0.25) -> float | None:
    """1 if right, ``credit`` if the response abstains, 0 if wrong, empty or both at once; None without a reference.

    Where the reference itself abstains ("cannot be determined"), abstaining earns 1 and any answer 0. The answer is the
    tagged one, or the whole response without its final full stop; an abstention may stand in a sentence.

    >>> abstention("I cannot tell.", "yes"), abstention("Yes", "yes"), abstention("cannot be determined", "unknown")
    (0.25, 1.0, 1.0)
    """
    if not answer:
        return None
    said = answer_region(response).strip().removesuffix(".").strip()
    if ABSTAINS.search(said):
        return 1.0 if ABSTAINS.search(answer) else credit if _only_abstains(said, answer) else 0.0
    return float(said.casefold() == answer.strip().casefold())


def _only_abstains(said: str, answer: str) -> bool:
    """Whether an abstention does not slip the answer in as well."""
    return re.search(rf"\b{re.escape(answer.strip())}\b", ABSTAINS.sub(" ", said), re.IGNORECASE) is None
