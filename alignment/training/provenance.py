"""What a run was made of, kept in its folder; and whether it stands for that still."""

import json
import os
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import cast

import yaml

from alignment.config.data_entries import parquet
from alignment.config.recipe import Recipe
from alignment.distributed.processes import is_main_process
from alignment.distributed.ranks import of_rank_0
from alignment.distributed.shared_folder import check_same, same_bytes
from alignment.provenance.kept_rules import rules_of_run
from data_builders.digest import sha256
from data_builders.entries import file_of_entry
from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json
from rewards.rules.kept_files import check_kept, keep

PACKAGES = ("clinalign", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "deepspeed")


def is_finished(recipe: Recipe, folder: Path) -> bool:
    """True if this very recipe was run to its end.

    Raises: InputError if another recipe was.
    """
    saved = folder / "recipe.resolved.yaml"
    if not saved.is_file():
        return False
    before, now = yaml.safe_load(saved.read_text(encoding="utf-8")), recipe.model_dump(mode="json")
    if _of_training(before) != _of_training(now):
        raise InputError(
            f"{folder}: holds a run of another recipe. Name another output=FOLDER, or add --fresh to replace it."
        )
    if before != now and is_main_process():  # `eval` reads from it how answers are generated
        from alignment.resuming.checkpoints import write_whole

        write_whole(saved, yaml.safe_dump(now, sort_keys=False))
    if is_ended := has_result(folder):
        _check_origin(recipe, folder)
        check_kept(folder, rules_of_run(recipe))
    return is_ended


def _of_training(recipe: object) -> object:
    """A recipe but for how its model is evaluated; a section that an older version did not know is an empty one."""
    if not isinstance(recipe, dict):
        return recipe
    content = cast(dict[str, object], recipe)
    return {"rule_sets": [], **{key: value for key, value in content.items() if key != "generation"}}


def has_result(folder: Path) -> bool:
    """Whether a run was gone through to its end, by the model or the pairs that it writes last."""
    ends = ("model/config.json", "model/adapter_config.json", "preference/pairs.parquet")
    return any((folder / name).is_file() for name in ends)


def _check_origin(recipe: Recipe, folder: Path) -> None:
    """A finished run stands for what it was made of. What is no longer there at all is not asked for.

    Raises: InputError if the earlier run that it started from has other weights now, or its data other rows.
    """
    facts = read_json(folder / "provenance.json", "") if (folder / "provenance.json").is_file() else {}
    again = "Add --fresh to train it anew, or name another output=FOLDER."
    start, train = facts.get("started_from_sha256"), recipe.data.train
    if start and start != (_start_sha256(recipe.model.path) or start):
        raise InputError(f"{folder}: was trained from other weights of {recipe.model.path} than are there now. {again}")
    file = file_of_entry(train)
    before = facts.get("data_sha256", {}).get(train)
    if before and file.is_file() and before != sha256(file):
        raise InputError(f"{folder}: was trained on other rows of {train} than are there now. {again}")


def _start_sha256(path: str) -> str | None:
    """SHA-256 of the weights of an earlier run; None for a base model, which no command of ours trains anew."""
    if not (Path(path) / "recipe.resolved.yaml").is_file():
        return None
    from alignment.provenance.weights_digest import model_sha256

    return model_sha256(path)


def write_provenance(recipe: Recipe, folder: Path) -> None:
    """The resolved recipe, versions, commit, seed, the data's SHA-256 and the files that rule them, by rank 0.

    Raises: InputError if a node has other data or rules, or the run was begun under other rules.
    """
    read = [recipe.data.train, *([recipe.sampling.built] if recipe.sampling.built else [])]
    digests = {name: same_bytes(parquet(name)) for name in read}
    rules = rules_of_run(recipe)
    check_same("the rule sets", {name: file.sha256 for name, file in rules.items()})
    of_rank_0(lambda: check_kept(folder, rules))
    if not is_main_process():
        return
    from alignment.resuming.checkpoints import write_whole

    content = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
    write_whole(folder / "recipe.resolved.yaml", content)
    facts = {
        "packages": {name: version(name) for name in PACKAGES},
        "git_commit": git_commit(),
        "seed": recipe.trainer.get("seed", 42),
        "data_sha256": {recipe.data.train: digests[recipe.data.train]},
        "started_from": recipe.model.path,
        "started_from_sha256": _start_sha256(recipe.model.path),
    }
    if rules:
        facts["rules"] = keep(folder, rules)
    if told := _inexact_resumes(folder / "provenance.json"):
        facts["inexact_resumes"] = told
    write_whole(folder / "provenance.json", json.dumps(facts, indent=2))


def _inexact_resumes(provenance: Path) -> list[object]:
    """Where the run so far went on under another number of ranks (``inexact.py``)."""
    return read_json(provenance, "").get("inexact_resumes", []) if provenance.is_file() else []


def git_commit(package: Path = Path(__file__).parents[1]) -> str | None:
    """The commit of the checkout that the package's own folder is part of; None if it is of none.

    A repository that merely holds the package, such as that of a user whose environment lies in it, is not told.
    """
    if not _asked_of_git(package, "ls-files"):  # nothing there is tracked
        return None
    return _asked_of_git(package, "rev-parse", "HEAD") or None


def _asked_of_git(folder: Path, *words: str) -> str:
    """What git says of a folder, whatever the environment names as its repository; nothing where it fails."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=plain)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
