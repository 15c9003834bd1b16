"""What a loop file says, and every name in it that cannot be, before anything is built or trained.

Left out: findings in brackets and keys of a training's log, which are judged where the figures are gathered.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from alignment.config.chain import Chain
from alignment.config.generation_section import GenerationSection
from alignment.config.methods import trains
from alignment.loop.figures import EQUAL_RECALL, fault_of_name, is_figure
from alignment.metrics.metric_names import CONDITIONS
from rewards.config.input_error import InputError, nearest
from rewards.config.overrides import Override, with_overrides
from rewards.config.strict_model import StrictModel
from rewards.config.strict_yaml import read_yaml, validated
from rewards.config.yaml_lines import Written

UNTRAINED = "untrained"
"""The first stage's model before its training; it is evaluated without controls."""
OF_REFERENCE = ("habit", "mean_box_true_side")
"""Controls that take their answers from the loop's ``reference``."""


def _can_be(name: str) -> str:
    if fault := fault_of_name(name):
        raise ValueError(fault)
    return name


class StageComparison(StrictModel):
    """``after`` against ``before``: two stages, or a stage against its own control (``sft/shuffled``).

    ``metrics``: of the answers, or figures of the stages (``loop/figures.py``), which have a ``/`` in their names.
    ``opponents``: stages whose reports both sides are judged against by rules, for the metric ``win_rate``; only those
    that neither side was trained against are held out.
    """

    before: str
    after: str
    metrics: list[Annotated[str, AfterValidator(_can_be)]] = Field(min_length=1)
    opponents: list[str] = []

    @property
    def sides(self) -> list[str]:
        """Every stage, or stage and control, that is named."""
        return [self.before, self.after, *self.opponents]

    @property
    def stages(self) -> set[str]:
        """The stages that must be evaluated first."""
        return {name.partition("/")[0] for name in self.sides}


class Loop(StrictModel):
    """A loop file: the data spec, a chain of stages, what is compared, which stage is released.

    ``probe``: does each stage look? On ``probe_limit`` of the rows. ``operating_points``: biases on denials under
    which each stage writes the reports again (``operating_points.py``); 0 must be among them. ``generation``: how every
    stage's answers are generated (None: as the stage's own recipe says).
    """

    spec: str
    test: str
    reference: str | None = None
    limit: int | None = None
    probe: bool = False
    probe_limit: int | None = None
    operating_points: list[float] = []
    generation: GenerationSection | None = None
    chain: Chain
    compare: list[StageComparison] = Field(min_length=1)
    release: str

    @property
    def controlled(self) -> set[str]:
        """The stages that are asked under controls too."""
        return {self.release, *(name.partition("/")[0] for c in self.compare for name in c.sides if "/" in name)}


def read_loop(path: Path, overrides: Sequence[Override] = ()) -> Loop:
    """The loop in a file, after overrides.

    Raises: InputError with one line for each fault, the nearest name where there is one.
    """
    source, content = Written(path, overrides), read_yaml(path)
    if {"method", "stages"} & set(content):
        raise InputError(f"{path}: a recipe or chain, and no loop. Train it: clinalign train {path}")
    loop = validated(Loop, with_overrides(content, overrides), where=source)
    recipes = {stage.name: stage.file(path) for stage in loop.chain.stages}
    evaluated = [name for name, recipe in recipes.items() if trains(read_yaml(recipe).get("method"))]
    faults = [
        f"compare.{n}: {fault}"
        for n, comparison in enumerate(loop.compare)
        for fault in (*_faults_of_figures(comparison, loop), *_faults_of_sides(comparison, loop, evaluated))
    ]
    if loop.release not in evaluated:
        faults.append(f"release: {_no_stage(loop.release, evaluated)}")
    if loop.operating_points and 0 not in loop.operating_points:
        faults.append("operating_points: 0 must be among them; the others are compared with it.")
    if faults:
        raise InputError("\n".join(map(source.located, faults)))
    return loop


def _faults_of_figures(comparison: StageComparison, loop: Loop) -> list[str]:
    """What is asked of stages that the loop does not measure."""
    faults: list[str] = []
    of_stages = [name for name in comparison.metrics if is_figure(name)]
    if any(name.startswith("probe") for name in of_stages) and not loop.probe:
        faults.append("metrics: probe/... and probe_drop/... need `probe: true` in the loop.")
    if EQUAL_RECALL in of_stages and not loop.operating_points:
        faults.append(f"metrics: {EQUAL_RECALL} needs `operating_points: [...]` in the loop.")
    if "win_rate" in comparison.metrics and not comparison.opponents:
        faults.append("metrics: win_rate needs `opponents: [STAGE]`, whose reports both sides are judged against.")
    if of_stages and ("/" in comparison.before or "/" in comparison.after):
        faults.append(
            f"metrics: {of_stages[0]} is a figure of a stage, the same under its controls; compare two stages."
        )
    if any(name.startswith("train/") for name in of_stages) and UNTRAINED in comparison.stages:
        faults.append(f"metrics: train/... of '{UNTRAINED}' is not there, since it was not trained.")
    return faults


def _faults_of_sides(comparison: StageComparison, loop: Loop, evaluated: list[str]) -> list[str]:
    faults: list[str] = []
    for name in comparison.sides:
        stage, slash, control = name.partition("/")
        if stage not in (*evaluated, UNTRAINED):
            faults.append(_no_stage(stage, [*evaluated, UNTRAINED]))
        elif slash and control not in CONDITIONS:
            hint = nearest(control, [*CONDITIONS]) or f" Known: {', '.join(CONDITIONS)}."
            faults.append(f"no control '{control}' of '{stage}'.{hint}")
        elif control in OF_REFERENCE and loop.reference is None:
            faults.append(f"{name} needs `reference: ENTRY` in the loop, whose habits it takes.")
        elif stage == UNTRAINED and control not in ("", "clean"):
            faults.append(f"{name}: '{UNTRAINED}' is evaluated without controls.")
    return faults


def _no_stage(name: str, known: list[str]) -> str:
    hint = nearest(name, known) or f" There are: {', '.join(known)}."
    return f"no stage '{name}' is evaluated.{hint}"
