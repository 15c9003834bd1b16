"""The key of an endpoint: where it comes from, and that it shows nowhere but in its header."""

import os
import re

from rewards.config.input_error import InputError

HIDDEN = "***"
PIECE_IN_ERRORS = 4
"""A run of so many characters of a key is hidden in an error: servers echo the first and the last of them."""
PIECE_IN_REPLIES = 12
"""The same in a reply, of which ordinary words should stay."""
ENVIRONMENT_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
HEADER_VALUE = re.compile(r"[\x21-\x7e]+")


def is_environment_name(name: object) -> bool:
    """Whether this can be the name of a variable, and no key that was written in its place.

    >>> is_environment_name("JUDGE_KEY"), is_environment_name("hf_aBcDeF"), is_environment_name("sk-12")
    (True, False, False)
    """
    return isinstance(name, str) and ENVIRONMENT_NAME.fullmatch(name) is not None


def key_from(variable: str | None, *, url: str) -> str | None:
    """The key in an environment variable; None where no variable is named.

    Raises: InputError, which never shows the value, if it is not set or can stand in no header.
    """
    if variable is None:
        return None
    if not is_environment_name(variable):
        raise InputError("key_env must be the name of an environment variable in capitals, never the key itself.")
    key = os.environ.get(variable)
    if not key:
        raise InputError(f"{url}: the environment variable {variable}, named as key_env, is not set.")
    if not HEADER_VALUE.fullmatch(key):
        raise InputError(
            f"{url}: the key in {variable} holds a blank, a line break or a character beyond ASCII, which no header "
            "may. Set the variable to the key alone, without quotes or a line end."
        )
    return key


def without_key(text: str, key: str | None, *, piece: int) -> str:
    """The text with every run of ``piece`` or more characters of the key hidden.

    >>> without_key("Wrong key: sk-ab.. wxyz.", "sk-abcdefgh-wxyz", piece=4)
    'Wrong key: ***.. ***.'
    """
    if not key:
        return text
    piece = min(piece, len(key))
    pieces = {re.escape(key[k : k + piece]) for k in range(len(key) - piece + 1)}
    shown: list[str] = []
    end = 0
    for found in re.finditer(f"(?={'|'.join(sorted(pieces))})", text):
        if found.start() > end or not end:
            shown += [text[end : found.start()], HIDDEN]
        end = found.start() + piece
    return "".join([*shown, text[end:]])
