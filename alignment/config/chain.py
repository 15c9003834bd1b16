"""A chain of stages: runs that start from what the one before them saved."""

from pathlib import Path

from pydantic import Field, model_validator

from rewards.config.input_error import nearest
from rewards.config.shipped import RECIPES, here_or_shipped
from rewards.config.strict_model import StrictModel


class Stage(StrictModel):
    """One link of a chain: a recipe file, the stage whose model it starts from, overrides.

    ``model`` and ``train`` name earlier stages; by default a stage starts from the last one that trained a model.
    ``counterparts``: earlier stages that answer the training prompts first, as CRPO's pool (column ``counterparts``).
    """

    name: str
    recipe: str
    model: str | None = None
    train: str | None = None
    counterparts: list[str] = Field(default=[])
    overrides: list[str] = Field(default=[])

    def file(self, chain: Path) -> Path:
        """The recipe's file, beside the chain's; ``recipes/...`` that is not there, from the working directory."""
        beside = chain.parent / self.recipe
        is_shared = self.recipe.startswith(f"{RECIPES}/") and not here_or_shipped(beside).exists()
        return Path(self.recipe) if is_shared else beside


class Chain(StrictModel):
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
