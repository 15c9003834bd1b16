"""Build specs: one YAML file that says what to build, read strictly before anything is drawn."""

import inspect
from collections.abc import Callable, Collection, Iterator
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, create_model, model_validator

from data_builders.curriculum.rows import CurriculumUse
from data_builders.dialogues.paraphrases import Paraphrase
from data_builders.pairs.lesion_heat import Mask
from data_builders.pairs.lesion_noise import NoiseSettings
from data_builders.pairs.relevance import IMAGE_SIDE, Missing, Normalisation, ScoredKind
from data_builders.schema import Quarantined, RowKind, Sample, Task, Written
from rewards.config.overrides import with_overrides
from rewards.config.strict_yaml import fault_lines, nearest, read_yaml, validated
from rewards.dialogues.dialogue import Scenario
from rewards.llm.spec import LlmSpec

SOURCES = (
    "phantom_chest", "phantom_marrow", "phantom_oct", "lidc_ct", "bccd", "labelled", "table",
    "vqa_rad", "slake", "path_vqa", "iu_xray", "released_pairs",
)  # fmt: skip
SplitName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""It names a file, so it holds no path."""
HowMany = Annotated[int, Field(ge=0)] | Literal["all"]


class Source(BaseModel):
    """A source by name; its knobs are further keys, checked against the signature of its function."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @model_validator(mode="after")
    def _is_known(self) -> "Source":
        if self.name not in SOURCES:
            hint = nearest(self.name, list(SOURCES))
            raise ValueError(f"no source named '{self.name}'.{hint} Known: {', '.join(SOURCES)}.")
        self.checked_knobs()
        return self

    @property
    def knobs(self) -> dict[str, Any]:
        """The further keys, as written."""
        return dict(self.model_extra or {})

    @property
    def function(self) -> Callable[..., Iterator[Sample | Written | Quarantined]]:
        """The generator of samples."""
        return getattr(import_module(f"data_builders.{self.name}"), self.name)

    @property
    def masks(self) -> Callable[[Sample], dict[str, Mask]] | None:
        """The source's own ``lesion_masks(sample)``, where it knows more of a lesion than its box."""
        return getattr(import_module(f"data_builders.{self.name}"), "lesion_masks", None)

    def checked_knobs(self) -> dict[str, Any]:
        """The knobs in the types that the function declares.

        Raises: ValueError with every unknown, missing or ill-typed knob.
        """
        model = _knobs_of(self.function)
        try:
            read = model.model_validate(self.knobs)
        except ValidationError as invalid:
            faults = "; ".join(line.rstrip(".") for line in fault_lines(model, invalid))
            raise ValueError(f"'{self.name}': {faults}. Knobs: {', '.join(model.model_fields)}.") from None
        return {knob: getattr(read, knob) for knob in self.knobs}

    def samples(self) -> Iterator[Sample | Written | Quarantined]:
        """What the source yields, in its order."""
        return self.function(**self.checked_knobs())


def _knobs_of(function: Callable[..., Any]) -> type[BaseModel]:
    """The keyword parameters of a source as a strict model."""
    hints = get_type_hints(function)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        default: Any = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[name] = (_as_yaml(hints[name]), default)
    return create_model("Knobs", __config__=ConfigDict(extra="forbid", strict=True), **fields)


def _as_yaml(hint: Any) -> Any:
    """The type of a knob as YAML can write it: a path as a string, a collection as a list."""
    path: Any = Annotated[Path, Strict(False)]
    if hint is Path or Path in get_args(hint):
        return path if hint is Path else Optional[path]  # noqa: UP045 (no union of a variable in a type position)
    return list[get_args(hint)] if get_origin(hint) is Collection else hint


class Flaws(BaseModel):
    """Errors of weak annotators, put on purpose into the instruction rows of some splits. Named in each row.

    ``invented_findings``: share of reports that get one invented finding. ``loose_boxes``: factor by which
    boxes are too wide and too high. ``wrong_answers``: share of a dialogue's answers that give another symbol, each
    drawn by itself. ``yielding``: share of the clinician's wrong claims that the answer follows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    splits: list[str]
    invented_findings: float = Field(default=0.0, ge=0, le=1)
    loose_boxes: float = Field(default=1.0, ge=1, allow_inf_nan=False)
    wrong_answers: float = Field(default=0.0, ge=0, le=1)
    yielding: float = Field(default=0.0, ge=0, le=1)


class Dialogues(BaseModel):
    """Which dialogues an image gets, in instruction and prompt rows alike.

    ``per_image``: dialogues an image and epoch, their scenarios drawn by the weights of ``mixture``. ``epochs``: how
    often all of them are drawn afresh. ``eval_mixture``: one dialogue of each scenario for the ``test_wording``
    splits, which take the test templates, and for the ``eval_splits``, which keep those of training; a split in both
    lists is tested in both. ``sft_rows``: ``whole`` writes an instruction row a dialogue (its loss must
    leave the clinician's turns out), ``turns`` one for each answer, with all before it as the prompt. ``paraphrase``:
    answers in words of training are reworded by an LLM where that keeps what they say.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    per_image: int = Field(default=1, ge=1)
    epochs: int = Field(default=1, ge=1)
    mixture: dict[Scenario, Annotated[float, Field(ge=0)]] = {"standard": 1.0}
    test_wording: list[str] = []
    eval_splits: list[str] = []
    eval_mixture: list[Scenario] = []
    sft_rows: Literal["whole", "turns"] = "whole"
    paraphrase: Paraphrase | None = None

    @model_validator(mode="after")
    def _something_is_drawn(self) -> "Dialogues":
        if sum(self.mixture.values()) <= 0:
            raise ValueError("mixture: every weight is 0. Give one scenario a weight, such as standard: 1.0.")
        if self.eval_mixture and not (self.test_wording or self.eval_splits):
            raise ValueError("eval_mixture has no effect without test_wording: name the splits that are tested.")
        if self.eval_splits and not self.eval_mixture:
            raise ValueError("eval_splits has no effect without eval_mixture: name the scenarios, such as [standard].")
        return self


class LesionNoise(NoiseSettings):
    """Preference rows whose rejected side is the same true answer under a noised lesion (MMedPO section 3.1).

    ``tasks``: one such row for each image and task that asks for a finding with a box or a mask. ``findings``: only
    these are noised (None: all). ``weight``: the severity of the gravest finding that was noised, or the
    ``confidence`` with which it was located.
    """

    tasks: list[Task] = Field(default=["report"], min_length=1)
    findings: list[str] | None = None
    weight: Literal["severity", "confidence"] = "severity"


class Relevance(BaseModel):
    """How the relevance of preference rows becomes their weight, for each source and kind of pair by itself.

    The same section stands in a build and in the ``sampling`` of a ``pairs`` recipe. A row's relevance is the severity
    of the gravest error in its rejected answer, by the rule set. ``reading``: of the paper's normalisation (see
    ``data_builders/pairs/relevance.py``). ``scores``: a JSON file of row ids and scores from 0 to ``scale`` (judges'
    verdicts), which replace the severities of the ``kinds`` (None: all but ``lesion_noise``). ``judges``: language
    models that debate those scores, at most ``max_rounds`` rounds. ``missing``: what a row without a score gets.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    reading: Normalisation = "raw"
    scores: str | None = None
    scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    missing: Missing = "error"
    kinds: list[ScoredKind] | None = None
    judges: list[LlmSpec] = []
    max_rounds: int = Field(default=5, ge=1)

    @model_validator(mode="after")
    def _scores_come_from_one_place(self) -> "Relevance":
        if self.scores is not None and self.judges:
            raise ValueError("relevance: 'scores' and 'judges' both give scores. Name one of them.")
        if self.scores is None and not self.judges and self.scale != 1.0:
            raise ValueError("relevance: 'scale' is of 'scores' or 'judges', and neither is named. Leave it out.")
        return self

    def rescores(self, kind: str) -> bool:
        """Whether a file's or the judges' scores replace the severity of rows of this kind."""
        if self.scores is None and not self.judges:
            return False
        return kind != IMAGE_SIDE if self.kinds is None else kind in self.kinds


class BuildSpec(BaseModel):
    """What to build.

    ``splits``: share of patients of each; ``assign`` pins patients; ``stratify`` gives every split the same mix of a
    column of the facts or of a scale (``stage``), of each patient the most severe; ``source_splits`` takes the
    source's own splits, each under the name of one of ours. ``rows``: the splits in which each kind of row is
    written. ``tasks``: questions an image, drawn among those that it can answer; ``prompt_tasks`` for
    prompt rows, and ``eval_tasks`` for every row of the ``eval_splits``. ``box_grid``: boxes are whole units of
    a grid x grid image. ``box_absent``: boxes are asked for of absent findings too (answer: ``[]``). ``max_boxes``:
    boxes of one finding above which they are not asked for (counted in the card). ``curriculum``: stages of tasks, in
    rows with the columns ``stage``, ``capability`` and ``guidelines``. ``lesion_noise``: preference rows of the image
    side, beside those of the text side. ``relevance``: how preference rows are weighted. ``llm``: a model behind an
    endpoint that writes the false report of each image, in place of a corrupted truth. ``balance_lengths`` drops
    pairs until the rejected answer is as often longer as
    shorter. ``max_quarantined``: the share of records above which the build fails.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    source: Source
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
        if self.curriculum is None and "tasks" not in self.model_fields_set:
            raise ValueError("tasks: this key is required, unless there is a curriculum.")
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


def read_spec(path: Path, overrides: list[str]) -> BuildSpec:
    """The spec in a file, after ``key=value`` overrides.

    Raises: InputError with every fault of the file.
    """
    return validated(BuildSpec, with_overrides(read_yaml(path), overrides), where=str(path))
