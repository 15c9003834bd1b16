"""One run from one recipe: prepare, train (or go on from the last checkpoint), save with its provenance.

A run's folder: ``recipe.resolved.yaml``, ``provenance.json``, ``checkpoints/``, ``log.jsonl``, ``model/`` (once done).
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from alignment.checks.trainer_faults import check_config
from alignment.config.checkpoint_folders import check_model_name
from alignment.config.data_entries import parquet
from alignment.config.methods import METHODS
from alignment.config.own_files import is_of_run
from alignment.config.recipe import Recipe
from alignment.distributed.engine import (
    free_memory,
    let_go,
    loaded_objects_left_alone,
)
from alignment.distributed.ranks import agreed, from_all, num_ranks, of_rank_0
from alignment.distributed.shared_folder import check_same, check_shared, forget_marks
from alignment.training.provenance import is_finished, write_provenance
from alignment.training.trainer import make_trainer
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
        write_provenance(recipe, folder)
        with stands(lambda: _what_stands(folder)):
            method = METHODS[recipe.method]
            if method.trains:
                _train(recipe, folder, inexact=inexact)
            else:
                method.maker(recipe)
        free_memory()
        of_rank_0(lambda: _forget_rows(folder))  # behind which the next stage finds the model, and nobody reads rows
    return folder


def _is_done(recipe: Recipe, folder: Path, held: contextlib.ExitStack, *, fresh: bool, inputs: Iterable[Path]) -> bool:
    """Whether nothing is left to do, as rank 0 sees it; else the folder is ours (``held``) and ready.

    Raises: InputError as ``run`` does.
    """
    if not fresh and is_finished(recipe, folder):
        _forget_rows(folder)
        return True
    held.enter_context(only_one(folder))
    _clear(folder, recipe, fresh=fresh, inputs=inputs)
    if not fresh and is_finished(recipe, folder):
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
    if asked := getattr(trainer, "end_request", None):
        asked.end_if_requested(trainer.args)
    let_go(trainer)
