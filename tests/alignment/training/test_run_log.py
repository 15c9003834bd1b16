"""The log of a run grows as it is logged: a killed run has one, and the run that goes on has no step twice."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from alignment.checks.read_recipe import read_recipe
from alignment.resuming.soak import TIMED
from alignment.training.run import run
from alignment.training.run_log import GrowingLog

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.filterwarnings("default")  # third-party deprecations of trl and accelerate


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def told(log, state):
    log.on_log(TrainingArguments(report_to="none"), state, TrainerControl())


@pytest.fixture
def state():
    return TrainerState(log_history=[{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])


def test_an_entry_is_in_the_file_as_soon_as_it_is_logged(tmp_path, state):
    log = GrowingLog(tmp_path / "log.jsonl")
    log.on_train_begin(None, TrainerState(), None)
    told(log, TrainerState(log_history=state.log_history[:1]))
    assert lines(tmp_path / "log.jsonl") == state.log_history[:1]
    told(log, state)
    assert lines(tmp_path / "log.jsonl") == state.log_history


def test_what_was_logged_behind_the_checkpoint_is_cut_back(tmp_path, state):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n{"step": 3, "lo')
    GrowingLog(tmp_path / "log.jsonl").on_train_begin(None, state, None)
    assert lines(tmp_path / "log.jsonl") == state.log_history


def test_other_processes_write_nothing(tmp_path, state):
    state.is_world_process_zero = False
    log = GrowingLog(tmp_path / "log.jsonl")
    log.on_train_begin(None, state, None)
    told(log, state)
    assert not (tmp_path / "log.jsonl").exists()


@pytest.mark.slow
def test_a_run_killed_by_sigkill_has_its_log_and_goes_on_to_that_of_a_whole_run(write_recipe, tmp_path):
    def recipe(name):
        every = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "logging_steps": 1, "seed": 5}
        path = write_recipe("sft", output=str(tmp_path / name), trainer=every, data={"limit": 12})
        return path.replace(tmp_path / f"{name}.yaml")

    def logged(name):
        return [{k: v for k, v in e.items() if k not in TIMED} for e in lines(tmp_path / name / "log.jsonl")]

    whole, broken = recipe("whole"), recipe("broken")
    run(read_recipe(whole))
    worker = str(Path(__file__).parents[1] / "resuming/resume_worker.py")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, worker, str(broken), "5", "all"], env=env, cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [entry["step"] for entry in logged("broken")] == [1, 2, 3, 4, 5]  # 5 lies behind the checkpoint after 4
    assert logged("broken") == logged("whole")[:5]
    run(read_recipe(broken))
    assert logged("broken") == logged("whole")
    assert [entry["step"] for entry in logged("broken")][:6] == [1, 2, 3, 4, 5, 6]
