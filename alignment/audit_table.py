"""The audit on the command line: tables, or one JSON object."""

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from alignment.audit import Audit, audit
from alignment.recipe import read_recipe
from rewards.box_comparison import comparison, contenders


def print_audit(recipe: Path, overrides: list[str], *, rows: int, out: Path | None, as_json: bool) -> Audit:
    """Audits a recipe, writes its page, and prints what was found."""
    read = read_recipe(recipe, overrides)
    page = out or Path(read.output) / "audit.html"
    found = audit(read, name=str(recipe), limit=rows, page=page)
    if as_json:
        _write_json({**found.to_json(), "page": str(page)})
        return found
    console = Console()
    console.print(_table(found))
    for warning in found.warnings:
        console.print(warning, style="red", markup=False, highlight=False)
    if not found.successful:
        console.print("No attack earns more than an honest answer.")
    console.print(f"page: {page}", markup=False, highlight=False, soft_wrap=True)
    return found


def _table(found: Audit) -> Table:
    tasks = list(found.num_rows)
    table = Table("policy", "all rows", *tasks, title=f"Mean reward of scripted policies, {found.recipe}")
    for policy in found.policies:
        cells = [f"{_figure(policy.by_task.get(task))}{' !' if task in policy.wins else ''}" for task in tasks]
        table.add_row(policy.name, _figure(policy.total), *cells, style="red" if policy.wins else "")
    return table


def print_box_comparison(*, as_json: bool) -> None:
    """Prints the box rewards side by side under scripted answers."""
    found = comparison()
    if as_json:
        _write_json(found)
        return
    names = list(contenders())
    table = Table("answer", *names, title="Box rewards under scripted answers")
    for case, scores in found.items():
        table.add_row(case, *[_figure(scores[name]) for name in names])
    Console().print(table)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _write_json(content: dict[str, Any]) -> None:
    assert sys.__stdout__ is not None
    sys.__stdout__.write(json.dumps(content) + "\n")
