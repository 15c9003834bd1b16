"""Which judge a recipe means: rules on facts, or a language model."""

from typing import Literal

from rewards.judges.facts_judge import FactsJudge
from rewards.judges.judging import DIMENSIONS, ChoiceJudge, Dimension, Judge, LlmJudge
from rewards.llm.spec import LlmSpec, LocalBackend, open_llm


class JudgeSpec(LlmSpec):
    """A language model as judge.

    ``style``: ``verdict`` reasons and ends in one verdict over all dimensions in one call; ``choice`` picks A, B or
    tie in one short call a dimension, which small models can do.
    """

    style: Literal["verdict", "choice"] = "verdict"
    max_tokens: int = 512


def open_judge(
    spec: JudgeSpec | Literal["facts"],
    *,
    dimensions: tuple[Dimension, ...] = DIMENSIONS,
    local: LocalBackend | None = None,
) -> Judge:
    """The judge of a spec; ``facts`` needs no model.

    Raises: InputError as ``open_llm`` does.
    """
    if isinstance(spec, str):
        return FactsJudge(dimensions)
    client = open_llm(spec, local=local)
    if spec.style == "choice":
        return ChoiceJudge(client, dimensions)
    return LlmJudge(client, dimensions, spec.max_tokens)
