"""The think-then-answer format (DeepSeek-R1, 2025, section 2.2.2). Says nothing of whether the answer is right."""

import re

from rewards.answers.final_answer import visible

BOUNDS = (0.0, 1.0)
TASKS: tuple[str, ...] | None = None
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
WHOLE = re.compile(r"\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\s*\Z", re.DOTALL)


SAYS_NOTHING = re.compile(r"[\s.,;:!?_*'\"\u2026\u2013\u2014-]*")


def think_format(response: str) -> float:
    r"""1.0 if the whole response is one ``<think>`` with letters in it and then one ``<answer>`` that says something.

    Else 0.0. Characters that cannot be seen are none; an answer of full stops and dashes says nothing (``[]`` does).

    >>> think_format("<think>dense base</think><answer>Yes</answer>"), think_format("<answer>Yes</answer>")
    (1.0, 0.0)
    >>> think_format("<think>\u200b</think><answer>Yes</answer>")
    0.0
    """
    text = visible(response)
    once = all(text.casefold().count(tag) == 1 for tag in TAGS)
    match = WHOLE.match(text) if once else None  # of many tags it would try each pair
    return float(bool(match and has_thought(match.group(1)) and says_something(match.group(2))))


def has_thought(text: str) -> bool:
    """Whether letters stand in a thought."""
    return any(character.isalpha() for character in visible(text))


def says_something(text: str) -> bool:
    """Whether an answer holds more than space, full stops and dashes."""
    return SAYS_NOTHING.fullmatch(visible(text)) is None
