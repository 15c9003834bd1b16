"""Small pieces of Markdown, as Python's docstrings and types are turned into it."""

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

Named = Callable[[type[BaseModel]], str]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells keep to their columns whatever they hold.

    >>> print(table(["a", "b"], [["1", "x"]]))
    | a | b |
    |---|---|
    | 1 | x |
    """
    lines = [list(head), ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    text = ["| " + " | ".join(cells) + " |" for cells in lines]
    return "\n".join([text[0], "|" + "---|" * len(head), *text[2:]])


def code(text: str) -> str:
    """The text as code, or nothing.

    >>> code("x"), code("")
    ('`x`', '')
    """
    return f"`{text}`" if text else ""


def docstring(owner: Any) -> str:
    """The docstring of a class, function or module as Markdown."""
    return from_docstring(inspect.getdoc(owner) or "")


def from_docstring(text: str) -> str:
    """A docstring's text as Markdown: code by one backtick, examples as blocks, ``Raises:`` in italics.

    >>> from_docstring("A ``b``. Raises: no.")
    'A `b`. Raises: no.'
    >>> print(from_docstring("Raises: InputError."))
    *Raises:* InputError.
    """
    parts = [_part(part) for part in text.replace("``", "`").split("\n\n")]
    return "\n\n".join(parts).replace("```\n\n```pycon\n", "")


def _part(part: str) -> str:
    if part.startswith(">>> "):
        return f"```pycon\n{part}\n```"
    return re.sub(r"^(Raises|Example|Returns|Yields):", r"*\1:*", part, flags=re.MULTILINE)


def type_text(hint: Any, link: Named) -> str:
    """A type as a user reads it: choices as what may be written, models as links to what they hold.

    >>> type_text(Literal["a", "b"] | None, str)
    '`a`, `b`, or none'
    >>> type_text(dict[str, list[int]], str)
    'mapping of text to list of whole number'
    """
    origin, inner = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return link(hint)
    if origin is typing.Annotated:
        return type_text(inner[0], link)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in inner)
    if origin in (typing.Union, types.UnionType):
        options = [type_text(option, link) for option in inner if option is not type(None)]
        return " or ".join(options) + (", or none" if type(None) in inner else "")
    if origin in (list, tuple, dict):
        return _holder(origin, [type_text(option, link) for option in inner if option is not Ellipsis])
    return WORDS.get(hint, code(getattr(hint, "__name__", str(hint))))


WORDS: dict[Any, str] = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any value"}


def _holder(origin: Any, inner: list[str]) -> str:
    if origin is dict:
        return f"mapping of {inner[0]} to {inner[1]}"
    return f"list of {', '.join(dict.fromkeys(inner))}"
