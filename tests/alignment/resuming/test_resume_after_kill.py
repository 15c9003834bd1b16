"""SIGKILL in the middle of a step, then the same command again: losses and weights of a run that was never killed."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from alignment.resuming.ledger import proof
from alignment.resuming.soak import TIMED
from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec
from tests.alignment.resuming.resume_worker import child
from tests.alignment.training.moving_grpo import PAID, largest_difference, weights_of

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.alignment.resuming.resume_worker"])
ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
EVERY = {"max_steps": 12, "save_strategy": "steps", "save_steps": 4, "logging_steps": 3, "seed": 5}
STAGES = {
    "alpha": 0.5,
    "stages": [{"of": ["introduction"], "steps": 5}, {"of": ["specialism"], "steps": 7, "replay": 0.25}],
}
"""Of the twelve steps, the checkpoint after 4 lies before the border of the stages, and the one after 8 behind it."""
PHASES = {
    "num_iterations": 2, "steps_per_generation": 3, "per_device_train_batch_size": 4, "save_steps": 5,
    "beta": 0.1, "max_completion_length": 8,
}  # fmt: skip
"""GRPO: a generation batch lasts six steps, so that the checkpoints after 5 and 10 lie in the middle of one.

Pulled by a reference and paid by ``PAID``, so that there is a loss and a gradient to differ.
"""


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    """A tiny model to start from."""
    from alignment.models.prepared import built_texts
    from alignment.models.tiny import build_tiny

    folder = tmp_path_factory.mktemp("start") / "tiny"
    return build_tiny(built_texts(str(data / "instruction/sft")), folder, image_size=64)


def started(recipe, kill_at, log, **env):
    """A process that trains this recipe. The server it comes from has done the imports and nothing else."""
    env = {"CLINALIGN_CACHE": os.environ["CLINALIGN_CACHE"], "OMP_NUM_THREADS": "1", **env}
    process = SERVER.Process(target=child, args=(recipe, kill_at, log, env))
    process.start()
    return process


def ended(process):
    """How a process ended: 0, or the signal's number below zero."""
    process.join()
    return process.exitcode


def trained(recipe, kill_at=-1):
    """What the process said."""
    log = recipe.with_suffix(".log")
    code = ended(started(recipe, kill_at, log))
    assert code == (0 if kill_at < 0 else -signal.SIGKILL), log.read_text()[-3000:]
    return log.read_text()


def trained_by_two(recipe, kill_at=-1):
    """Two processes train; where rank 1 is killed, rank 0 ends by itself and says why."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    logs = [recipe.with_suffix(f".{rank}.log") for rank in range(2)]
    ranks = [started(recipe, kill_at, logs[r], RANK=str(r), LOCAL_RANK=str(r), **shared) for r in range(2)]
    code = ended(ranks[1])
    assert code == (0 if kill_at < 0 else -signal.SIGKILL), "".join(log.read_text()[-3000:] for log in logs)
    assert ended(ranks[0]) == (0 if kill_at < 0 else 1), logs[0].read_text()[-3000:]
    return logs[0].read_text()


def recipe_of(write_recipe, tmp_path, name, method, start, **changes):
    trainer = {**EVERY, **(PHASES if method == "grpo" else {}), **changes.pop("trainer", {})}
    changes |= {"rewards": PAID} if method == "grpo" else {}
    path = write_recipe(
        method, output=str(tmp_path / name), model={"path": str(start)}, trainer=trainer,
        data=changes.pop("data", {"limit": 18}), **changes,
    )  # fmt: skip
    return path.replace(tmp_path / f"{name}.yaml")


def staged(tmp_path):
    """The instruction rows of a small built data set of two stages."""
    spec = {
        "source": {"name": "phantom_oct", "patients": 6, "size": 64}, "output": str(tmp_path / "oct"),
        "splits": {"sft": 1.0}, "rows": {"instruction": ["sft"]}, "tasks": {}, "curriculum": "phantom_oct",
    }  # fmt: skip
    return build(BuildSpec.model_validate(spec)) / "instruction/sft"


def log_of(folder):
    """Everything logged but times."""
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in entry.items() if k not in TIMED} for entry in log]


def steps_of(folder, rank=0):
    """(step, epoch, rows, loss) of each line of the ledger."""
    lines = [json.loads(line) for line in (folder / f"ledger/rank{rank}.jsonl").read_text().splitlines()]
    return [(line["step"], line["epoch"], line["rows"], line["loss"]) for line in lines]


def assert_same_run(broken, whole, *, processes=1):
    """The same steps, log and weights to the last bit, every row once, and gradients that moved the model."""
    for rank in range(processes):
        assert steps_of(broken, rank) == steps_of(whole, rank)
    assert log_of(broken) == log_of(whole)
    assert min(entry["grad_norm"] for entry in log_of(whole) if "grad_norm" in entry) > 0.01
    assert largest_difference(weights_of(broken / "model"), weights_of(whole / "model")) == 0
    assert not any(proof(broken)[k] for k in ("rows_skipped", "rows_repeated", "steps_missing_or_twice"))


@pytest.mark.parametrize(("method", "kills"), [("sft", (6, 11, 12)), ("dpo", (9,)), ("grpo", (7, 10))])
def test_a_killed_run_goes_on_to_the_same_losses(write_recipe, start, tmp_path, method, kills):
    whole = recipe_of(write_recipe, tmp_path, "whole", method, start)
    broken = recipe_of(write_recipe, tmp_path, "broken", method, start)
    trained(whole)
    for step in kills:
        trained(broken, kill_at=step)
    said = trained(broken)
    assert "are done again" in said
    assert_same_run(tmp_path / "broken", tmp_path / "whole")
    if method != "grpo":
        assert max(epoch for _, epoch, *_ in steps_of(tmp_path / "whole")) >= 1


def test_a_run_killed_in_a_stage_of_a_curriculum_goes_on_along_it_and_over_the_border(write_recipe, start, tmp_path):
    data = {"train": str(staged(tmp_path)), "curriculum": STAGES}
    whole = recipe_of(write_recipe, tmp_path, "whole", "sft", start, data=data)
    broken = recipe_of(write_recipe, tmp_path, "broken", "sft", start, data=data)
    trained(whole)
    trained(broken, kill_at=6)  # goes on from 4 over the border
    trained(broken, kill_at=11)  # goes on from 8 within the second stage
    assert "goes on from" in trained(broken)
    assert_same_run(tmp_path / "broken", tmp_path / "whole")
    columns = pq.read_table(f"{data['train']}.parquet", columns=["id", "stage"]).to_pydict()
    stage_of = dict(zip(columns["id"], columns["stage"], strict=True))
    seen = [{stage_of[row] for batch in rows for row in batch} for _, _, rows, _ in steps_of(tmp_path / "broken")]
    assert seen[:5] == [{"introduction"}] * 5
    assert set.union(*seen[8:]) == {"introduction", "specialism"}  # replayed after the second resume too


@pytest.mark.parametrize(("method", "stage"), [("sft", 2), ("dpo", 2), ("grpo", 2), ("sft", 3)])
def test_two_ranks_under_zero_go_on_to_the_same_losses(write_recipe, start, tmp_path, method, stage):
    settings = {"deepspeed": str(ROOT / f"recipes/deepspeed/zero{stage}.json"), "per_device_train_batch_size": 2}
    whole = recipe_of(write_recipe, tmp_path, "whole", method, start, trainer=settings)
    broken = recipe_of(write_recipe, tmp_path, "broken", method, start, trainer=settings)
    trained_by_two(whole)
    said = trained_by_two(broken, kill_at=6)
    assert "another process of this run has died" in said
    assert "The same command goes on from checkpoint-" in said
    trained_by_two(broken)
    assert_same_run(tmp_path / "broken", tmp_path / "whole", processes=2)
    assert proof(tmp_path / "broken")["processes"] == 2


def test_a_rank_killed_under_torchrun_stops_the_run_with_its_signal_named_and_the_run_goes_on(
    write_recipe, start, tmp_path
):
    settings = {"deepspeed": str(ROOT / "recipes/deepspeed/zero2.json"), "per_device_train_batch_size": 2}
    recipe = recipe_of(write_recipe, tmp_path, "run", "sft", start, trainer=settings)
    env = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    script = str(Path(__file__).with_name("resume_worker.py"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script]
    done = subprocess.run(
        [*torchrun, str(recipe), "6", "1"], env=env, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    since_its_last_step_s = time.time() - (tmp_path / "run/ledger/rank1.jsonl").stat().st_mtime
    assert done.returncode not in (0, None)
    assert "Signal 9 (SIGKILL)" in done.stderr
    assert "The same command goes on from checkpoint-4." in done.stderr
    assert since_its_last_step_s < 60
    trained_by_two(recipe)
    assert [step for step, *_ in steps_of(tmp_path / "run")] == list(range(1, 13))
