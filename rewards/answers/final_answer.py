"""Which part of a response is its answer, and which of its characters can be seen."""

import re

OPEN, CLOSE = "<answer>", "</answer>"
THINKS, THOUGHT = re.compile(r"<think(?:ing)?>", re.IGNORECASE), re.compile(r"</think(?:ing)?>", re.IGNORECASE)
INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
"""What takes no ink: Unicode's default ignorables, blanks that count as letters, and control characters."""
LETTER = re.compile(r"\w")
LONGEST_WORD = 40
"""Letters that one word may have; what is written without spaces counts as a word for each so many."""


def visible(text: str) -> str:
    r"""A text without the characters that cannot be seen, which would split words and fill empty tags.

    >>> visible("n\u200bo")
    'no'
    """
    return INVISIBLE.sub("", text) if not text.isascii() or not text.isprintable() else text


def num_words(text: str) -> int:
    """Words of a text: runs between spaces with a letter or digit in them, one for each begun 40 characters.

    >>> num_words("a small nodule . - ."), num_words("x" * 200)
    (3, 5)
    """
    return sum(-(-len(word) // LONGEST_WORD) for word in visible(text).split() if LETTER.search(word))


def final_answer(response: str) -> str | None:
    """The text of the one ``<answer>...</answer>`` that ends the response, stripped; None if there is not exactly one.

    >>> final_answer("<think>dense base</think><answer> Yes </answer>")
    'Yes'
    >>> final_answer("<answer>Yes</answer><answer>No</answer>") is None
    True
    """
    if response.count(OPEN) != 1 or response.count(CLOSE) != 1:
        return None
    inside, _, after = response.partition(OPEN)[2].partition(CLOSE)
    ends_it = response.index(OPEN) < response.index(CLOSE) and not after.strip()
    return inside.strip() if ends_it else None


def answer_region(response: str) -> str:
    r"""Where an answer may stand, as it can be seen: the tagged answer, or what is left without the thinking.

    All that a reward or a judge reads of a response. Thinking that never ends holds no answer, wherever it begins.

    >>> answer_region("<think>No effusion?</think>A n\u200bodule."), answer_region("A nodule. <think>No effusion.")
    ('A nodule.', 'A nodule. ')
    """
    text = visible(response)
    if "<" not in text:
        return text
    tagged = final_answer(text)
    return without_thinking(text if tagged is None else tagged)


def without_thinking(text: str) -> str:
    """What follows the last end of thinking, up to where it begins again."""
    return THINKS.split(THOUGHT.split(text)[-1], maxsplit=1)[0]


def final_words(response: str) -> str:
    """What a response finally says: the one tagged answer at its end, or all of it where nothing is tagged.

    Empty where tags are broken: two answers, an open tag, or words after the tag.

    >>> final_words("<think>dense base</think><answer>Yes</answer>")
    'Yes'
    >>> final_words(" No "), final_words("<answer>No")
    ('No', '')
    """
    if "<answer>" not in response and "</answer>" not in response:
        return response.strip()
    return final_answer(response) or ""
