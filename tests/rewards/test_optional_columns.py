"""A reward's positional parameter without default is a column that rows must have; with one, a column they may have."""

import asyncio
import json
from dataclasses import dataclass

from alignment.cli.filters import score_lines
from alignment.reward_functions.adapter import TrlReward
from rewards.loading import BatchReward, Judged, Reward, reward_of


def margin(response: str, answer: str, target: str | None = None, *, scale: float = 1.0) -> float | None:
    """1 for the answer where a target is known, 0.5 where none is."""
    return scale * (1.0 if target else 0.5) if response == answer else 0.0


def test_columns_with_a_default_are_optional():
    reward = reward_of("margin", margin, {"scale": 0.5}, (0.0, 1.0))
    assert (reward.columns, reward.optional) == (("answer",), ("target",))
    assert reward("a", answer="a") == 0.25
    assert reward("a", answer="a", target="nodule", patient="p") == 0.5
    assert reward("a", answer="a", target=None) == 0.25


def test_the_adapter_hands_over_what_the_data_have():
    reward = TrlReward(Reward("length", margin, {}, ("answer",), (0.0, 1.0), ("target",)))
    assert reward(["a", "b"], answer=["a", "a"]) == [0.5, 0.0]
    assert reward(["a", "a"], answer=["a", "a"], target=["nodule", None]) == [1.0, 0.5]


@dataclass(frozen=True)
class Batched:
    """Says which columns it was given."""

    columns: tuple[str, ...] = ("answer",)
    optional: tuple[str, ...] = ("target",)

    async def __call__(self, responses: list[str], answer: list[str], target: list[str] | None = None) -> Judged:
        return Judged([float(target is not None) for _ in responses])


def test_a_batch_reward_has_optional_columns_too():
    reward = BatchReward("margin", Batched())
    assert asyncio.run(reward(["a"], answer=["a"], prompt=["p"])).scores == [0.0]
    assert asyncio.run(reward(["a"], answer=["a"], target=["t"])).scores == [1.0]
    assert BatchReward("margin", object()).optional == ()


def test_score_asks_for_no_optional_column():
    [line] = score_lines("closed_answer", [], [json.dumps({"response": "<answer>yes</answer>", "answer": "yes"})])
    assert json.loads(line)["score"] == 1.0
