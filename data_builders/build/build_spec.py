"""Build specs: one YAML file that says what to build, read strictly before anything is drawn."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_builders.curriculum.rows import CurriculumUse
from data_builders.dialogues.section import Dialogues
from data_builders.dialogues.weak_annotator import Flaws
from data_builders.grounding.section import Grounding, source_fault
from data_builders.pairs.noised_pairs import LesionNoise
from data_builders.pairs.settings import Relevance
from data_builders.schema import RowKind, Task
from data_builders.sources.source import Source
from rewards.config.input_error import nearest
from rewards.config.overrides import with_overrides
from rewards.config.strict_model import StrictModel
from rewards.config.strict_yaml import read_yaml, validated
from rewards.config.yaml_lines import Written
from rewards.llm.spec import LlmSpec
from rewards.rules.rule_set import RuleFile

SplitName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""It names a file, so it holds no path."""
UNDER_GROUNDING = frozenset(
    ("source", "output", "seed", "splits", "assign", "stratify", "rows", "box_grid", "grounding", "max_quarantined")
) | {"rule_sets"}
"""The keys that have an effect on rows about sequences of images."""
HowMany = Annotated[int, Field(ge=0)] | Literal["all"]


class BuildSpec(StrictModel):
    """What to build.

    ``rule_sets``: files of rule sets of your own, which the source, the curriculum and its guidelines then name by
    id (a path may stand there too); the built folder keeps them. ``splits``: share of patients of each; ``assign``
    pins patients; ``stratify`` gives every split the same mix of a column of the facts or of a scale (``stage``),
    of each patient the most severe; ``source_splits`` takes the source's own splits, each under the name of one of
    ours. ``rows``: the splits in which each kind of row is written. ``tasks``: questions an image, drawn among
    those that it can answer; ``prompt_tasks`` for prompt rows, and ``eval_tasks`` for every row of the
    ``eval_splits``. ``box_grid``: boxes are whole units of a grid x grid image. ``box_absent``: boxes are asked for
    of absent findings too (answer: ``[]``). ``max_boxes``: boxes of one finding above which they are not asked for
    (counted in the card). ``curriculum``: stages of tasks, in rows with the columns ``stage``, ``capability`` and
    ``guidelines``. ``grounding``: questions about sequences of images, in place of those about single ones.
    ``lesion_noise``: preference rows of the image side, beside those of the text side. ``relevance``: how
    preference rows are weighted. ``llm``: a model behind an endpoint that writes the false report of each image, in
    place of a corrupted truth. ``balance_lengths`` drops pairs until the rejected answer is as often longer as
    shorter. ``max_quarantined``: the share of records above which the build fails.
    """

    source: Source
    rule_sets: list[RuleFile] = []
    output: str = Field(min_length=1)
    seed: int = 0
    splits: dict[SplitName, Annotated[float, Field(ge=0, le=1)]] = Field(min_length=1)
    assign: dict[str, str] = {}
    stratify: str | None = None
    source_splits: dict[str, str] = {}
    rows: dict[RowKind, list[str]]
    tasks: dict[Task, HowMany] = {}
    prompt_tasks: dict[Task, HowMany] | None = None
    eval_splits: list[str] = []
    eval_tasks: dict[Task, HowMany] | None = None
    box_grid: int = Field(default=1000, ge=10)
    max_boxes: int = Field(default=20, ge=1)
    box_absent: bool = False
    answer_style: Literal["plain", "tagged"] = "plain"
    wording: Literal["first", "varied"] = "first"
    flaws: Flaws | None = None
    dialogues: Dialogues | None = None
    curriculum: CurriculumUse | None = None
    grounding: Grounding | None = None
    corruptions_per_image: int = Field(default=1, ge=0)
    lesion_noise: LesionNoise | None = None
    relevance: Relevance = Relevance()
    llm: LlmSpec | None = None
    balance_lengths: bool = False
    max_quarantined: float = Field(default=0.05, ge=0, le=1)

    @model_validator(mode="after")
    def _splits_add_up(self) -> "BuildSpec":
        if abs(sum(self.splits.values()) - 1) > 1e-6:
            raise ValueError(f"splits: shares add up to {sum(self.splits.values()):g}, expected 1.")
        for split in self._named_splits():
            if split not in self.splits:
                raise ValueError(f"no split named '{split}'.{nearest(split, list(self.splits))}")
        return self

    @model_validator(mode="after")
    def _something_is_asked(self) -> "BuildSpec":
        if self.curriculum is None and self.grounding is None and "tasks" not in self.model_fields_set:
            raise ValueError("tasks: this key is required, unless there is a curriculum or grounding.")
        return self

    @model_validator(mode="after")
    def _sequences_can_be_made(self) -> "BuildSpec":
        if self.grounding is None:
            return self
        if fault := source_fault(self.source):
            raise ValueError(fault)
        if self.rows.get("preference"):
            raise ValueError("grounding: makes no preference rows; leave rows.preference out.")
        idle = sorted(self.model_fields_set - UNDER_GROUNDING)
        if idle:
            raise ValueError(f"grounding: {', '.join(idle)} have no effect on sequences of images. Leave them out.")
        return self

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> "BuildSpec":
        if bool(self.eval_splits) != (self.eval_tasks is not None):
            raise ValueError("eval_splits and eval_tasks: one has no effect without the other. Give both.")
        if (self.lesion_noise or self.balance_lengths or self.llm) and not self.rows.get("preference"):
            raise ValueError(
                "lesion_noise, llm and balance_lengths need rows.preference: name the splits that get such rows."
            )
        for split in self.flaws.splits if self.flaws else []:
            if split not in self.rows.get("instruction", []):
                raise ValueError(f"flaws: split '{split}' has no instruction rows; add it to rows.instruction.")
        return self

    def _named_splits(self) -> list[str]:
        in_rows = [split for splits in self.rows.values() for split in splits]
        flawed = self.flaws.splits if self.flaws else []
        tested = [*self.dialogues.test_wording, *self.dialogues.eval_splits] if self.dialogues else []
        pinned = [*self.assign.values(), *self.source_splits.values()]
        return [*in_rows, *flawed, *tested, *self.eval_splits, *pinned]

    def tasks_of(self, kind: RowKind, split: str) -> dict[Task, HowMany]:
        """How many questions of each task an image of this split gets."""
        if split in self.eval_splits and self.eval_tasks is not None:
            return self.eval_tasks
        return self.prompt_tasks if kind == "prompt" and self.prompt_tasks is not None else self.tasks


def read_spec(path: Path | str, overrides: Iterable[str] = ()) -> BuildSpec:
    """The spec in a file, after ``key=value`` overrides.

    Raises: InputError with every fault of the file.
    """
    path, overrides = Path(path), list(overrides)
    return validated(BuildSpec, with_overrides(read_yaml(path), overrides), where=Written(path, overrides))
