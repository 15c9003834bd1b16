"""Build specs: one YAML file that says what to build, read strictly."""

import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_builders.schema import Quarantined, RowKind, Sample, Task
from rewards.strict_yaml import InputError, nearest, read_yaml, validated

SOURCES = ("phantom_chest", "lidc_ct", "bccd")


class Source(BaseModel):
    """A source by name; its knobs are further keys."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @model_validator(mode="after")
    def _is_known(self) -> "Source":
        if self.name not in SOURCES:
            raise ValueError(
                f"no source named '{self.name}'.{nearest(self.name, list(SOURCES))} Known: {', '.join(SOURCES)}."
            )
        known = list(inspect.signature(self.function).parameters)
        for knob in self.knobs:
            if knob not in known:
                raise ValueError(
                    f"'{self.name}' has no knob '{knob}'.{nearest(knob, known)} Knobs: {', '.join(known)}."
                )
        return self

    @property
    def knobs(self) -> dict[str, Any]:
        """The further keys."""
        return dict(self.model_extra or {})

    @property
    def function(self) -> Callable[..., Iterator[Sample | Quarantined]]:
        """The generator of samples."""
        return getattr(import_module(f"data_builders.{self.name}"), self.name)

    def samples(self) -> Iterator[Sample | Quarantined]:
        """The source's samples; a knob that ends in ``root`` is a folder."""
        return self.function(**{k: Path(v) if k == "root" else v for k, v in self.knobs.items()})


class Flaws(BaseModel):
    """Errors of weak annotators, put on purpose into the instruction rows of some splits. Named in each row.

    ``invented_findings``: share of reports that get one invented finding. ``loose_boxes``: factor by which boxes are
    too wide and too high.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    splits: list[str]
    invented_findings: float = Field(default=0.0, ge=0, le=1)
    loose_boxes: float = Field(default=1.0, ge=1)


class BuildSpec(BaseModel):
    """What to build. ``tasks``: questions an image, drawn among the possible ones; ``eval_tasks`` for ``eval_splits``.

    ``box_grid``: boxes are stated in whole units of a grid x grid image. ``max_quarantined``: the share of samples
    above which the build fails.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    source: Source
    output: str
    seed: int = 0
    splits: dict[str, float] = Field(min_length=1)
    rows: dict[RowKind, list[str]]
    tasks: dict[Task, int | Literal["all"]]
    prompt_tasks: dict[Task, int | Literal["all"]] | None = None
    eval_splits: list[str] = []
    eval_tasks: dict[Task, int | Literal["all"]] | None = None
    box_grid: int = Field(default=1000, ge=10)
    max_boxes: int = Field(default=20, ge=1)
    answer_style: Literal["plain", "tagged"] = "plain"
    wording: Literal["first", "varied"] = "first"
    flaws: Flaws | None = None
    corruptions_per_image: int = Field(default=1, ge=1)
    max_quarantined: float = Field(default=0.05, ge=0, le=1)

    @model_validator(mode="after")
    def _splits_add_up(self) -> "BuildSpec":
        if abs(sum(self.splits.values()) - 1) > 1e-6:
            raise ValueError(f"splits: shares add up to {sum(self.splits.values()):g}, expected 1.")
        named = (
            [s for splits in self.rows.values() for s in splits]
            + (self.flaws.splits if self.flaws else [])
            + self.eval_splits
        )
        for split in named:
            if split not in self.splits:
                raise ValueError(f"no split named '{split}'.{nearest(split, list(self.splits))}")
        return self

    def tasks_of(self, kind: RowKind, split: str) -> dict[Task, int | Literal["all"]]:
        """How many questions of each task an image of this split gets."""
        if split in self.eval_splits and self.eval_tasks is not None:
            return self.eval_tasks
        return self.prompt_tasks if kind == "prompt" and self.prompt_tasks is not None else self.tasks


def read_spec(path: Path, overrides: list[str]) -> BuildSpec:
    """The spec in a file, after ``key=value`` overrides.

    Raises: InputError with every fault of the file.
    """
    content = read_yaml(path)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise InputError(f"override '{override}': expected key=value, such as seed=1.")
        *parents, last = key.split(".")
        place: Any = content
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = yaml.safe_load(value)
    return validated(BuildSpec, content, where=str(path))
