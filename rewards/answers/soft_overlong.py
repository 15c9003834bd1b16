"""Soft overlong punishment (DAPO, Yu et al. 2025, eq. 13): answers that run towards the limit lose, a bit at a time."""

from rewards.answers.final_answer import num_words
from rewards.config.knobs import Count, Number

BOUNDS = (-1.0, 0.0)
TASKS: tuple[str, ...] | None = None


def soft_overlong(
    response: str, completion_ids: list[int] | None, *, max_tokens: Number = 256, cache_tokens: Count = 64
) -> float:
    """0 up to ``max_tokens - cache_tokens``, falling linearly to -1 at ``max_tokens``, -1 beyond.

    Tokens are counted in ``completion_ids``, which the trainer gives; where they are None, words are counted.

    >>> [soft_overlong("", [1] * n, max_tokens=100, cache_tokens=20) for n in (80, 90, 100, 101)]
    [0.0, -0.5, -1.0, -1.0]
    """
    length = num_words(response) if completion_ids is None else len(completion_ids)
    if length <= max_tokens - cache_tokens:
        return 0.0
    return -1.0 if length >= max_tokens else -(length - (max_tokens - cache_tokens)) / cache_tokens
