"""A chain out of its file, and the recipe of each of its stages, wired to the stages before it."""

from pathlib import Path

from alignment.checks.read_recipe import check_shapes, read_recipe
from alignment.config.chain import Chain, Stage
from alignment.config.methods import METHODS, trains
from alignment.config.recipe import Recipe
from rewards.config.input_error import InputError
from rewards.config.overrides import Override, with_overrides
from rewards.config.strict_yaml import read_yaml, validated
from rewards.config.yaml_lines import Written


def is_chain(path: Path) -> bool:
    """Whether a file holds a chain of recipes, not a recipe. Raises: InputError for a loop."""
    content = read_yaml(path)
    if {"spec", "chain"} <= set(content):
        raise InputError(f"{path}: a loop, and no recipe or chain. Run it: clinalign run {path}")
    return "stages" in content


def read_chain(path: Path, overrides: list[str]) -> Chain:
    """The chain in a ``stages:`` file, after overrides.

    Raises: InputError as ``check_stages`` does.
    """
    chain = validated(Chain, with_overrides(read_yaml(path), overrides), where=Written(path, overrides))
    check_stages(chain, path)
    return chain


def check_stages(chain: Chain, path: Path) -> None:
    """Before the first stage trains: what is wrong in any of them, whatever the stages before it make.

    Raises: InputError with all of it, such as a DeepSpeed file that is not there.
    """
    check_shapes(
        (stage.file(path), [*stage_wiring(chain, index, path), *stage.overrides])
        for index, stage in enumerate(chain.stages)
    )


def stage_recipe(chain: Chain, index: int, path: Path, *, seed: int | None = None, pool: str | None = None) -> Recipe:
    """The recipe of one stage, wired to the stages before it. Faults name the stage's own file.

    ``pool``: the data entry with the answers of its ``counterparts``, where it names any.
    """
    stage = chain.stages[index]
    file, wiring = stage.file(path), stage_wiring(chain, index, path)
    if pool is not None:
        wiring.append(("data.train", pool))
    return read_recipe(file, [*wiring, *stage.overrides, *_seeds(file, seed)])


def stage_wiring(chain: Chain, index: int, path: Path) -> list[Override]:
    """What a stage is given by the stages before it, but for the answers of its ``counterparts``."""
    stage = chain.stages[index]
    file = stage.file(path)
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
    method = METHODS.get(str(read_yaml(file).get("method")))
    return [(key, seed) for key in (method.seeds if method else ())]


def _last_trained(chain: Chain, index: int, path: Path) -> str | None:
    """The last earlier stage that saved a model."""
    trained = [s.name for s in chain.stages[:index] if trains(_method_of(s, path))]
    return trained[-1] if trained else None


def _method_of(stage: Stage, path: Path) -> str:
    return str(read_yaml(stage.file(path)).get("method"))
