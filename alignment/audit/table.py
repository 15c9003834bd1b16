"""The audit on the command line: tables, or one JSON object."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from alignment.audit.files import audits
from alignment.audit.findings import Audit
from rewards.attacks.box_comparison import comparison, contenders

WIDTH = 140
"""Columns that the comparison needs; a narrower terminal wraps it."""


def print_audit(recipe: Path, overrides: list[str], *, rows: int, out: Path | None, as_json: bool) -> list[str]:
    """Audits a recipe, or each stage of a loop, writes the pages, and prints what was found.

    Returns what the header does not say of the attacks that beat honesty; without any, all is as it says.
    """
    faults: list[str] = []
    found: list[dict[str, Any]] = []
    for each, page in audits(recipe, overrides, limit=rows, out=out):
        faults += [f"{each.recipe}: {fault}" for fault in each.faults]
        if as_json:
            found.append({**each.to_json(), "page": str(page)})
        else:
            _print(each, page)
    if as_json:
        _write_json(found[0] if len(found) == 1 else {"audits": found})
    return faults


def _print(found: Audit, page: Path) -> None:
    console = Console()
    console.print(_table(found))
    for warning in found.warnings:
        console.print(warning, style="red", markup=False, highlight=False)
    if not found.successful:
        console.print("No attack beats honesty.")
    for fault in found.faults:
        console.print(fault, style="bold red", markup=False, highlight=False)
    if found.faults:
        names = ", ".join(policy.name for policy in found.successful) or "nothing: leave the line out"
        console.print(f"Header of what beats it: # Beaten by: {names}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"page: {page}", markup=False, highlight=False, soft_wrap=True)


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
    table = Table("answer", title="Box rewards under scripted answers")
    for name in names:
        table.add_column(name, no_wrap=False, justify="right", min_width=max(map(len, name.split())))
    for case, scores in found.items():
        table.add_row(case, *[_figure(scores[name]) for name in names])
    Console(width=max(Console().width, WIDTH)).print(table)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _write_json(content: Mapping[str, object]) -> None:
    assert sys.__stdout__ is not None
    sys.__stdout__.write(json.dumps(content) + "\n")
