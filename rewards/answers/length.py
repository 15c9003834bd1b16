"""Length of an answer in words, within a range that nobody profits from stretching. Mostly to be watched (weight 0)."""

from itertools import groupby

from rewards.answers.final_answer import answer_region, num_words
from rewards.config.input_error import InputError
from rewards.config.knobs import Number

BOUNDS = (0.0, 1.0)
TASKS: tuple[str, ...] | None = None


def length(response: str, *, min_words: Number = 1, max_words: Number = 120) -> float:
    """1 between ``min_words`` and ``max_words`` of the answer, falling linearly to 0 at no word and at twice the most.

    Raises: InputError if the least is more than the most.

    A word holds a letter or a digit, and counts once for each begun 40 characters; one said again and again in a row
    counts once towards ``min_words``.

    >>> length("one two three"), length("word " * 180), length("word " * 240)
    (1.0, 0.5, 0.0)
    """
    if min_words > max_words:
        raise InputError(f"'length': min_words {min_words:g} is above max_words {max_words:g}. Swap them.")
    text = answer_region(response)
    words = num_words(text)
    new = num_words(" ".join(word for word, _ in groupby(text.split())))
    enough = min(1.0, new / min_words)
    return enough if words <= max_words else enough * max(0.0, 2.0 - words / max_words)


def components(response: str, **_: int) -> dict[str, float]:
    """Words of the answer and of the whole response, and the share of the response's words that are distinct."""
    words = response.split()
    return {
        "answer_words": float(num_words(answer_region(response))),
        "words": float(len(words)),
        "distinct_share": len(set(words)) / len(words) if words else 1.0,
    }
