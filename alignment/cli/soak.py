"""``clinalign soak`` and ``clinalign ledger``: is a killed run the same run, and was every row seen once?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from alignment.cli.output import JsonFlag, Overrides, say_json
from alignment.config.own_files import is_of_soak
from data_builders.locks import only_one
from data_builders.output_folders import check_writable, named_files, refuse_foreign, refuse_needed, refuse_others
from rewards.config.strict_yaml import read_yaml

EXACT = (
    "differing_losses",
    "differing_rows",
    "differing_log_entries",
    "rows_skipped",
    "rows_repeated",
    "steps_missing_or_twice",
)
"""What must be 0."""


def soak(
    recipe: Annotated[Path, typer.Argument(help="an sft, dpo or grpo recipe")],
    overrides: Overrides = None,
    steps: Annotated[int, typer.Option(help="how long both runs are", min=2)] = 200,
    kills: Annotated[int, typer.Option(help="how often the second one is killed", min=0)] = 3,
    processes: Annotated[int, typer.Option(help="ranks under torchrun, one of which is killed", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="of the steps at which it is killed")] = 0,
    out: Annotated[Path, typer.Option(help="a folder for both runs; an earlier soak in it goes")] = Path("runs/soak"),
    as_json: JsonFlag = False,
) -> None:
    """Run a recipe whole, and killed by SIGKILL at random steps: are losses and rows the same, does memory grow?

    Exit code 1 if anything differs. Example: clinalign soak recipes/sft/phantom_chest.yaml --steps 1000 --kills 5
    """
    from alignment.checks.read_recipe import read_recipe
    from alignment.resuming.soak import soak as run_soak

    refuse_foreign(out, mark="whole.log", kind="a soak")
    check_writable(out)
    refuse_needed(out, [recipe, *named_files(read_yaml(recipe))])
    refuse_others(out, is_own=is_of_soak, kind="a soak")
    read_recipe(recipe, overrides or [])  # its faults are told before a process is started
    with only_one(out):
        found = run_soak(recipe, overrides or [], folder=out, steps=steps, kills=kills, processes=processes, seed=seed)
    _show(found, "whole run and killed run", as_json)


def _show(found: Mapping[str, object], title: str, as_json: bool) -> None:
    if as_json:
        say_json(found)
    else:
        Console().print(_table(found, title))
    if any(found[name] for name in EXACT if name in found):
        raise typer.Exit(1)


def _table(found: Mapping[str, object], title: str) -> Table:
    table = Table("figure", "value", title=title)
    for name, value in found.items():
        table.add_row(name.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list) else str(value))
    return table


def ledger(run: Annotated[Path, typer.Argument(help="a run's folder")], as_json: JsonFlag = False) -> None:
    """Prove from a run's ledger that no row was skipped or seen twice. Exit code 1 if one was.

    Example: clinalign ledger runs/phantom_chest/sft
    """
    from alignment.resuming.ledger import proof

    _show(proof(run), f"ledger of {run}", as_json)
