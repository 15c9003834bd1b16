"""Reward models under ZeRO-2 and ZeRO-3 on two CPU processes: trained, saved whole, and paying a sharded policy."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from alignment.checks.read_recipe import read_recipe
from alignment.models.prepared import built_texts
from alignment.models.reward_model import scores_of
from alignment.models.reward_model_files import load_reward_model
from alignment.models.tiny import build_tiny
from alignment.training.run import run
from tests.alignment.distributed.test_deepspeed import ROOT, STEPS, launched, recipe_for

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    """A tiny model to start from, so that every run begins with the same weights."""
    folder = tmp_path_factory.mktemp("start") / "tiny"
    return build_tiny(built_texts(str(data / "instruction/sft")), folder, image_size=64)


def zero(stage):
    return {"per_device_train_batch_size": 2, "deepspeed": str(ROOT / f"recipes/deepspeed/zero{stage}.json")}


@pytest.mark.parametrize("stage", [2, 3])
def test_two_ranks_under_zero_train_like_one_process_and_save_a_whole_model(write_recipe, start, tmp_path, stage):
    both = recipe_for(write_recipe, "reward_model", start, tmp_path, "both", **zero(stage))
    ranks = launched(both, tmp_path / "seen", 2)
    assert [seen["zero_stage"] for seen in ranks] == [stage] * 2
    if stage == 3:
        assert all(seen["held"] <= 0.6 * seen["whole"] for seen in ranks)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        *("-m", "alignment", "train", str(both)),
    ]
    env = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    shutil.rmtree(tmp_path / "both")  # the worker's, which is no run
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    one = run(
        read_recipe(
            recipe_for(write_recipe, "reward_model", start, tmp_path, "one", **STEPS, per_device_train_batch_size=4)
        )
    )
    alone = [
        entry["loss"] for entry in map(json.loads, (one / "log.jsonl").read_text().splitlines()) if "loss" in entry
    ]
    assert ranks[0]["losses"] == pytest.approx(alone, abs=2e-4)
    row = {
        "images": [],
        "prompt": [{"role": "user", "content": [{"type": "text", "text": "Report?"}]}],
        "answers": ["No."],
    }
    sharded, whole = (scores_of(*load_reward_model(str(folder)), [row])[0] for folder in (tmp_path / "both", one))
    assert sharded == pytest.approx(whole, abs=1e-2)


def test_a_policy_under_zero_3_is_scored_by_a_whole_reward_model(write_recipe, start, tmp_path):
    scorer = run(read_recipe(recipe_for(write_recipe, "reward_model", start, tmp_path, "scorer", **STEPS)))
    path = write_recipe(
        "grpo", model={"path": str(start)}, rewards=[{"name": "reward_model", "path": str(scorer)}],
        trainer={**STEPS, **zero(3)}, output=str(tmp_path / "policy"),
    )  # fmt: skip
    ranks = launched(path, tmp_path / "seen", 2)
    assert [seen["zero_stage"] for seen in ranks] == [3, 3]
