"""Label accuracy (MedMO's first signal, for which the paper gives no formula): yes/no, numbers, or a set of labels.

An answer that declines, doubts, or names both of two that exclude each other earns nothing, whatever is true.
Left out: multiple choice (``choice_answer``), and letting any wording pass that merely contains the label.
"""

import re

from rewards.answers.cues import DENIES, NO, NO_DENIAL, OPENS_WITH_NO, SHOWS, TWICE_DENIED
from rewards.answers.declining import declines, doubts, turns_round
from rewards.answers.final_answer import answer_region, visible
from rewards.answers.measurements import is_number, number_matches
from rewards.config.knobs import Amount
from rewards.tasks import WORDED

BOUNDS = (0.0, 1.0)
TASKS = WORDED
YES = re.compile(r"\b(?:yes|yeah|affirmative|(?:correct|true)(?!\s+\w))\b", re.IGNORECASE)
CLAUSE_END = re.compile(r"[,.;:!\n]|\b(?:but|and|although|though|however|while)\b", re.IGNORECASE)
AFFIRMS = re.compile(rf"\b(?:there (?:is|are)|present|seen|visible|found|detected|identified|{SHOWS})\b", re.IGNORECASE)
SEPARATOR = re.compile(r"[,;\n]|\band\b", re.IGNORECASE)
ARTICLE = re.compile(r"^(?:the|an?)\s+", re.IGNORECASE)
EXCLUSIVE: tuple[frozenset[str], ...] = tuple(
    map(
        frozenset,
        (
            ("left", "right"), ("present", "absent"), ("positive", "negative"), ("normal", "abnormal"),
            ("benign", "malignant"), ("male", "female"), ("yes", "no"), ("true", "false"), ("acute", "chronic"),
            ("small", "large"), ("upper", "lower"), ("increased", "decreased"), ("improved", "worsened", "unchanged"),
        ),
    )
)  # fmt: skip
"""Labels of which one thing has one: to name two where one is true is to name none."""
MAX_LENGTH = 2000


def label_accuracy(
    response: str,
    answer: str | None,
    *,
    synonyms: dict[str, list[str]] | None = None,
    tolerance: Amount = 0.0,
) -> float | None:
    """How well the response's answer gives the reference, in [0, 1]; None without a reference.

    Yes/no: 1 if the answer has that polarity and not both. A number: 1 if it is the only one, stated as it is (not
    denied, no bound, no range), and within the relative ``tolerance``; with a unit it must have that unit or one that
    converts to it, and a unit left out is wrong. Else F1 over labels, separated by commas, semicolons or "and";
    ``synonyms`` maps a label to its other names; what follows a denial in a list is denied with it, and of labels that
    exclude each other ("left and right") both earn 0 where one is true. A label counts once. An answer that declines
    ("I cannot say"), doubts ("maybe"), ends in a question mark or has over 2,000 characters earns 0.

    >>> label_accuracy("1.2 cm", "12 mm"), label_accuracy("Yes, on the left.", "yes"), label_accuracy("not yes", "yes")
    (1.0, 1.0, 0.0)
    >>> label_accuracy("5 elephants", "5 mg"), label_accuracy("no idea", "no"), label_accuracy("left and right", "left")
    (0.0, 0.0, 0.0)
    >>> label_accuracy("nodule and effusion", "effusion; fracture")
    0.5
    """
    if not answer:
        return None
    text, true = answer_region(response).replace("\u2019", "'").strip(), visible(answer).strip()
    if not text or len(text) > MAX_LENGTH or (_gives_none(text) and not _gives_none(true)):
        return 0.0
    if true.rstrip(".").casefold() in ("yes", "no"):
        return float(polarity(text) == true.rstrip(".").casefold())
    if is_number(true):
        return float(number_matches(text, true, tolerance=tolerance))
    return _label_f1(labels(text, synonyms or {}), labels(true, synonyms or {}))


def _gives_none(text: str) -> bool:
    return declines(text) or doubts(text) or turns_round(text)


def polarity(text: str) -> str | None:
    """``yes``, ``no``, or None where a text says neither or both, or denies one thing and states another.

    >>> polarity("No, it is not."), polarity("yes and no"), polarity("There is a huge nodule, none of it normal")
    ('no', None, None)
    """
    if YES.search(text):
        return None if NO.search(text) else "yes"
    plain = NO_DENIAL.sub(" ", text)
    if TWICE_DENIED.search(text):
        return None
    clauses = CLAUSE_END.split(plain)
    contradicted = not OPENS_WITH_NO.match(plain) and any(AFFIRMS.search(c) and not NO.search(c) for c in clauses)
    return "no" if not contradicted and any(DENIES.match(clause) for clause in clauses) else None


def labels(text: str, synonyms: dict[str, list[str]]) -> frozenset[str]:
    """The labels of a text in lower case, each under its first name; "not ..." what stands behind a denial in a list.

    >>> sorted(labels("The Effusion, nodule", {"pleural effusion": ["effusion"]}))
    ['nodule', 'pleural effusion']
    >>> sorted(labels("no mass, nodule; effusion", {}))
    ['effusion', 'no mass', 'not nodule']
    """
    first = {other.casefold(): name.casefold() for name, others in synonyms.items() for other in others}
    found: set[str] = set()
    for sentence in re.split(r"[;\n]", text):
        denied = False
        for part in SEPARATOR.split(sentence):
            label = ARTICLE.sub("", part.strip(" .\t")).casefold()
            if label:
                label = first.get(label, label)
                found.add(f"not {label}" if denied else label)
            denied = denied or NO.search(part) is not None
    return frozenset(found)


def _label_f1(given: frozenset[str], true: frozenset[str]) -> float:
    hedged = any(len(given & group) > 1 and len(true & group) == 1 for group in EXCLUSIVE)
    return 2 * len(given & true) / (len(given) + len(true)) if given and true and not hedged else 0.0
