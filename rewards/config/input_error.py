"""A fault that is the user's: one sentence that names place and cure."""

import difflib
from pathlib import Path

from rewards.config.shipped import here_or_shipped


class InputError(ValueError):
    """A user's mistake. The message is complete: where, what came, what was expected, what to do."""


def nearest_file(path: Path) -> str:
    """A hint that names the most similar file beside ``path``, or an empty string."""
    try:
        names = [entry.name for entry in here_or_shipped(path.parent).iterdir()]
    except (OSError, ValueError):
        return ""
    return nearest(path.name, names)


def nearest(name: str, known: list[str]) -> str:
    """A hint `` Did you mean '...'?``, or an empty string where nothing is near.

    >>> nearest("close_answer", ["closed_answer", "think_format"])
    " Did you mean 'closed_answer'?"
    """
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""
