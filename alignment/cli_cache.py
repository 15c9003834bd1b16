"""``clinalign cache``: what lies in the cache, and how to be rid of it."""

import shutil
from typing import Annotated, Any

import typer

from alignment.cli_output import JsonFlag, say


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove everything in it.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show where reference log-probabilities and image features are kept (CLINALIGN_CACHE), and what they take.

    Example: clinalign cache --clear
    """
    from alignment.image_features import cache_sizes
    from alignment.reference_cache import cache_folder

    held: dict[str, Any] = {"cache": str(cache_folder()), **cache_sizes()}
    if clear:
        for name in cache_sizes():
            shutil.rmtree(cache_folder() / name)
        held["cleared"] = True
    say(held, as_json)
