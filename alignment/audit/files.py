"""Audits of files: of a recipe, or of each GRPO stage of a chain or loop; and what their headers say of known attacks.

A header lists the attacks that beat honesty in comment lines ``# Beaten by: NAME, NAME``, in a chain or loop
``# Beaten by (STAGE): NAME, NAME``. Left out: stages rewarded by judges that no audit can ask, which are named.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignment.audit.findings import Audit
from alignment.audit.run import audit
from alignment.checks.chains import stage_recipe
from alignment.checks.read_recipe import read_recipe
from alignment.config.chain import Chain, Stage
from alignment.config.recipe import Recipe
from data_builders.output_folders import check_file, check_writable
from rewards.config.input_error import InputError
from rewards.config.overrides import with_overrides
from rewards.config.strict_yaml import read_text, read_yaml, validated
from rewards.config.yaml_lines import Written

PAGES = (".html", ".htm")
HEAD = 1000
LISTED = re.compile(r"#\s*Beaten by(?: \((?P<stage>[^)]+)\))?:\s*(?P<names>.+)")


def beaten_by(path: Path, stage: str | None = None) -> tuple[str, ...]:
    """The attacks that a file's header lists, for one ``stage`` or for the file itself; several lines add up."""
    lines = read_text(path).splitlines()
    header = [line for k, line in enumerate(lines) if all(before.startswith("#") for before in lines[: k + 1])]
    found = [match for line in header if (match := LISTED.fullmatch(line.strip())) and match["stage"] == stage]
    return tuple(name.strip() for match in found for name in match["names"].split(",") if name.strip())


def audits(path: Path, overrides: list[str], *, limit: int, out: Path | None) -> Iterator[tuple[Audit, Path]]:
    """The audit of a recipe, or of each stage that has rewards, with the page that was written."""
    chain = _chain(path, overrides)
    if chain is None:
        if out is not None:
            check_file(out, kinds=PAGES, inputs=[path], is_own=_is_page)
        recipe = read_recipe(path, overrides)
        page = out or Path(recipe.output) / "audit.html"
        check_file(page, kinds=PAGES, is_own=_is_page)
        yield audit(recipe, name=str(path), limit=limit, page=page, listed=beaten_by(path)), page
        return
    if out is not None:
        check_writable(out)
    found: list[tuple[Recipe, Path, Stage]] = []
    for index, stage in enumerate(chain.stages):
        if stage.counterparts or "rewards" not in read_yaml(stage.file(path)):
            continue  # counterparts are answers of models that the chain has yet to train
        recipe: Recipe = stage_recipe(chain, index, path)
        page = (out / stage.name if out else Path(recipe.output)) / "audit.html"
        check_file(page, kinds=PAGES, is_own=_is_page)
        found.append((recipe, page, stage))
    for recipe, page, stage in found:
        listed = beaten_by(path, stage.name)
        yield audit(recipe, name=f"{path} ({stage.name})", limit=limit, page=page, listed=listed), page


def _is_page(file: Path) -> bool:
    """Whether the file is a page of an earlier audit."""
    with file.open(encoding="utf-8", errors="replace") as opened:
        return "\n<title>Audit of " in opened.read(HEAD)


def _chain(path: Path, overrides: list[str]) -> Chain | None:
    """The chain in a chain's or loop's file; None for a recipe."""
    read = with_overrides(read_yaml(path), overrides)
    content: Any = read.get("chain", read)
    if not isinstance(content, dict):
        raise InputError(f"{path}: chain: expected keys and values, got {type(content).__name__}.")
    if "stages" not in content:
        return None
    chain = validated(Chain, content, where=Written(path, overrides, ("chain",) if "chain" in read else ()))
    if not any("rewards" in read_yaml(stage.file(path)) for stage in chain.stages):
        raise InputError(f"{path}: no stage has rewards, so there is nothing to audit.")
    return chain
