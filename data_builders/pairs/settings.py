"""What recipes and specs may say of noised lesions and of the relevance of pairs. Loads neither numpy nor a picture."""

from typing import Literal

from pydantic import Field, model_validator

from rewards.config.strict_model import StrictModel
from rewards.llm.spec import LlmSpec

MaskPolicy = Literal["mass", "quantile", "mean_std", "box"]
Normalisation = Literal["raw", "text", "appendix", "sensible"]
Missing = Literal["error", "one", "mean"]
ScoredKind = Literal["hallucination", "llm", "lesion_noise", "own_error", "degraded", "graded", "look_alike"]
IMAGE_SIDE = "lesion_noise"
"""The kind whose two answers are one: there is no wrong answer that judges could read."""


class NoiseSettings(StrictModel):
    """How a lesion is noised.

    ``mode``: ``diffusion`` blends at ``step`` of the schedule, ``replacement`` puts N(0, 10^2) in place of the pixels.
    ``mask`` and ``level``: ``mass``, the fewest pixels that hold this share of the heat (1.0: every pixel with
    heat, which for given boxes is the boxes); ``quantile``, pixels at or above this quantile; ``mean_std``, above mean
    + level x std (the released code: -1.0); ``box``, the bounding box of the pixels with at least this share of the
    largest heat. ``soft`` scales the blend by heat / largest heat. ``wrap`` lets negative replacements wrap round, as
    the released code does, instead of clipping them.
    """

    mode: Literal["diffusion", "replacement"] = "diffusion"
    step: int = Field(default=500, ge=0, le=999)
    mask: MaskPolicy = "mass"
    level: float = Field(default=1.0)
    soft: bool = False
    wrap: bool = False

    @model_validator(mode="after")
    def _level_fits_the_policy(self) -> "NoiseSettings":
        if self.mask != "mean_std" and not 0 < self.level <= 1:
            raise ValueError(f"level: mask '{self.mask}' takes a share above 0 and up to 1, got {self.level:g}.")
        if self.mode == "diffusion" and self.wrap:
            raise ValueError("wrap: the diffusion blend is never wrapped; it belongs to mode 'replacement'.")
        if self.mode == "replacement" and self.soft:
            raise ValueError("soft: a replaced pixel is replaced whole; it belongs to mode 'diffusion'.")
        return self


class Relevance(StrictModel):
    """How the relevance of preference rows becomes their weight, for each source and kind of pair by itself.

    The same section stands in a build and in the ``sampling`` of a ``pairs`` recipe. A row's relevance is the severity
    of the gravest error in its rejected answer, by the rule set. ``reading``: of the paper's normalisation (see
    ``data_builders/pairs/relevance.py``). ``scores``: a JSON file of row ids and scores from 0 to ``scale`` (judges'
    verdicts), which replace the severities of the ``kinds`` (None: all but ``lesion_noise``). ``judges``: language
    models that debate those scores, at most ``max_rounds`` rounds. ``missing``: what a row without a score gets.
    """

    reading: Normalisation = "raw"
    scores: str | None = None
    scale: float = Field(default=1.0, gt=0)
    missing: Missing = "error"
    kinds: list[ScoredKind] | None = None
    judges: list[LlmSpec] = []
    max_rounds: int = Field(default=5, ge=1)

    @model_validator(mode="after")
    def _one_source_of_scores(self) -> "Relevance":
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
