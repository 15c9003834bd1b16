"""Commands on data: build a set, export its pairs, audit its splits, show what a model is given for a row."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alignment.cli.output import JsonFlag, Overrides, say

if TYPE_CHECKING:
    from rewards.llm.client import Backend
    from rewards.llm.spec import LlmSpec


def build(
    spec: Annotated[Path, typer.Argument(help="a data spec, such as recipes/data/phantom_chest.yaml")],
    overrides: Overrides = None,
    as_json: JsonFlag = False,
) -> None:
    """Build a data set: rows as Parquet, card.json, and gallery.html to look at.

    Example: clinalign build recipes/data/phantom_chest.yaml
    """
    from data_builders.build.build import build as build_data
    from data_builders.build.build_spec import read_spec
    from data_builders.cards import read_card

    out = build_data(read_spec(spec, overrides or []), local=_local_backend, inputs=[spec])
    card = read_card(out)
    figures = {name: card[name] for name in ("counts", "preference", "notes") if card.get(name)}
    say({"built": str(out), "gallery": str(out / "gallery.html"), **figures}, as_json)


def _local_backend(llm: "LlmSpec") -> "Backend":
    """The backend of a local LLM; torch is loaded here and not before."""
    from alignment.reward_functions.adapter import local_backend

    return local_backend(llm)


def export(
    data: Annotated[str, typer.Argument(help="preference rows, such as data/mmedpo_phantom/preference/align")],
    shape: Annotated[str, typer.Argument(metavar="FORMAT", help="mmedpo, llava, ms_swift or trl")],
    out: Annotated[Path, typer.Argument(help="a new folder for the file of pairs and its images")],
    as_json: JsonFlag = False,
) -> None:
    """Write preference pairs in another trainer's shape, and count what is weak in them."""
    from alignment.config.data_entries import parquet
    from data_builders.formats.export import export as export_pairs

    say(export_pairs(parquet(data), shape, out), as_json)


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


def inspect(
    data: str,
    row: Annotated[int, typer.Option(help="which row")] = 0,
    model: Annotated[str, typer.Option(help="whose processor; without it only the row is shown")] = "",
    out: Annotated[Path, typer.Option(help="where to write the image as processed")] = Path("inspect.png"),
    as_json: JsonFlag = False,
) -> None:
    """Show what the model is given for one row: image as processed, tokens, label mask, image-token count."""
    from alignment.cli.inspection import inspect_row

    say(inspect_row(data, row, model, out), as_json)
