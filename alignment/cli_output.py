"""What commands of several files share: how a result is printed, and the flags that mean the same everywhere."""

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, such as trainer.seed=1 or output=runs/x")]


def say_json(result: Any) -> None:
    """One JSON object on the real standard output (``main`` turns the other one away)."""
    assert sys.__stdout__ is not None
    sys.__stdout__.write(json.dumps(result) + "\n")


def say(result: dict[str, Any], as_json: bool) -> None:
    """A result as JSON, or as lines of ``name: value``."""
    if as_json:
        say_json(result)
        return
    for name, value in result.items():
        Console().print(f"{name}: {value}", highlight=False, markup=False, soft_wrap=True)
