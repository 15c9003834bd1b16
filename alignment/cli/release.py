"""``clinalign verify``: is a release what it was when it was made?"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from alignment.cli.output import JsonFlag, say_json


def verify(folder: Annotated[Path, typer.Argument(help="a released folder")], as_json: JsonFlag = False) -> None:
    """Check a release against its manifest: files that changed, are missing, or were added. Exit code 1 if any.

    Compared are the names and bytes of files; an added folder is told too. Left out: who may read or run a file, its
    owner and its times.

    Example: clinalign verify released/phantom_chest
    """
    from alignment.release.manifest import faults_of

    faults = faults_of(folder)
    if as_json:
        listed = [{"file": name, "fault": fault} for name, fault in faults.items()]
        say_json({"folder": str(folder), "verified": not faults, "faults": listed})
    else:
        lines = [f"{name!a} {fault}" for name, fault in faults.items()]
        for line in lines or [f"verified: {folder}"]:
            Console().print(line, highlight=False, markup=False, soft_wrap=True)
    if faults:
        raise typer.Exit(1)
