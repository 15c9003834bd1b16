"""Multiple choice: one letter or option, however it is written, and never two.

Left out: free text that merely resembles an option. A reward that guesses meaning can be gamed.
"""

import re
from collections.abc import Sequence

from rewards.text import answer_region

BOUNDS = (0.0, 1.0)
TASKS = ("choice", "closed", "open")
MARKER = re.compile(r"\b(?:answer|option|choice)\b(?:\s+is)?\s*[:\s]\s*", re.IGNORECASE)
LETTERED = re.compile(r"[(\[]?([A-Za-z])[)\].:]*(?:\s*[-:]?\s+(.{1,400}?))?[.\s]*", re.DOTALL)
MAX_LENGTH = 2000


def choice_answer(response: str, answer: str | None, options: list[str] | None) -> float | None:
    """1.0 if the response names the right option and no other, else 0.0; None without reference or options.

    ``answer`` is a letter or an option's text; options are A, B, ... in order. Read are "C", "c)", "(C) CT",
    "The answer is C", "Answer: C. CT", and an option's full text; a letter beside another option's text is no answer.

    >>> choice_answer("The answer is (B).", "MRI", ["CT", "MRI"]), choice_answer("A or B", "MRI", ["CT", "MRI"])
    (1.0, 0.0)
    """
    if not answer or not options:
        return None
    right = option_named(answer, options)
    assert right is not None, f"answer {answer!r} is none of the options {options}"
    return float(option_named(answer_region(response), options) == right)


def option_named(text: str, options: Sequence[str]) -> int | None:
    """The index of the one option that a text names; None for none or several.

    >>> option_named("(b) MRI", ["CT", "MRI"]), option_named("(a) MRI", ["CT", "MRI"])
    (1, None)
    """
    statements = MARKER.split(text[-MAX_LENGTH:])
    named = {_one(said, options) for said in (statements[1:] or statements) if said.strip()}
    return named.pop() if len(named) == 1 else None


def _one(said: str, options: Sequence[str]) -> int | None:
    texts = [_folded(option) for option in options]
    if _folded(said) in texts:
        return texts.index(_folded(said))
    match = LETTERED.fullmatch(said.strip())
    if match is None:
        return None
    index, words = ord(match[1].upper()) - ord("A"), match[2]
    return index if index < len(options) and (words is None or _folded(words) == texts[index]) else None


def _folded(text: str) -> str:
    return re.sub(r"[\s.]+", " ", text).strip().casefold()
