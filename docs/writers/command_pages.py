"""The reference page of the command line: every command with its arguments, options and example.

Read from the functions and their annotations, as typer reads them; its own objects differ between its versions.
"""

import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.models import ArgumentInfo, OptionInfo

from docs.writers.pieces import code, docstring, table, type_text

INTRO = """Every command has `--help`, which says what this page says; those that report figures take `--json`, and then
print one JSON object on standard output and nothing else there. A user's mistake is one sentence and exit code 2."""


def commands_page(app: typer.Typer) -> str:
    """The page of all commands, by name."""
    named = commands_of(app)
    return "\n\n".join(["# Commands", INTRO, *(command_section(name, named[name]) for name in sorted(named))]) + "\n"


def commands_of(app: typer.Typer) -> dict[str, Callable[..., Any]]:
    """The function of each command, by the name under which it is called."""
    known = [command for command in app.registered_commands if command.callback is not None]
    functions = [(command, typing.cast(Callable[..., Any], command.callback)) for command in known]
    return {command.name or function.__name__.replace("_", "-"): function for command, function in functions}


def command_section(name: str, function: Callable[..., Any]) -> str:
    """Usage, docstring and table of a command.

    >>> def shout(word: str, times: Annotated[int, typer.Option(min=1, help="how often")] = 1) -> None:
    ...     '''Say it.'''
    >>> print(command_section("shout", shout))
    ## shout
    <BLANKLINE>
    ```
    clinalign shout WORD
    ```
    <BLANKLINE>
    Say it.
    <BLANKLINE>
    | argument or option | what it takes | default | meaning |
    |---|---|---|---|
    | `WORD` | text | **required** |  |
    | `--times` | whole number; at least 1 | `1` | how often |
    """
    taken = [_Taken(p, hint) for p, hint in _parameters(function)]
    usage = " ".join(["clinalign", name, *(each.usage for each in taken if each.is_argument)])
    rows = [[code(each.name), each.kind, each.default, each.help] for each in taken]
    listed = table(["argument or option", "what it takes", "default", "meaning"], rows)
    return f"## {name}\n\n```\n{usage}\n```\n\n{_with_examples(docstring(function))}\n\n{listed}"


def _parameters(function: Callable[..., Any]) -> list[tuple[inspect.Parameter, Any]]:
    hints = typing.get_type_hints(function, include_extras=True)
    return [(parameter, hints[name]) for name, parameter in inspect.signature(function).parameters.items()]


def _with_examples(text: str) -> str:
    """The text with the command after ``Example:`` shown as code."""
    start = "*Example:* "
    parts = [f"```\n{p.removeprefix(start)}\n```" if p.startswith(start) else p for p in text.split("\n\n")]
    return "\n\n".join(parts)


class _Taken:
    """One argument or option of a command."""

    def __init__(self, parameter: inspect.Parameter, hint: Any) -> None:
        annotated = typing.get_origin(hint) is Annotated
        self.type = typing.get_args(hint)[0] if annotated else hint
        notes = typing.get_args(hint)[1:] if annotated else ()
        self.info = next((note for note in notes if isinstance(note, ArgumentInfo | OptionInfo)), None)
        self.parameter, self.required = parameter, parameter.default is parameter.empty
        self.is_argument = isinstance(self.info, ArgumentInfo) or (self.info is None and self.required)

    @property
    def usage(self) -> str:
        word = ((self.info and self.info.metavar) or self.parameter.name).upper()
        word += " ..." if self._is_list else ""
        return word if self.required else f"[{word}]"

    @property
    def name(self) -> str:
        if self.is_argument:
            return self.usage
        long = f"--{self.parameter.name.replace('_', '-')}"
        first = getattr(self.info, "default", None)  # where typer keeps the first of the names within Annotated
        declared = [first] if isinstance(first, str) and first.startswith("-") else []
        declared += getattr(self.info, "param_decls", None) or ()
        return ", ".join(declared) if declared else (f"{long} / --no-{long[2:]}" if self.type is bool else long)

    @property
    def kind(self) -> str:
        if self.type is bool:
            return "switch"
        inner = [each for each in typing.get_args(self.type) if each is not type(None)] or [self.type]
        of_list = [each for each in typing.get_args(inner[0]) if self._is_list] or inner
        word = "path" if of_list[0] is Path else type_text(of_list[0], lambda model: model.__name__)
        least, most = getattr(self.info, "min", None), getattr(self.info, "max", None)
        limits = [f"at least {least:g}"] if least is not None else []
        limits += [f"at most {most:g}"] if most is not None else []
        return "; ".join([word + (", any number of times" if self._is_list else ""), *limits])

    @property
    def _is_list(self) -> bool:
        kinds = (self.type, *typing.get_args(self.type))
        return any(typing.get_origin(kind) is list for kind in kinds)

    @property
    def default(self) -> str:
        if self.required:
            return "**required**"
        return "" if self.parameter.default in (None, False) else code(str(self.parameter.default))

    @property
    def help(self) -> str:
        return (self.info and self.info.help) or ""
