"""`clinalign audit-splits`: nothing of one split may be in another."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from alignment.cli.output import JsonFlag, say


def audit_splits_command(
    data: Annotated[Path, typer.Argument(help="a built data set, such as data/phantom_oct")],
    quarantine: Annotated[bool, typer.Option(help="Take the leaking rows out of the splits for training.")] = False,
    max_distance: Annotated[int, typer.Option(help="bits of 256 in which near-identical images may differ")] = 10,
    as_json: JsonFlag = False,
) -> None:
    """Find patients, studies, rows, images, near-identical images and reports that are in two splits; fail if any is.

    Example: clinalign audit-splits data/phantom_oct
    """
    from data_builders.splits.leakage import audit_splits
    from data_builders.splits.leakage import quarantine as take_out

    found = audit_splits(data, max_distance=max_distance)
    moved = take_out(data, found.leaks) if quarantine else 0
    if not quarantine:
        found.check(data)
    figures: dict[str, Any] = {"rows": found.num_rows, "pictures": found.num_pictures}
    leaks = dict(Counter(leak.kind for leak in found.leaks))
    say({**figures, "leaks": leaks, **({"quarantined": moved} if quarantine else {})}, as_json)
