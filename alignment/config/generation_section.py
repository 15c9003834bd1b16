"""How a model's answers are generated where it is evaluated: the section ``generation`` of a recipe, and of ``eval``.

Left out: engines other than transformers.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import Field

from alignment.config.box_units import run_recipe
from rewards.config.overrides import with_overrides
from rewards.config.strict_model import StrictModel
from rewards.config.strict_yaml import validated

Kind = Literal["closed", "choice", "open", "box", "report", "dialogue"]
Bound = Annotated[int, Field(ge=1)]
MAX_NEW_TOKENS: dict[Kind, int] = {"closed": 32, "choice": 32, "open": 64, "box": 128, "report": 256, "dialogue": 32}
"""By kind of task; of a dialogue, for each answer. A chatty answer to a closed question is read to its end."""


class GenerationSection(StrictModel):
    """How answers are generated.

    ``dtype`` of the weights. A batch holds ``batch_size`` rows at most and, where ``batch_tokens`` is given, no more
    tokens than that, answers included. ``max_new_tokens``: one bound, or by kind of task (``closed choice open box
    report dialogue``; a kind that is not named keeps its default). ``temperature``: greedy where there is none;
    otherwise ``seed`` decides what is drawn, on any number of ranks.
    """

    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    batch_size: int = Field(default=32, ge=1)
    batch_tokens: int | None = Field(default=None, ge=1)
    max_new_tokens: Bound | dict[Kind, Bound] = Field(default={})
    temperature: float | None = Field(default=None, gt=0)
    seed: int = 0

    def bound(self, kind: Kind) -> int:
        """The most tokens of an answer of this kind."""
        return self.bounds()[kind]

    def bounds(self) -> dict[Kind, int]:
        """The most tokens of an answer, by kind."""
        if isinstance(self.max_new_tokens, int):
            return dict.fromkeys(MAX_NEW_TOKENS, self.max_new_tokens)
        return MAX_NEW_TOKENS | self.max_new_tokens


def kind_of(row: Mapping[str, object]) -> Kind:
    """What kind of answer a prompt row asks for; boxes in several images and a curriculum's reasons are long."""
    task = row["task"]
    if task == "dialogue" or row.get("box_images") or row.get("capability"):
        return "dialogue" if task == "dialogue" else "report"
    return task if task in ("choice", "open", "box", "report") else "closed"


class _OfARecipe(StrictModel):
    """What ``key=value`` of ``clinalign eval`` reaches."""

    generation: GenerationSection = GenerationSection()


def generation_of(run: str, overrides: Iterable[str] = ()) -> GenerationSection:
    """The section of the recipe in a run's folder, or the defaults for any other model, after ``key=value`` overrides.

    Raises: InputError with every fault of the overrides, which reach keys of ``generation`` alone.
    """
    section = run_recipe(run).get("generation") or {}
    overrides = list(overrides)
    content = with_overrides({"generation": section}, overrides, example="generation.max_new_tokens.report=300")
    return validated(_OfARecipe, content, where="eval").generation
