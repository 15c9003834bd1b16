"""A recipe or a chain trained from its file; a chain stage by stage."""

import contextlib
from functools import partial
from pathlib import Path

from alignment.checks.chains import is_chain, read_chain, stage_recipe, stage_wiring
from alignment.checks.read_recipe import read_recipe
from alignment.config.chain import Chain
from alignment.config.own_files import is_of_run
from alignment.config.recipe import Recipe
from alignment.distributed.ranks import agreed, alone_at
from alignment.distributed.shared_folder import check_shared
from alignment.training.run import run
from data_builders.output_folders import (
    refuse_others,
)


def run_file(file: Path, overrides: list[str], *, fresh: bool = False, inexact: bool = False) -> list[Path]:
    """The folder of a recipe's run, or of every stage of a chain, as their file asks for.

    Raises: InputError with every fault of the file, and as ``run`` does.
    """
    if agreed(lambda: is_chain(file)):
        return run_chain(file, overrides, fresh=fresh, inexact=inexact)
    recipe = agreed(lambda: read_recipe(file, overrides))
    return [run(recipe, fresh=fresh, inexact=inexact, inputs=[file])]


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
    inputs = [path, *(stage.file(path) for stage in chain.stages)]
    with contextlib.ExitStack() as held:
        held.enter_context(alone_at(Path(chain.output)))
        check_shared(Path(chain.output))
        if fresh:
            agreed(lambda: refuse_others_in_stages(chain))
        return [
            run(
                agreed(partial(stage_to_train, chain, index, path, seed=seed)),
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


def stage_to_train(chain: Chain, index: int, path: Path, *, seed: int | None = None) -> Recipe:
    """The recipe of a stage whose turn it is; answers of its ``counterparts`` are written first.

    Raises: InputError as ``stage_recipe`` does.
    """
    stage = chain.stages[index]
    if not stage.counterparts:
        return stage_recipe(chain, index, path, seed=seed)
    from alignment.reward_functions.counterparts import pool_of_stage

    pool = pool_of_stage(chain, stage, stage.file(path), stage_wiring(chain, index, path))
    return stage_recipe(chain, index, path, seed=seed, pool=pool)
