"""A reward as a recipe names it."""

from typing import Any

from pydantic import ConfigDict, Field

from rewards.boxes.coordinate_space import BoxSpace
from rewards.config.strict_model import StrictModel
from rewards.loading import BatchReward, Reward, knobs_of, load_reward


class RewardEntry(StrictModel):
    """A reward by name, its weight, and its knobs as further keys. Weight 0.0: watched, not trained on.

    ``tasks``: it pays for rows of these tasks only, in place of those that the reward names itself.
    """

    model_config = ConfigDict(extra="allow")

    name: str
    weight: float = 1.0
    tasks: list[str] | None = Field(default=None, min_length=1)

    @property
    def knobs(self) -> dict[str, Any]:
        """The further keys of the entry."""
        return dict(self.model_extra or {})


def loaded_reward(entry: RewardEntry, box_space: BoxSpace) -> Reward | BatchReward:
    """The reward of a recipe's entry; one that reads boxes is told what the model writes (``data.box_space``)."""
    told = {"box_space": box_space} if "box_space" in knobs_of(entry.name) else {}
    return load_reward(entry.name, **told, **entry.knobs)
