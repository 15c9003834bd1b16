"""What commands of several files share: how a result is printed, and the flags that mean the same everywhere."""

import json
import math
import sys
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.console import Console

from alignment.distributed.processes import is_main_process

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, such as trainer.seed=1 or output=runs/x")]


def say_json(result: object) -> None:
    """One JSON object on the real standard output (``main`` turns the other one away); null where no figure is.

    Of several ranks rank 0 prints.
    """
    if not is_main_process():
        return
    assert sys.__stdout__ is not None
    sys.__stdout__.write(json.dumps(with_null(result), allow_nan=False) + "\n")


def with_null(result: object) -> object:
    """The same with None in place of every number that is not finite, which JSON cannot hold.

    >>> with_null({"rate": float("nan"), "rows": [1, 0.5]})
    {'rate': None, 'rows': [1, 0.5]}
    """
    if isinstance(result, dict):
        return {name: with_null(value) for name, value in result.items()}
    if isinstance(result, list | tuple):
        return [with_null(value) for value in result]
    return None if isinstance(result, float) and not math.isfinite(result) else result


def say(result: Mapping[str, object], as_json: bool) -> None:
    """A result as JSON, or as lines of ``name: value``. Of several ranks rank 0 prints."""
    if as_json:
        say_json(result)
    elif is_main_process():
        _say_lines(result)


def _say_lines(result: Mapping[str, object]) -> None:
    for name, value in result.items():
        Console().print(f"{name}: {value}", highlight=False, markup=False, soft_wrap=True)
