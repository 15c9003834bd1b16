"""SFT, DPO and GRPO under ZeRO-2 and ZeRO-3 on two CPU processes, beside one process without DeepSpeed.

The batch of a step is the same rows: two of each process, or four of one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alignment.checks.read_recipe import read_recipe
from alignment.training.run import run
from rewards.config.input_error import InputError
from tests.alignment.training.moving_grpo import PAID, SGD, assert_moved_alike, weights_of

ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
STEPS = {"max_steps": 3, "seed": 5, "lr_scheduler_type": "constant", "max_grad_norm": 1.0}


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    """A tiny model to start from, so that every run begins with the same weights."""
    from alignment.models.prepared import built_texts
    from alignment.models.tiny import build_tiny

    folder = tmp_path_factory.mktemp("start") / "tiny"
    return build_tiny(built_texts(str(data / "instruction/sft")), folder, image_size=64)


def launched(recipe, out, processes, *more):
    """What each rank saw; the model is saved in ``out``. ``more``: further arguments of the worker."""
    out.mkdir(parents=True)
    env = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    script = str(Path(__file__).with_name("deepspeed_worker.py"))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(torchrun if processes > 1 else []), script, str(recipe), str(out), *more]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(processes)]


def recipe_for(write_recipe, method, start, tmp_path, name, shared="auto", **trainer):
    """GRPO is paid and pulled so that each step moves its weights; see ``moving_grpo``."""
    settings = {**(SGD if method == "grpo" else STEPS), **trainer}
    changes = {"model": {"path": str(start), "shared_prefix": shared}, "trainer": settings}
    return write_recipe(
        method, output=str(tmp_path / name), **changes, **({"rewards": PAID} if method == "grpo" else {})
    )


@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
@pytest.mark.parametrize("stage", [2, 3])
def test_two_ranks_under_zero_train_like_one_process(write_recipe, start, tmp_path, method, stage):
    settings = str(ROOT / f"recipes/deepspeed/zero{stage}.json")
    both = recipe_for(write_recipe, method, start, tmp_path, "both", per_device_train_batch_size=2, deepspeed=settings)
    ranks = launched(both, tmp_path / "seen2", 2, "forced")
    assert [seen["engine"] for seen in ranks] == ["DeepSpeedEngine"] * 2
    assert [seen["zero_stage"] for seen in ranks] == [stage] * 2
    assert [seen["processes"] for seen in ranks] == [2, 2]
    if stage == 3:
        assert all(seen["held"] <= 0.6 * seen["whole"] for seen in ranks)
    assert len(ranks[0]["losses"]) == STEPS["max_steps"]
    if method != "sft":  # chosen and rejected, or a group's answers, behind one prompt
        assert all(saved > 0 for seen in ranks for saved in seen["tokens_saved"])
    one = recipe_for(write_recipe, method, start, tmp_path, "one", per_device_train_batch_size=4)
    (alone,) = launched(one, tmp_path / "seen1", 1, "forced")
    assert_trained_alike(ranks[0], alone)
    if method == "grpo":  # a group of four is one process's, or two of either
        folders = tmp_path / "seen2/model", tmp_path / "seen1/model", start
        assert_moved_alike(*map(weights_of, folders), within=1e-3)


def assert_trained_alike(seen, other):
    """The same losses and gradient norms, of steps that moved the model."""
    assert seen["losses"] == pytest.approx(other["losses"], abs=2e-4)
    assert seen["grad_norms"] == pytest.approx(other["grad_norms"], rel=1e-3)
    assert min(other["grad_norms"]) > 0.1
    assert all(std > 0 for std in other["reward_stds"])


@pytest.mark.parametrize("method", ["dpo", "grpo"])
@pytest.mark.parametrize("stage", [2, 3])
def test_shared_prefix_on_and_off_train_alike_under_zero(write_recipe, start, tmp_path, method, stage):
    settings = {"per_device_train_batch_size": 2, "deepspeed": str(ROOT / f"recipes/deepspeed/zero{stage}.json")}
    settings |= {"precompute_ref_log_probs": False} if method == "dpo" else {}
    seen = {}
    for shared in ("on", "off"):
        recipe = recipe_for(write_recipe, method, start, tmp_path, shared, shared, max_steps=2, **settings)
        seen[shared] = launched(recipe, tmp_path / f"seen_{shared}", 2)[0]
    assert_trained_alike(seen["on"], seen["off"])
    assert min(seen["on"]["tokens_saved"]) > 0
    assert max(seen["off"]["tokens_saved"]) == 0
    if method == "grpo":
        folders = tmp_path / "seen_on/model", tmp_path / "seen_off/model", start
        assert_moved_alike(*map(weights_of, folders), within=1e-3)


def test_use_cpu_beside_deepspeed_is_refused(write_recipe, start, tmp_path):
    settings = str(ROOT / "recipes/deepspeed/zero2.json")
    path = recipe_for(write_recipe, "sft", start, tmp_path, "refused", use_cpu=True, deepspeed=settings)
    with pytest.raises(InputError, match="silently not used"):
        run(read_recipe(path))
