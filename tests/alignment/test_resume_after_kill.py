"""SIGKILL in the middle of a step, then the same command again: every loss is that of a run that was never killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from alignment.checkpoints import MANIFEST
from alignment.ledger import proof

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
EVERY = {"max_steps": 12, "save_strategy": "steps", "save_steps": 4, "logging_steps": 3, "seed": 5}
PHASES = {"num_iterations": 2, "steps_per_generation": 3, "per_device_train_batch_size": 4, "save_steps": 5}
"""GRPO: a generation batch lasts six steps, so that the checkpoints after 5 and 10 lie in the middle of one."""


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    """A tiny model to start from."""
    from alignment.models import built_texts
    from alignment.tiny import build_tiny

    folder = tmp_path_factory.mktemp("start") / "tiny"
    return build_tiny(built_texts(str(data / "instruction/sft")), folder, image_size=64)


def ended(recipe, *, kill_at=-1, rank="all", processes=1):
    """The process, when it has ended."""
    env = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    script = str(Path(__file__).with_name("resume_worker.py"))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(torchrun if processes > 1 else []), script, str(recipe), str(kill_at), rank]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


def trained(recipe, **how):
    done = ended(recipe, **how)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def killed(recipe, step, **how):
    done = ended(recipe, kill_at=step, **how)
    assert done.returncode == (-9 if how.get("processes", 1) == 1 else 1), done.stderr[-3000:]
    return done.stderr


def recipe_of(write_recipe, tmp_path, name, method, start, **changes):
    trainer = {**EVERY, **(PHASES if method == "grpo" else {}), **changes.pop("trainer", {})}
    path = write_recipe(
        method, output=str(tmp_path / name), model={"path": str(start)}, trainer=trainer,
        data={"limit": 18}, **changes,
    )  # fmt: skip
    return path.replace(tmp_path / f"{name}.yaml")


def log_of(folder):
    """Everything logged but times."""
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    timed = ("step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss")
    return [{k: v for k, v in entry.items() if k not in timed} for entry in log]


def steps_of(folder, rank=0):
    """(step, epoch, rows, loss) of each line of the ledger."""
    lines = [json.loads(line) for line in (folder / f"ledger/rank{rank}.jsonl").read_text().splitlines()]
    return [(line["step"], line["epoch"], line["rows"], line["loss"]) for line in lines]


@pytest.mark.parametrize(("method", "kills"), [("sft", (6, 11)), ("dpo", (9,)), ("grpo", (7, 10))])
def test_a_killed_run_goes_on_to_the_same_losses(write_recipe, start, tmp_path, method, kills):
    whole = recipe_of(write_recipe, tmp_path, "whole", method, start)
    broken = recipe_of(write_recipe, tmp_path, "broken", method, start)
    trained(whole)
    for step in kills:
        killed(broken, step)
    assert "are done again" in trained(broken)
    assert steps_of(tmp_path / "broken") == steps_of(tmp_path / "whole")
    assert log_of(tmp_path / "broken") == log_of(tmp_path / "whole")
    assert max(epoch for _, epoch, *_ in steps_of(tmp_path / "whole")) >= (1 if method != "grpo" else 0)
    assert not any(proof(tmp_path / "broken")[k] for k in ("rows_skipped", "rows_repeated", "steps_missing_or_twice"))
