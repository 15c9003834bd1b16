"""Multiple choice: one letter or option, however it is written, and never two.

Left out: free text that merely resembles an option. A reward that guesses meaning can be gamed.
"""

import re
from collections.abc import Sequence

from rewards.answers.final_answer import answer_region, visible

BOUNDS = (0.0, 1.0)
TASKS = ("choice", "closed", "open")
MARKER = re.compile(r"\b(?:answer|option|choice)\b(?:\s+is)?\s*[:\s]\s*", re.IGNORECASE)
# "Wrong answer: B" and "I do not think the answer is B" name what is not the answer; "maybe the answer is B" may not.
DENIED = re.compile(
    r"\b(?:(?:no|not|never|cannot|\w+n't|neither|wrong|incorrect|false|except|without|anything but|other than|opposite"
    r"|rather than|instead of|maybe|perhaps|possibly|might be|could be|either)\b[^.!?;\n]*|or(?: the)?\s*)\Z",
    re.IGNORECASE,
)
LETTERED = re.compile(r"[(\[]?([A-Za-z])[)\].:]*+(?:(?:\s*+[-:]\s++|\s++)(\S.{0,399}?))?[.\s]*+", re.DOTALL)
MAX_LENGTH = 2000
LONGEST_CLAUSE = 200
SENTENCE_END = re.compile(r"[.;\n]")
ANSWER_TAG = re.compile(r"</?answer>", re.IGNORECASE)


def choice_answer(response: str, answer: str | None, options: list[str] | None) -> float | None:
    """1.0 if the response names the right option and no other, else 0.0; None without reference or options.

    ``answer`` is a letter or an option's text; options are A, B, ... in order. Read are "C", "c)", "(C) CT",
    "The answer is C", "Answer: C. CT", and an option's full text; a letter beside another option's text is no answer,
    nor is what the words before it deny ("wrong answer: C").

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
    text = ANSWER_TAG.sub("\n", text)
    marks = list(MARKER.finditer(text))
    if not marks:
        return _one(text[-MAX_LENGTH:], options)
    named: set[int | None] = {_one(_opening(text[: marks[0].start()]), options)} - {None}
    for mark, end in zip(marks, [*(later.start() for later in marks[1:]), len(text)], strict=True):
        behind, before = text[mark.end() : end], text[max(0, mark.start() - LONGEST_CLAUSE) : mark.start()]
        option = None if DENIED.search(before) else _one(behind, options)
        if len(text) - mark.start() > MAX_LENGTH:
            # Far before its end a text may reason in any words; only another answer there makes two of it.
            named |= {option, _one(SENTENCE_END.split(behind)[0], options)} - {None}
        elif behind.strip():
            named.add(option)
    return named.pop() if len(named) == 1 else None


def _opening(head: str) -> str:
    """The one sentence that stands before the sentence with the first marker; nothing where there are more."""
    sentences = [sentence for sentence in SENTENCE_END.split(head)[:-1] if sentence.strip()]
    return sentences[0] if len(sentences) == 1 else ""


def _one(text: str, options: Sequence[str]) -> int | None:
    texts = [_folded(option) for option in options]
    if _folded(text) in texts:
        return texts.index(_folded(text))
    match = LETTERED.fullmatch(text.strip())
    if match is None:
        return None
    index, words = ord(match[1].upper()) - ord("A"), match[2]
    return index if index < len(options) and (words is None or _folded(words) == texts[index]) else None


def _folded(text: str) -> str:
    return re.sub(r"[\s.]+", " ", visible(text)).strip().casefold()
