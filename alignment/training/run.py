"""One run from one recipe: prepare, train (or go on from the last checkpoint), save with its provenance.

A run's folder: ``recipe.resolved.yaml``, ``provenance.json``, ``checkpoints/``, ``log.jsonl``, ``model/`` (once done).
"""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from alignment.config.own_files import is_of_run
from alignment.config.recipe import Chain, Recipe, Stage, check_shapes, file_of_entry, kept_places, parquet, read_recipe
from alignment.config.trainer_faults import check_config, check_model_name, told_of_trl
from alignment.distributed.engine import (
    free_memory,
    is_main_process,
    let_go,
    loaded_objects_left_alone,
    prepare_deepspeed,
)
from alignment.distributed.ranks import agreed, alone_at, from_all, num_ranks, of_rank_0
from alignment.distributed.shared_folder import check_same, check_shared, forget_marks, same_bytes
from data_builders.digest import sha256
from data_builders.interruptions import stands
from data_builders.locks import only_one
from data_builders.output_folders import (
    named_files,
    recover,
    refuse_foreign,
    refuse_needed,
    refuse_nested,
    refuse_others,
    remove,
)
from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json
from rewards.config.overrides import Override, with_overrides
from rewards.config.strict_yaml import read_yaml, validated

PACKAGES = ("clinalign", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "deepspeed")


def run(recipe: Recipe, *, fresh: bool = False, inexact: bool = False, inputs: Iterable[Path] = ()) -> Path:
    """Trains and returns the run's folder. A finished run of the same recipe is left as it is.

    ``fresh`` replaces the run that is there. ``inexact`` lets it go on from a checkpoint of another number of
    ranks. ``inputs``: files that are read beside those that the recipe names, such as its own.

    Raises: InputError if the folder holds a run of another recipe, something that is no run, or (with ``fresh``)
    something that is needed; and if another process trains there.
    """
    folder = Path(recipe.output)
    check_same("the recipe", recipe.model_dump(mode="json"))
    with contextlib.ExitStack() as held:
        if of_rank_0(lambda: _is_done(recipe, folder, held, fresh=fresh, inputs=inputs)):
            return folder
        agreed(lambda: _check_here(recipe))
        check_shared(folder)
        _write_provenance(recipe, folder)
        with stands(lambda: _what_stands(folder)):
            if recipe.method == "pairs":
                from alignment.pairs.write_pairs import write_pairs

                write_pairs(recipe)
            else:
                _train(recipe, folder, inexact=inexact)
        free_memory()
        of_rank_0(lambda: _forget_rows(folder))  # behind which the next stage finds the model, and nobody reads rows
    return folder


def _is_done(recipe: Recipe, folder: Path, held: contextlib.ExitStack, *, fresh: bool, inputs: Iterable[Path]) -> bool:
    """Whether nothing is left to do, as rank 0 sees it; else the folder is ours (``held``) and ready.

    Raises: InputError as ``run`` does.
    """
    if not fresh and _is_finished(recipe, folder):
        _forget_rows(folder)
        return True
    held.enter_context(only_one(folder))
    _clear(folder, recipe, fresh=fresh, inputs=inputs)
    if not fresh and _is_finished(recipe, folder):
        _forget_rows(folder)
        return True
    return False


def _check_here(recipe: Recipe) -> None:
    """Raises: InputError if TRL refuses the settings, or the model is not on this node."""
    check_config(recipe, here=True)
    check_model_name(recipe.model.path)


def _forget_rows(folder: Path) -> None:
    from alignment.data.row_cache import ROWS, forget_rows

    forget_rows(folder / ROWS)


def _what_stands(folder: Path) -> str:
    from alignment.resuming.checkpoints import goes_on_from

    return goes_on_from(folder)


def _clear(folder: Path, recipe: Recipe, *, fresh: bool, inputs: Iterable[Path]) -> None:
    """Sets right what a killed run left, refuses what is no run, and removes the run that is there if asked to."""
    recover(folder)
    forget_marks(folder)
    refuse_foreign(folder, mark="recipe.resolved.yaml", kind="a run", besides=["launch.sbatch"])
    if fresh:
        named = [Path(recipe.model.path), parquet(recipe.data.train), *named_files(recipe.model_dump(mode="json"))]
        refuse_needed(folder, [*named, *inputs])
        refuse_nested(folder)
        refuse_others(folder, is_own=is_of_run, kind="a run")
        remove(folder)


def run_chain(
    path: Path,
    overrides: list[str] | None = None,
    *,
    fresh: bool = False,
    inexact: bool = False,
    seed: int | None = None,
) -> list[Path]:
    """Every stage of a chain in order; finished stages are left as they are."""
    chain = agreed(lambda: read_chain(path, overrides or []))
    inputs = [path, *(path.parent / stage.recipe for stage in chain.stages)]
    with contextlib.ExitStack() as held:
        held.enter_context(alone_at(Path(chain.output)))
        check_shared(Path(chain.output))
        if fresh:
            agreed(lambda: refuse_others_in_stages(chain))
        return [
            run(
                agreed(partial(stage_recipe, chain, index, path, seed=seed)),
                fresh=fresh,
                inexact=inexact,
                inputs=inputs,
            )
            for index in range(len(chain.stages))
        ]


def refuse_others_in_stages(chain: Chain) -> None:
    """Before a chain replaces its runs, and so before the first of them trains. Raises: InputError as ``run`` does."""
    for stage in chain.stages:
        refuse_others(Path(chain.output) / stage.name, is_own=is_of_run, kind="a run")


def read_chain(path: Path, overrides: list[str]) -> Chain:
    """The chain in a ``stages:`` file, after overrides.

    Raises: InputError as ``check_stages`` does.
    """
    chain = validated(Chain, with_overrides(read_yaml(path), overrides), where=str(path))
    check_stages(chain, path)
    return chain


def check_stages(chain: Chain, path: Path) -> None:
    """Before the first stage trains: what is wrong in any of them, whatever the stages before it make.

    Raises: InputError with all of it, such as a DeepSpeed file that is not there.
    """
    check_shapes(
        (path.parent / stage.recipe, [*stage_wiring(chain, index, path), *stage.overrides])
        for index, stage in enumerate(chain.stages)
    )


def stage_recipe(chain: Chain, index: int, path: Path, *, seed: int | None = None) -> Recipe:
    """The recipe of one stage, wired to the stages before it. Faults name the stage's own file.

    Where the stage names ``counterparts``, their answers are written first, unless they are there.
    """
    stage = chain.stages[index]
    file, wiring = path.parent / stage.recipe, stage_wiring(chain, index, path)
    if stage.counterparts:
        from alignment.reward_functions.counterparts import pool_of_stage

        wiring.append(("data.train", pool_of_stage(chain, stage, file, wiring)))
    return read_recipe(file, [*wiring, *stage.overrides, *_seeds(file, seed)])


def stage_wiring(chain: Chain, index: int, path: Path) -> list[Override]:
    """What a stage is given by the stages before it, but for the answers of its ``counterparts``."""
    stage = chain.stages[index]
    file = path.parent / stage.recipe
    wiring: list[Override] = [("output", f"{chain.output}/{stage.name}")]
    start = stage.model or _last_trained(chain, index, path)
    if start:
        wiring.append(("model.path", f"{chain.output}/{start}"))
    if stage.train:
        wiring.append(("data.train", f"{chain.output}/{stage.train}/preference/pairs"))
    elif chain.data:
        wiring.append(("data.train", f"{chain.data}/{'/'.join(_train_of(file).split('/')[-2:])}"))
    return wiring


def _train_of(file: Path) -> str:
    """The data that a stage's own recipe names; nothing where it names none, which its reader says."""
    section = read_yaml(file).get("data")
    return str(section.get("train", "")) if isinstance(section, dict) else ""


def _seeds(file: Path, seed: int | None) -> list[Override]:
    if seed is None:
        return []
    method = read_yaml(file).get("method")
    return [("sampling.seed", seed)] if method == "pairs" else [("trainer.seed", seed), ("model.seed", seed)]


def _last_trained(chain: Chain, index: int, path: Path) -> str | None:
    """The last earlier stage that saved a model."""
    trained = [s.name for s in chain.stages[:index] if _method_of(s, path) != "pairs"]
    return trained[-1] if trained else None


def _method_of(stage: Stage, path: Path) -> str:
    return str(read_yaml(path.parent / stage.recipe).get("method"))


def _is_finished(recipe: Recipe, folder: Path) -> bool:
    """True if this very recipe was run to its end.

    Raises: InputError if another recipe was.
    """
    saved = folder / "recipe.resolved.yaml"
    if not saved.is_file():
        return False
    if yaml.safe_load(saved.read_text(encoding="utf-8")) != recipe.model_dump(mode="json"):
        raise InputError(
            f"{folder}: holds a run of another recipe. Name another output=FOLDER, or add --fresh to replace it."
        )
    if is_ended := has_result(folder):
        _check_origin(recipe, folder)
    return is_ended


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


def _write_provenance(recipe: Recipe, folder: Path) -> None:
    """The resolved recipe, versions, commit, seed and the data's SHA-256, by rank 0.

    Raises: InputError if a node has other data.
    """
    from alignment.resuming.checkpoints import write_whole

    read = [recipe.data.train, *([recipe.sampling.built] if recipe.sampling.built else [])]
    digests = {name: same_bytes(parquet(name)) for name in read}
    if not is_main_process():
        return
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
    if told := _inexact_resumes(folder / "provenance.json"):
        facts["inexact_resumes"] = told
    write_whole(folder / "provenance.json", json.dumps(facts, indent=2))


def _inexact_resumes(provenance: Path) -> list[Any]:
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


def _train(recipe: Recipe, folder: Path, *, inexact: bool = False) -> None:
    from alignment.resuming.finite import check_weights
    from alignment.resuming.rank_layout import begun_with, on_ranks
    from alignment.resuming.training import train_from_last_checkpoint
    from alignment.training.run_log import GrowingLog

    (begun, *_) = from_all(begun_with(folder / "checkpoints"))
    trainer = make_trainer(agreed(lambda: on_ranks(recipe, begun, num_ranks())), folder)
    trainer.begun_with = begun
    trainer.add_callback(GrowingLog(folder / "log.jsonl"))
    with loaded_objects_left_alone():
        train_from_last_checkpoint(trainer, folder, inexact=inexact)
    check_weights(trainer)
    unfinished = folder / "model.unfinished"
    trainer.save_model(str(unfinished))
    if trainer.is_world_process_zero():
        trainer.processing_class.save_pretrained(unfinished)
        unfinished.replace(folder / "model")  # from here on the run counts as finished
    if asked := getattr(trainer, "asked_to_end", None):
        asked.end_if_asked(trainer.args)
    let_go(trainer)


def make_trainer(recipe: Recipe, folder: Path) -> Any:
    """TRL's trainer for a recipe, model loaded and frozen as asked, ready to train."""
    from transformers import AutoConfig

    from alignment.config.foreign_code import pretrained
    from alignment.data.fitting_rows import rows_to_train_on, with_ids
    from alignment.data.row_cache import ROWS, stored_rows
    from alignment.models.loading import (
        base_of,
        check_generation,
        check_sees,
        freeze,
        load_model,
        load_processor,
        lora_config,
        model_options,
        prepared_model,
    )
    from alignment.models.model_files import told_of_weights
    from alignment.models.module_settings import set_modules
    from alignment.resuming.training import note_rows

    arguments = trainer_arguments(recipe, folder)
    path = prepared_model(recipe)
    data = stored_rows(parquet(recipe.data.train), folder / ROWS).select(kept_places(recipe))
    check_sees(pretrained(AutoConfig, base_of(path)), path)
    check_generation(path)
    processor = load_processor(path, max_pixels=recipe.model.max_pixels)
    data, lengths = rows_to_train_on(recipe, processor, with_ids(data), path, run=folder)
    if recipe.method == "sft" and recipe.data.too_long != "cut":
        arguments.pop("max_length", None)  # every row fits, and nothing is cut
    is_adapter = (Path(path) / "adapter_config.json").is_file()
    model: Any = (
        load_model(path, dtype=recipe.model.dtype, attention=recipe.model.attention, trainable=True)
        if is_adapter
        else path
    )
    if not is_adapter:
        arguments["model_init_kwargs"] = {
            **model_options(recipe.model),
            **arguments.get("model_init_kwargs", {}),
        }
    with told_of_weights(path), told_of_trl():
        trainer = _maker(recipe.method)(
            recipe, model, processor, data,
            arguments=arguments, peft_config=None if is_adapter else lora_config(recipe.model.lora),
        )  # fmt: skip
    freeze(trainer.model, list(recipe.model.freeze))
    if recipe.model.cache_image_features:
        from alignment.models.image_features import cache_image_features

        cache_image_features(trainer.model, reference=getattr(trainer, "ref_model", None), run=folder)
    set_modules(trainer, recipe.model)
    note_rows(trainer, recipe.data, lengths)
    return trainer


def _maker(method: str) -> Any:
    if method == "sft":
        from alignment.training.sft import sft_trainer as maker
    elif method == "dpo":
        from alignment.training.dpo import dpo_trainer as maker
    elif method == "reward_model":
        from alignment.training.reward_training import reward_trainer as maker
    else:
        from alignment.training.grpo import grpo_trainer as maker
    return maker


def trainer_arguments(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """The recipe's trainer section over clinalign's defaults: no tracker, no upload, the model's own precision."""
    from alignment.config.library_names import installed_keys
    from alignment.models import kernels

    defaults: dict[str, Any] = {
        "output_dir": str(folder / "checkpoints"),
        "report_to": "none",
        "push_to_hub": False,
        "bf16": recipe.model.dtype == "bfloat16",
        "save_total_limit": 2,
        "logging_steps": 10,
        **kernels.liger(recipe.model),
    }
    return prepare_deepspeed({**defaults, **installed_keys(recipe.trainer)})
