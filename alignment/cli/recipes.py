"""``clinalign recipes``: the recipes that come with clinalign, in a checkout and in an installed wheel alike."""

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from alignment.cli.output import JsonFlag, say
from data_builders.output_folders import check_writable
from rewards.config.input_error import InputError, nearest
from rewards.config.json_lines import read_json
from rewards.config.shipped import RECIPES, shipped_recipes

KINDS = ("data", "sft", "pairs", "dpo", "grpo", "reward_model", "chains", "loops", "deepspeed", "architectures")
BESIDE = re.compile(r"(?<=recipe: )\.\./")
"""How a stage names a recipe in a folder beside its own."""
CONFIG = "config.json"
"""The one file of an architecture, which is named by its folder."""
SENTENCE_END = re.compile(r"(?<=\.)\s+(?=[A-Z])")
NAMED = re.compile(rf"{RECIPES}/[\w./-]+\.(?:yaml|json)")


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="a file to copy, such as sft/phantom_chest, or a kind to list, such as loops")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="a new file, or a folder; by default recipes/KIND here")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the recipes that come along, each with what it is; with a file's NAME, copy it here, to be edited.

    Any command takes such a path as it is listed. A file of that name below the working directory goes before it.

    Example: clinalign recipes sft/phantom_chest --to my_sft.yaml
    """
    listed = {path.as_posix(): file for path, file in _files()}
    if not name or name.strip("/") in KINDS:
        if to is not None:
            raise InputError(
                "--to: names where a copy goes; name the recipe to be copied too. clinalign recipes lists them."
            )
        of_kind = f"{RECIPES}/{name.strip('/')}/" if name else ""
        say({path: _what_it_is(file) for path, file in listed.items() if path.startswith(of_kind)}, as_json)
        return
    path = _path_of(name, [*listed])
    text = BESIDE.sub(f"{RECIPES}/", listed[path].read_text(encoding="utf-8"))
    copy = _written(text, _target(listed[path], to))
    say({"copied": str(copy), "reads": _named(text)}, as_json)


def _files() -> Iterator[tuple[Path, Path]]:
    """Every shipped file, kind by kind, after the path by which commands and recipes name it."""
    for kind in KINDS:
        for file in sorted((shipped_recipes() / kind).rglob("*.*")):
            if file.is_file():
                named = file.parent if file.name == CONFIG else file
                yield Path(RECIPES) / named.relative_to(shipped_recipes()), file


def _what_it_is(file: Path) -> str:
    """The first sentence of a recipe's header; of a DeepSpeed file its stage."""
    if file.suffix != ".json":
        text = file.read_text(encoding="utf-8")
        header = itertools.takewhile(lambda line: line.startswith("#") and "Run:" not in line, text.splitlines())
        return SENTENCE_END.split(" ".join(line.removeprefix("# ") for line in header))[0]
    content = read_json(file, "Install clinalign anew.")
    if zero := content.get("zero_optimization"):
        offloaded = [key.removeprefix("offload_") for key in zero if key.startswith("offload_")]
        return f"ZeRO-{zero['stage']}" + (f", {' and '.join(offloaded)} on the CPU" if offloaded else "")
    return f"the published sizes of {file.parent.name}, for clinalign check"


def _path_of(name: str, listed: list[str]) -> str:
    """The listed file of a name, which may leave out ``recipes/``, the ending and, if one only has the name, the kind.

    Raises: InputError with the nearest name, or with all that may be meant.
    """
    short = name.removeprefix(f"{RECIPES}/")
    known = {path: re.sub(r"\.(yaml|json)$", "", path.removeprefix(f"{RECIPES}/")) for path in listed}
    exact = [path for path, full in known.items() if short in (full, path.removeprefix(f"{RECIPES}/"))]
    found = exact or [path for path, full in known.items() if short == full.partition("/")[2]]
    if len(found) > 1:
        raise InputError(f"recipes: '{name}' may be {', '.join(found)}. Name one with its folder.")
    if not found:
        hint = nearest(short.removesuffix(".yaml"), [*known.values()]) or " See: clinalign recipes."
        raise InputError(f"recipes: no recipe named '{name}'.{hint}")
    return found[0]


def _target(file: Path, to: Path | None) -> Path:
    """Where the copy of a shipped file goes."""
    if to is None:
        return Path(RECIPES) / file.relative_to(shipped_recipes())
    return to if to.suffix == file.suffix and not to.is_dir() else to / file.name


def _written(text: str, file: Path) -> Path:
    """The file, once the text is in it. Raises: InputError where something is there, which is never written over."""
    if os.path.lexists(file):
        raise InputError(f"{file}: is there already, and is not written over. Name another place: --to FILE.")
    check_writable(file.parent)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def _named(text: str) -> list[str]:
    """The recipes that a recipe reads: the shipped ones, until they are copied too."""
    lines = (line.partition("#")[0] for line in text.splitlines())
    return [*dict.fromkeys(path for line in lines for path in NAMED.findall(line))]
