"""Label accuracy (MedMO's first signal, for which the paper gives no formula): yes/no, numbers, or a set of labels.

Left out: multiple choice (``choice_answer``), and letting any wording pass that merely contains the label.
"""

import re

from rewards.knobs import Amount
from rewards.measurements import measurements
from rewards.tasks import WORDED
from rewards.text import answer_region

BOUNDS = (0.0, 1.0)
TASKS = WORDED
YES = re.compile(r"\b(?:yes|yeah|correct|true|affirmative)\b", re.IGNORECASE)
NO = re.compile(r"\b(?:no|not|nope|none|never|false|without|negative|isn't|aren't|doesn't|cannot)\b", re.IGNORECASE)
SEPARATOR = re.compile(r"[,;\n]|\band\b", re.IGNORECASE)
ARTICLE = re.compile(r"^(?:the|an?)\s+", re.IGNORECASE)
MAX_LENGTH = 2000


def label_accuracy(
    response: str,
    answer: str | None,
    *,
    synonyms: dict[str, list[str]] | None = None,
    tolerance: Amount = 0.0,
) -> float | None:
    """How well the response's answer gives the reference, in [0, 1]; None without a reference.

    Yes/no: 1 if the answer has that polarity and not both. A number with a unit: 1 if it is the only one and within
    the relative ``tolerance`` (units are converted). Else F1 over labels, separated by commas, semicolons or "and";
    ``synonyms`` maps a label to its other names. A label counts once, and answers over 2,000 characters earn 0.

    >>> label_accuracy("1.2 cm", "12 mm"), label_accuracy("Yes, on the left.", "yes"), label_accuracy("not yes", "yes")
    (1.0, 1.0, 0.0)
    >>> label_accuracy("nodule and effusion", "effusion; fracture")
    0.5
    """
    if not answer:
        return None
    said = answer_region(response).strip()
    if not said or len(said) > MAX_LENGTH:
        return 0.0
    if answer.strip().rstrip(".").casefold() in ("yes", "no"):
        return float(polarity(said) == answer.strip().rstrip(".").casefold())
    if is_number(answer):
        return _number_matches(said, answer, tolerance)
    return _label_f1(labels(said, synonyms or {}), labels(answer, synonyms or {}))


def polarity(text: str) -> str | None:
    """``yes``, ``no``, or None where a text says neither or both.

    >>> polarity("No, it is not."), polarity("yes and no")
    ('no', None)
    """
    yes, no = bool(YES.search(text)), bool(NO.search(text))
    return None if yes == no else "yes" if yes else "no"


def is_number(answer: str) -> bool:
    """Whether a reference is one number, with or without a unit.

    >>> is_number("3.5 cm"), is_number("T2")
    (True, False)
    """
    return re.fullmatch(r"\s*-?\d[\d.,]*\s*(?:[a-zA-Z]+|%)?\s*\.?\s*", answer) is not None and bool(
        measurements(answer, bare=True)
    )


def _number_matches(said: str, answer: str, tolerance: float) -> float:
    found, true = measurements(said, bare=True), measurements(answer, bare=True)
    return float(len(found) == 1 and true[0].agrees(found[0], tolerance=tolerance))


def labels(text: str, synonyms: dict[str, list[str]]) -> frozenset[str]:
    """The labels of a text in lower case, each under its first name.

    >>> sorted(labels("The Effusion, nodule", {"pleural effusion": ["effusion"]}))
    ['nodule', 'pleural effusion']
    """
    first = {other.casefold(): name.casefold() for name, others in synonyms.items() for other in others}
    bare = (ARTICLE.sub("", part.strip(" .\t")).casefold() for part in SEPARATOR.split(text))
    return frozenset(first.get(label, label) for label in bare if label)


def _label_f1(said: frozenset[str], true: frozenset[str]) -> float:
    return 2 * len(said & true) / (len(said) + len(true)) if said and true else 0.0
