"""Recipes: one YAML file for one run, read strictly before any model is loaded.

``trainer`` is TRL's own vocabulary, handed on verbatim. Left out: inheritance between recipes; a recipe says all of it.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from alignment.config.curriculum_section import CurriculumSection
from alignment.config.generation_section import GenerationSection
from alignment.config.methods import METHODS, known_method, readers_of
from alignment.config.model_section import ModelSection
from alignment.config.reward_entry import RewardEntry
from alignment.config.reward_sections import CanarySection, CombinationSection
from data_builders.pairs.settings import NoiseSettings, Relevance
from rewards.boxes.coordinate_space import BoxSpace
from rewards.config.input_error import nearest
from rewards.config.strict_model import StrictModel
from rewards.llm.spec import LlmSpec
from rewards.rules.rule_set import RuleFile

PairKind = Literal["own_error", "degraded", "lesion_noise", "look_alike", "llm"]


def _strategies(trainer: object) -> object:
    """``save_strategy: no`` as TRL wants it; YAML 1.1 reads that as false.

    >>> _strategies({"save_strategy": False, "bf16": False})
    {'save_strategy': 'no', 'bf16': False}
    """
    if not isinstance(trainer, dict):
        return trainer
    return {key: "no" if value is False and key.endswith("_strategy") else value for key, value in trainer.items()}


class DataSection(StrictModel):
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


class DialogueSection(StrictModel):
    """GRPO over whole dialogues: rows with a column ``dialogue``, in which a scripted clinician asks on.

    ``credit``: every token gets the advantage of its ``dialogue`` (as published), or of its ``turn``.
    ``max_answer_tokens``: of each answer; ``trainer.max_completion_length`` is of the whole dialogue after the prompt.
    """

    credit: Literal["dialogue", "turn"] = "dialogue"
    max_answer_tokens: int = Field(default=64, ge=1)


class Sampling(StrictModel):
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
    graded: float = Field(default=0.0, ge=0)
    relevance: Relevance = Relevance()
    built: str | None = None
    built_kinds: list[str] = Field(default=["lesion_noise"])
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


class Weighting(StrictModel):
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


class Recipe(StrictModel):
    """One run.

    ``rule_sets``: files of rule sets of your own that the rows name, beside those which their built set keeps.
    """

    method: Annotated[str, AfterValidator(known_method)]
    output: str
    model: ModelSection
    data: DataSection
    rule_sets: list[RuleFile] = []
    rewards: list[RewardEntry] = Field(default=[])
    combination: CombinationSection = CombinationSection()
    dialogue: DialogueSection | None = None
    canaries: CanarySection | None = None
    weighting: Weighting = Weighting()
    sampling: Sampling = Sampling()
    generation: GenerationSection = GenerationSection()
    trainer: Annotated[dict[str, Any], BeforeValidator(_strategies)] = Field(default={})

    @model_validator(mode="after")
    def _method_has_its_sections(self) -> "Recipe":
        method = METHODS[self.method]
        if self.data.curriculum and "data.curriculum" not in method.sections:
            of = " and ".join(readers_of("data.curriculum"))
            raise ValueError(f"data.curriculum orders the rows of {of}; {self.method} has no use for it. Leave it out.")
        if "rewards" in method.needs and not self.rewards:
            raise ValueError(f"{self.method} needs a 'rewards' section. Name at least one, see `clinalign rewards`.")
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
