"""GRPO over dialogues on two CPU processes under ZeRO-2, whose dialogues are of unequal length."""

import math
from pathlib import Path

import pytest

from alignment.models.prepared import built_texts
from alignment.models.tiny import build_tiny
from tests.alignment.distributed.test_deepspeed import launched

ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


def test_two_ranks_under_zero_2_train_on_dialogues(write_recipe, marrow, tmp_path):
    start = build_tiny(built_texts(str(marrow / "instruction/sft")), tmp_path / "tiny", image_size=64)
    recipe = write_recipe(
        "grpo",
        model={"path": str(start)},
        data={"train": str(marrow / "prompt/align")},
        rewards=[{"name": "dialogue_consistency"}],
        dialogue={"credit": "turn", "max_answer_tokens": 5},
        trainer={
            "max_steps": 2, "per_device_train_batch_size": 2, "num_generations": 2, "max_completion_length": 400,
            "seed": 5, "deepspeed": str(ROOT / "recipes/deepspeed/zero2.json"),
        },
    )  # fmt: skip
    ranks = launched(recipe, tmp_path / "seen", 2, "letters")
    assert [seen["engine"] for seen in ranks] == ["DeepSpeedEngine"] * 2
    assert [seen["zero_stage"] for seen in ranks] == [2, 2]
    assert len(ranks[0]["grad_norms"]) == 2
    for seen in ranks:
        assert all(0.1 < norm < math.inf for norm in seen["grad_norms"])
        assert all(map(math.isfinite, seen["losses"]))
