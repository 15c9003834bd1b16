"""Recipes: one YAML file for one run, read strictly before any model is loaded.

``trainer`` is TRL's own vocabulary, handed on verbatim. Left out: inheritance between recipes; a recipe says all of it.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from alignment.config.curriculum_section import CurriculumSection
from alignment.config.reward_sections import CanarySection, CombinationSection
from data_builders.build.build_spec import Relevance
from data_builders.pairs.lesion_noise import NoiseSettings
from rewards.boxes.coordinate_space import BoxSpace
from rewards.config.input_error import InputError, nearest
from rewards.config.overrides import Override, with_overrides
from rewards.config.strict_yaml import fault_lines, read_yaml, regular
from rewards.llm.spec import LlmSpec

PairKind = Literal["own_error", "degraded", "lesion_noise", "look_alike", "llm"]
Method = Literal["sft", "dpo", "grpo", "pairs", "reward_model"]
Module = Literal["vision", "projector", "language"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Lora(_Strict):
    """Low-rank adapters (Hu et al. 2021) on the language model's linear layers."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    targets: list[str] | str = "all-linear"


def _switch(value: Any) -> Any:
    """``on`` and ``off``, which YAML 1.1 reads as true and false."""
    return ("on" if value else "off") if isinstance(value, bool) else value


def _strategies(trainer: Any) -> Any:
    """``save_strategy: no`` as TRL wants it; YAML 1.1 reads that as false.

    >>> _strategies({"save_strategy": False, "bf16": False})
    {'save_strategy': 'no', 'bf16': False}
    """
    if not isinstance(trainer, dict):
        return trainer
    return {key: "no" if value is False and key.endswith("_strategy") else value for key, value in trainer.items()}


class ModelSection(_Strict):
    """Which model, and what of it is trained.

    ``path``: a Hugging Face name, a folder, a run's folder, ``tiny`` or ``smollm2``. ``max_pixels`` is the one pixel
    budget (width x height) of the image processor; None keeps the processor's own. ``shared_prefix``: a prompt with
    several answers goes through the model once (``auto``: where that is exact, else a line in the log says why not;
    ``cached``: by way of a key-value cache, which kernels without a mask get anyway). ``cache_image_features``: what
    a frozen vision tower and projector make of an image is kept on disk (see ``clinalign cache``).
    ``attention: auto`` is flash attention on a GPU that has it, else sdpa; ``liger`` is used on a GPU only;
    ``quantization`` of the frozen weights (QLoRA). ``learning_rates`` of parts, where they differ from the trainer's;
    ``tower_checkpointing``: whether the vision tower recomputes its activations (None: as the trainer says);
    ``tower_attention``: a windowed tower's windows in one call (``auto``: on a GPU) or one by one (``windows``).
    """

    path: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2", "flex_attention"] = "sdpa"
    liger: bool = False
    quantization: Literal["4bit"] | None = None
    learning_rates: dict[Module, Annotated[float, Field(ge=0)]] = {}
    tower_checkpointing: bool | None = None
    tower_attention: Literal["auto", "one_call", "windows"] = "auto"
    max_pixels: int | None = Field(default=None, ge=28 * 28)
    freeze: list[Module] = []
    lora: Lora | None = None
    shared_prefix: Annotated[Literal["auto", "on", "cached", "off"], BeforeValidator(_switch)] = "auto"
    cache_image_features: bool = False
    family: Literal["idefics3", "qwen3_vl", "llava"] = "idefics3"
    image_size: int = Field(default=128, ge=32, multiple_of=32)
    init_std: float = Field(default=0.1, gt=0)
    seed: int = 0


class DataSection(_Strict):
    """Parquet files of a built data set; ``data/x/instruction/train`` stands for that file.

    ``kinds``: only preference rows of these kinds (None: all); ``tasks``: only rows of these tasks; ``limit``: only
    the first of them. ``too_long``: what becomes of rows longer than ``trainer.max_length`` or the model's context
    (``cut``: answers lose their end). ``batch_tokens``: batches of at most so many tokens instead of so many rows (sft
    and dpo). ``largest_first``: the first batch of the run is the largest, so that what does not fit memory fails at
    once. ``curriculum``: SFT along the stages of the rows (see ``curriculum_section.py``). ``box_space``: the units in
    which the model states boxes, such as ``0-1000``; ``grid``: as the rows do (``rewards/boxes/coordinate_space.py``).
    """

    train: str
    kinds: list[str] | None = None
    tasks: list[str] | None = None
    limit: int | None = Field(default=None, ge=1)
    too_long: Literal["refuse", "drop", "resize", "cut"] = "refuse"
    batch_tokens: int | None = Field(default=None, ge=1)
    largest_first: bool = True
    curriculum: CurriculumSection | None = None
    box_space: BoxSpace = "grid"


class RewardEntry(BaseModel):
    """A reward by name, its weight, and its knobs as further keys. Weight 0.0: watched, not trained on.

    ``tasks``: it pays for rows of these tasks only, in place of those that the reward names itself.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, allow_inf_nan=False)

    name: str
    weight: float = 1.0
    tasks: list[str] | None = Field(default=None, min_length=1)

    @property
    def knobs(self) -> dict[str, Any]:
        """The further keys of the entry."""
        return dict(self.model_extra or {})


class DialogueSection(_Strict):
    """GRPO over whole dialogues: rows with a column ``dialogue``, in which a scripted clinician asks on.

    ``credit``: every token gets the advantage of its ``dialogue`` (as published), or of its ``turn``.
    ``max_answer_tokens``: of each answer; ``trainer.max_completion_length`` is of the whole dialogue after the prompt.
    """

    credit: Literal["dialogue", "turn"] = "dialogue"
    max_answer_tokens: int = Field(default=64, ge=1)


class Sampling(_Strict):
    """How a ``pairs`` run samples the model's own answers, and which kinds of pair it writes (``write_pairs.py``).

    ``noise`` and ``findings``: how lesions are noised, and only which (None: all). ``graded``: by what the weights of
    the further pairs among several wrong samples are multiplied (0: only the worst is taken). ``relevance``: how pairs
    are weighted, as in a build. ``built``: preference rows of a built data set whose rows of the ``built_kinds`` are
    added with their own weights, such as lesions noised within contours that only the source knows. ``llm``: the
    language model of kind ``llm``, behind an endpoint or local.
    """

    kinds: list[PairKind] = Field(default=["own_error"], min_length=1)
    noise: NoiseSettings = NoiseSettings()
    findings: list[str] | None = None
    graded: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    relevance: Relevance = Relevance()
    built: str | None = None
    built_kinds: list[str] = ["lesion_noise"]
    llm: LlmSpec | None = None
    num_samples: int = Field(default=4, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=96, ge=1)
    batch_size: int = Field(default=64, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _an_llm_is_asked(self) -> "Sampling":
        if self.llm is not None and "llm" not in self.kinds:
            raise ValueError("sampling.llm has no effect unless kinds name 'llm'. Add it there.")
        return self


class Weighting(_Strict):
    """How a preference row's ``weight`` enters the loss (MMedPO eq. 3).

    ``use`` false trains plain DPO. ``reduction``: ``mean`` divides by the batch size as the paper does, ``sum_w`` by
    the sum of weights. What goes beyond the paper (``dpo_terms.py``) is off by default: ``anchor_coefficient`` and
    ``anchor_delta`` (mDPO); ``changed_weight``, how often the tokens that differ between chosen and rejected count,
    and ``length_average`` (RLHF-V); ``token_kl_coefficient`` (CHiP), which takes a second forward of both models;
    ``symmetric_coefficient`` and ``consistency`` (SymMPO) for rows with ``mirror_images`` (pairs of kind look_alike).
    """

    use: bool = True
    reduction: Literal["mean", "sum_w"] = "mean"
    sft_coefficient: float = Field(default=0.0, ge=0)
    anchor_coefficient: float = Field(default=0.0, ge=0)
    anchor_delta: float = 0.0
    changed_weight: float = Field(default=1.0, ge=0)
    length_average: bool = False
    token_kl_coefficient: float = Field(default=0.0, ge=0)
    symmetric_coefficient: float = Field(default=0.0, ge=0)
    consistency: float = Field(default=0.0, ge=0)

    @property
    def mirrors(self) -> bool:
        """Whether the two answers of a look-alike pair are scored under the look-alike's image too."""
        return bool(self.symmetric_coefficient or self.consistency)

    @property
    def counts_tokens(self) -> bool:
        """Whether an answer's log-probability is anything but the plain sum over its tokens."""
        return self.changed_weight != 1.0 or self.length_average


class Recipe(_Strict):
    """One run."""

    method: Method
    output: str
    model: ModelSection
    data: DataSection
    rewards: list[RewardEntry] = []
    combination: CombinationSection = CombinationSection()
    dialogue: DialogueSection | None = None
    canaries: CanarySection | None = None
    weighting: Weighting = Weighting()
    sampling: Sampling = Sampling()
    trainer: Annotated[dict[str, Any], BeforeValidator(_strategies)] = {}

    @model_validator(mode="after")
    def _method_has_its_sections(self) -> "Recipe":
        if self.data.curriculum and self.method != "sft":
            raise ValueError(f"data.curriculum orders the rows of sft; {self.method} has no use for it. Leave it out.")
        if self.method == "grpo" and not self.rewards:
            raise ValueError("grpo needs a 'rewards' section. Name at least one, see `clinalign rewards`.")
        return self

    @model_validator(mode="after")
    def _combination_names_its_rewards(self) -> "Recipe":
        names = [entry.name for entry in self.rewards]
        asked = [name for gate in self.combination.gates for name in (gate.reward, gate.needs)]
        for name in [*asked, *(schedule.reward for schedule in self.combination.schedules)]:
            if names.count(name) != 1:
                found = f"{names.count(name)} times" if name in names else f"not at all.{nearest(name, names)}"
                raise ValueError(f"combination: '{name}' must stand once among the rewards, and stands there {found}")
        return self


class Stage(_Strict):
    """One link of a chain: a recipe file, the stage whose model it starts from, overrides.

    ``model`` and ``train`` name earlier stages; by default a stage starts from the last one that trained a model.
    ``counterparts``: earlier stages that answer the training prompts first, as CRPO's pool (column ``counterparts``).
    """

    name: str
    recipe: str
    model: str | None = None
    train: str | None = None
    counterparts: list[str] = []
    overrides: list[str] = []


class Chain(_Strict):
    """A ``stages:`` recipe. Every stage writes to ``output/<stage>``."""

    output: str
    data: str | None = None
    stages: list[Stage] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_known_before_use(self) -> "Chain":
        seen: list[str] = []
        for stage in self.stages:
            for named in (stage.model, stage.train, *stage.counterparts):
                if named is not None and named not in seen:
                    raise ValueError(
                        f"stage '{stage.name}' starts from '{named}', not an earlier stage.{nearest(named, seen)}"
                    )
            if stage.name in seen:
                raise ValueError(f"two stages are named '{stage.name}'.")
            seen.append(stage.name)
        return self


def read_recipe(path: Path, overrides: Sequence[Override] = ()) -> Recipe:
    """The recipe in a file, after overrides.

    Raises: InputError that lists every fault of the file, the data and the trainer section at once.
    """
    from alignment.audit.honest_answers import honesty_faults
    from alignment.config.compatibility import incompatibilities
    from alignment.config.dialogue_faults import dialogue_faults
    from alignment.config.faults import data_faults, reward_faults, sampling_faults, unused_faults

    recipe, faults = _shape(path, overrides)
    if recipe is not None:
        faults += [*data_faults(recipe), *sampling_faults(recipe), *reward_faults(recipe), *dialogue_faults(recipe)]
        faults += [*unused_faults(recipe), *incompatibilities(recipe)]
        faults += [] if faults else honesty_faults(recipe)
    if faults or recipe is None:
        raise InputError("\n".join(f"{path}: {fault}" for fault in faults))
    return recipe


def check_shapes(recipes: Iterable[tuple[Path, Sequence[Override]]]) -> None:
    """Checks recipes with their overrides, as far as that can be before their data and models are made.

    Raises: InputError with the faults of all: of the form, and of the trainer section with its DeepSpeed file.
    """
    faults = [f"{path}: {fault}" for path, overrides in recipes for fault in _shape(path, overrides)[1]]
    if faults:
        raise InputError("\n".join(dict.fromkeys(faults)))  # several stages may share a file


def _shape(path: Path, overrides: Sequence[Override]) -> tuple[Recipe | None, list[str]]:
    """The recipe (None where its form is wrong), and the faults that are seen without its data."""
    from alignment.config.faults import trainer_faults

    content = with_overrides(read_yaml(path), overrides)
    faults = trainer_faults(content)
    try:
        return Recipe.model_validate(content), faults
    except ValidationError as invalid:
        return None, [*fault_lines(Recipe, invalid), *faults]


def file_of_entry(path: str) -> Path:
    """Where the rows of a ``data`` entry lie, or would: named by the file, or by it without its ending."""
    return Path(path) if path.endswith(".parquet") else Path(f"{path}.parquet")


def parquet(path: str) -> Path:
    """The Parquet file that a ``data`` entry names.

    Raises: InputError if there is none, or its footer is damaged.
    """
    from data_builders.row_checks import open_parquet

    file = file_of_entry(path)
    if not regular(file).is_file():
        near = sorted(str(p.with_suffix("")) for p in file.parent.parent.glob("*/*.parquet"))
        have = f" There: {', '.join(near)}." if near else " Build it first: clinalign build SPEC.yaml."
        raise InputError(f"data: no file {file}.{have}")
    open_parquet(file).close()
    return file


def columns_of(path: str) -> list[str]:
    """Column names of a data entry, read from the file's footer."""
    import pyarrow.parquet as pq

    return pq.read_schema(parquet(path)).names


def kept_places(recipe: Recipe) -> list[int]:
    """Places of the training rows that ``data.kinds``, ``data.tasks`` and ``data.limit`` leave."""
    import pyarrow.parquet as pq

    file = parquet(recipe.data.train)
    places = list(range(pq.read_metadata(file).num_rows))
    for column, wanted in (("kind", recipe.data.kinds), ("task", recipe.data.tasks)):
        if wanted is not None:
            values = pq.read_table(file, columns=[column])[column].to_pylist()
            places = [place for place in places if values[place] in wanted]
    return places[: recipe.data.limit]
