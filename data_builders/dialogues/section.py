"""The section ``dialogues`` of a data spec."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_builders.dialogues.paraphrases import Paraphrase
from rewards.config.strict_model import StrictModel
from rewards.dialogues.dialogue import Scenario


class Dialogues(StrictModel):
    """Which dialogues an image gets, in instruction and prompt rows alike.

    ``per_image``: dialogues an image and epoch, their scenarios drawn by the weights of ``mixture``. ``epochs``: how
    often all of them are drawn afresh. ``eval_mixture``: one dialogue of each scenario for the ``test_wording``
    splits, which take the test templates, and for the ``eval_splits``, which keep those of training; a split in both
    lists is tested in both. ``sft_rows``: ``whole`` writes an instruction row a dialogue (its loss must
    leave the clinician's turns out), ``turns`` one for each answer, with all before it as the prompt. ``paraphrase``:
    answers in words of training are reworded by an LLM where that keeps what they say.
    """

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
