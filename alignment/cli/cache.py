"""``clinalign cache``: what lies in the cache, and how to be rid of it."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from alignment.cli.output import JsonFlag, say
from rewards.config.input_error import InputError


def cache(
    run: Annotated[Path | None, typer.Argument(help="a run's folder; without it the shared CLINALIGN_CACHE")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove everything in it.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show where a run (or CLINALIGN_CACHE) keeps reference log-probabilities and image features, and what they take.

    Example: clinalign cache runs/phantom_chest/dpo --clear
    """
    from alignment.models.image_features import cache_sizes
    from alignment.shared_prefix.reference_cache import cache_folder

    if run is not None and not (run / "recipe.resolved.yaml").is_file():
        raise InputError(f"{run}: no run's folder (it has no recipe.resolved.yaml). Name a run such as runs/x/dpo.")
    sizes, folder = cache_sizes(run), cache_folder(run)
    held: dict[str, Any] = {"cache": str(folder), **sizes}
    if clear:
        for name in sizes:
            shutil.rmtree(folder / name)
        held["cleared"] = True
    say(held, as_json)
