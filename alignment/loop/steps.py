"""The steps of a loop, each with what it reads: what one process runs in turn, and a cluster as a job each.

A step is named by the folder that it fills, below the loop's output (``sft``, ``sft/evaluation``); ``build`` fills the
data set's, ``release`` compares and releases. Left out: running them (``loop/run_loop.py``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignment.checks.chains import stage_wiring
from alignment.config.methods import trains
from alignment.evaluation.kept_answers import is_finished
from alignment.loop.loop_file import UNTRAINED, Loop
from alignment.training.provenance import has_result
from data_builders.build.build_spec import BuildSpec, read_spec
from data_builders.build.given_rules import files_in
from data_builders.cards import CARD, RULES, read_card
from rewards.config.input_error import InputError, nearest
from rewards.config.overrides import with_overrides
from rewards.config.strict_yaml import read_yaml

BUILD, RELEASE = "build", "release"
OF_MODEL, OF_INIT = "evaluation", "init_evaluation"


@dataclass(frozen=True)
class Step:
    """``after``: the steps whose results it reads. ``stage``: the number of its stage in the chain, None of no stage.

    ``evaluates``: the name that comparisons know the evaluation by, a stage's or ``untrained``; None of a training.
    """

    name: str
    after: tuple[str, ...] = ()
    seed: int = 0
    stage: int | None = None
    evaluates: str | None = None

    @property
    def is_on_gpus(self) -> bool:
        """Whether it is shared out over ranks; the build and the release are the work of one process."""
        return self.stage is not None


def words_of(path: Path, overrides: Sequence[str], seeds: int) -> list[str]:
    """The command that runs a loop, but for its steps."""
    return ["run", str(path), *overrides, *(["--seeds", str(seeds)] if seeds > 1 else [])]


def base_seed(loop: Loop, path: Path) -> int:
    """The seed of the first stage's recipe; further seeds count from it."""
    first = read_yaml(loop.chain.stages[0].file(path))
    return int(first.get("trainer", {}).get("seed", 42))


def steps_of(loop: Loop, path: Path, seeds: int) -> list[Step]:
    """Every step for so many seeds, in an order in which each comes after what it reads.

    Raises: InputError if a stage has the name of another step.
    """
    if named := {BUILD, RELEASE} & {stage.name for stage in loop.chain.stages}:
        raise InputError(f"{path}: chain.stages: no stage can be named '{named.pop()}', as a step is. Rename it.")
    base = base_seed(loop, path)
    steps = [step for k in range(seeds) for step in _of_seed(loop, path, base + k, single=seeds == 1)]
    evaluations = tuple(step.name for step in steps if step.evaluates)
    return [Step(BUILD), *steps, Step(RELEASE, evaluations)]


def _of_seed(loop: Loop, path: Path, seed: int, *, single: bool) -> Iterator[Step]:
    above = "" if single else f"seed{seed}/"
    for index, stage in enumerate(loop.chain.stages):
        name = f"{above}{stage.name}"
        yield Step(name, (BUILD, *(f"{above}{read}" for read in _reads(loop, index, path))), seed, index)
        if index == 0 and any(UNTRAINED in c.stages for c in loop.compare):
            yield Step(f"{name}/{OF_INIT}", (name,), seed, index, UNTRAINED)
        if trains(_recipe(loop, index, path).get("method")):
            yield Step(f"{name}/{OF_MODEL}", (name,), seed, index, stage.name)


def _recipe(loop: Loop, index: int, path: Path) -> dict[str, object]:
    return read_yaml(loop.chain.stages[index].file(path))


def _reads(loop: Loop, index: int, path: Path) -> list[str]:
    """The earlier stages that a stage reads: whose folders its recipe names once it is wired and overridden.

    An override may take the place of what the chain would start it from, such as ``model.path=tiny``.
    """
    chain, stage = loop.chain, loop.chain.stages[index]
    wired = with_overrides(_recipe(loop, index, path), [*stage_wiring(chain, index, path), *stage.overrides])
    named = [*_texts({**wired, "output": ""})]
    return [
        s.name
        for s in chain.stages[:index]
        if s.name in stage.counterparts or any(f"{text}/".startswith(f"{chain.output}/{s.name}/") for text in named)
    ]


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _texts(value)


def step_named(name: str, steps: list[Step], path: Path) -> Step:
    """The step of this name.

    Raises: InputError if there is none, with the nearest name.
    """
    for step in steps:
        if step.name == name:
            return step
    known = [step.name for step in steps]
    hint = nearest(name, known) or f" There are: {', '.join(known)}."
    raise InputError(f"--step {name}: {path} has no such step.{hint}")


def check_inputs(step: Step, steps: list[Step], loop: Loop, *, again: str) -> None:
    """Before a step is done by itself: what it reads is there. ``again``: the command for a step, but for its name.

    Raises: InputError naming the first step that must come before it.
    """
    for other in (known for known in steps if known.name in step.after and not _is_made(known, loop)):
        raise InputError(
            f"--step {step.name}: reads what step '{other.name}' makes, which is not done. Do that first: "
            f"{again} {other.name}"
        )


def _is_made(step: Step, loop: Loop) -> bool:
    if step.name == BUILD:
        return is_built(read_spec(Path(loop.spec), []))
    folder = Path(loop.chain.output) / step.name
    if step.evaluates:
        return is_finished(folder)
    return has_result(folder)


def is_built(spec: BuildSpec) -> bool:
    """Whether the data set is there as this spec asks for it, under the files of rules that it names as they are now.

    A key that its card does not know is as one left out.
    """
    folder = Path(spec.output)
    if not (folder / CARD).is_file():
        return False
    card, wanted = read_card(folder), spec.model_dump(mode="json")
    built, kept = card.get("spec"), card.get(RULES) or {}
    unknown = {key: [] if value == [] else None for key, value in wanted.items()}
    is_same = isinstance(built, dict) and {**unknown, **built} == wanted
    return is_same and all(kept.get(name) == file.sha256 for name, file in files_in(spec).items())
