"""Which row is trained on when, along a curriculum: one stream of rows, a pure function of data, section and seed.

Stages follow each other. Inside a stage a task is drawn with p proportional to weight x (number of rows) ** alpha
(alpha = 1, weight = 1: every row equally often, the published shares; alpha = 0: every task). A share of the draws may
replay earlier stages; a task waits until those that it comes ``after`` have been passed through. Rows of a task come in
shuffled passes. Every process computes the same stream and takes its batches from it, so to resume is to skip.
Left out: gates that open by the score on held-out rows; they would make the stream depend on the training.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.config.curriculum_section import CurriculumSection
from alignment.config.recipe import Recipe
from alignment.data.row_order import Order
from rewards.config.input_error import InputError, nearest

Rows = NDArray[np.int64]
"""Places of rows in the data."""


@dataclass(frozen=True)
class Segment:
    """So many draws in a row under the same chances of the tasks."""

    num_draws: int
    chances: Mapping[str, float]


def shares(sizes: Mapping[str, int], section: CurriculumSection) -> dict[str, float]:
    """The chance of each task: weight x (number of rows) ** alpha, over their sum.

    >>> from alignment.config.curriculum_section import TrainingStage
    >>> section = CurriculumSection(stages=[TrainingStage(of=["any"], steps=1)])
    >>> own = shares({"advanced": 30, "specific": 15, "rest": 185}, section)
    >>> {task: round(share, 3) for task, share in own.items()}
    {'advanced': 0.13, 'specific': 0.065, 'rest': 0.804}
    """
    mass = {task: section.weights.get(task, 1.0) * float(size) ** section.alpha for task, size in sizes.items()}
    total = sum(mass.values())
    if total <= 0:
        raise InputError(f"data.curriculum.weights: every task of {', '.join(sizes)} has weight 0. Give one a weight.")
    return {task: own / total for task, own in mass.items()}


def segments(sizes: Mapping[str, int], section: CurriculumSection, num_draws: int) -> list[Segment]:
    """The chances of a stage's tasks over its draws: closed tasks open once those before them are passed through.

    A task that waits for one of another stage does not wait. The last segment lasts as long as the stage.
    """
    drawn, opened = dict.fromkeys(sizes, 0.0), list[Segment]()
    left = num_draws
    while left > 0:
        chances = shares({t: n for t, n in sizes.items() if not _waits_for(t, sizes, drawn, section)}, section)
        wanted = {before for t in sizes for before in _waits_for(t, sizes, drawn, section) if chances.get(before)}
        ends = [(section.gate * sizes[t] - drawn[t]) / chances[t] for t in wanted]
        length = min(left, max(1, int(np.ceil(min(ends, default=left)))))
        drawn = {task: seen + length * chances.get(task, 0.0) for task, seen in drawn.items()}
        opened.append(Segment(length, chances))
        left -= length
    return opened


def _waits_for(
    task: str, sizes: Mapping[str, int], drawn: Mapping[str, float], section: CurriculumSection
) -> list[str]:
    before = [name for name in section.after.get(task, []) if name in sizes]
    return [name for name in before if drawn[name] < section.gate * sizes[name] - 1e-9]


def stream(
    stages: Sequence[str | None], tasks: Sequence[str], section: CurriculumSection, *, rows_per_step: int, seed: int
) -> Rows:
    """The places of the rows in the order of training; ``rows_per_step`` of them make one step of all processes.

    ``stages``, ``tasks``: the columns of the data.
    Raises: InputError if a stage has no rows, there is nothing to replay, or prerequisites go round in a circle.
    """
    section = section.ruled()
    _check(stages, tasks, section)
    rng, passes = np.random.default_rng(seed), _Passes(seed)
    chosen: list[Rows] = []
    earlier: dict[str, Rows] = {}
    for stage in section.stages:
        own = _rows_by_task(stages, tasks, stage.of)
        num_draws = stage.steps * rows_per_step
        if stage.replay and not earlier:
            raise InputError(f"data.curriculum: stage {', '.join(stage.of)} is to replay, and no stage is before it.")
        names = np.concatenate([_drawn(s, rng) for s in segments(_sizes(own), section, num_draws)])
        replayed = rng.random(num_draws) < stage.replay
        if replayed.any():
            names[replayed] = _drawn(Segment(int(replayed.sum()), shares(_sizes(earlier), section)), rng)
        chosen.append(passes.rows(names, earlier | own))
        earlier |= own
    return np.concatenate(chosen)


def _sizes(rows: Mapping[str, Rows]) -> dict[str, int]:
    return {task: len(places) for task, places in rows.items()}


def _rows_by_task(stages: Sequence[str | None], tasks: Sequence[str], of: list[str]) -> dict[str, Rows]:
    places: dict[str, list[int]] = {}
    for place, (stage, task) in enumerate(zip(stages, tasks, strict=True)):
        if stage in of:
            places.setdefault(task, []).append(place)
    return {task: np.array(found, dtype=np.int64) for task, found in sorted(places.items())}


def _drawn(segment: Segment, rng: np.random.Generator) -> NDArray[np.object_]:
    names = np.array(list(segment.chances), dtype=object)
    return names[rng.choice(len(names), size=segment.num_draws, p=list(segment.chances.values()))]


class _Passes:
    """The rows of each task in shuffled passes, going on from stage to stage."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.given: dict[str, int] = {}

    def rows(self, names: NDArray[np.object_], by_task: Mapping[str, Rows]) -> Rows:
        """The next row of the named task, for each name."""
        found = np.empty(len(names), dtype=np.int64)
        for task, places in by_task.items():
            here = np.flatnonzero(names == task)
            start = self.given.get(task, 0)
            self.given[task] = start + len(here)
            found[here] = self._shuffled(task, places, start, len(here))
        return found

    def _shuffled(self, task: str, places: Rows, start: int, number: int) -> Rows:
        first, last = start // len(places), (start + number) // len(places)
        orders = [
            np.random.default_rng([self.seed, k, *task.encode()]).permutation(places) for k in range(first, last + 1)
        ]
        return np.concatenate(orders)[start - first * len(places) :][:number]


def _check(stages: Sequence[str | None], tasks: Sequence[str], section: CurriculumSection) -> None:
    known = sorted({stage for stage in stages if stage})
    for name in (name for stage in section.stages for name in stage.of):
        if name not in known:
            hint = nearest(name, known) or f" There: {', '.join(known) or 'none'}."
            raise InputError(f"data.curriculum: no row of the data is of stage '{name}'.{hint}")
    cycle = _cycle(section.after)
    if cycle:
        raise InputError(f"data.curriculum.after: {' after '.join(cycle)}: tasks wait for each other. Leave one out.")


def _cycle(after: Mapping[str, list[str]]) -> list[str]:
    """Tasks that wait for each other in a circle, or none."""

    def walk(path: list[str]) -> Iterator[list[str]]:
        for before in after.get(path[-1], []):
            if before in path:
                yield [*path[path.index(before) :], before]
            else:
                yield from walk([*path, before])

    return next((found for task in after for found in walk([task])), [])


def recipe_order(recipe: Recipe, data: Any, arguments: Any) -> Order | None:
    """The order of an SFT recipe's rows, all in one epoch, or None without a curriculum.

    Sets the number of steps in ``arguments``.
    """
    section = recipe.data.curriculum
    if section is None:
        return None
    arguments.max_steps = section.steps
    rows_per_step = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    seed = arguments.data_seed if arguments.data_seed is not None else arguments.seed
    rows = stream(list(data["stage"]), list(data["task"]), section, rows_per_step=rows_per_step, seed=seed).tolist()
    return lambda _epoch: rows
