"""A signal or a full disk is one sentence: what stands, how to go on; exit code 130 or 143, and no traceback."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from alignment.checks.read_recipe import read_recipe
from alignment.resuming import resumable
from alignment.resuming.checkpoints import last_whole
from alignment.training.run import run
from data_builders.interruptions import Stopped, handled_by, is_of_a_full_disk, stands, stop
from data_builders.locks import only_one
from data_builders.output_folders import new_folder, unfinished
from rewards.config.input_error import InputError

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_stopped_build_says_what_stands_and_leaves_nothing(tmp_path, name, code):
    spec = {
        "source": {"name": "phantom_chest", "patients": 4000, "size": 128}, "output": "data", "splits": {"sft": 1.0},
        "rows": {"instruction": ["sft"]}, "tasks": {"presence": 1},
    }  # fmt: skip
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    command = [sys.executable, "-m", "alignment", "build", "spec.yaml", "seed=3"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as process:
        while not list(unfinished(tmp_path / "data").glob("instruction/*")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.Signals[name])
        said = process.stderr.read()
    assert process.returncode == code
    assert f"stopped by {name}. Nothing was written to data. The same command begins anew." in said
    assert "Go on with: clinalign build spec.yaml seed=3" in said
    assert "Traceback" not in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["spec.yaml"]


def test_a_disk_that_fills_while_a_checkpoint_is_written_leaves_the_one_before(write_recipe, tmp_path, monkeypatch):
    recipe = read_recipe(write_recipe(trainer={"max_steps": 4, "save_strategy": "steps", "save_steps": 2}))
    seal = resumable.seal

    def full(folder, *, step, **more):
        if step == 4:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))
        seal(folder, step=step, **more)

    with monkeypatch.context() as patch:
        patch.setattr(resumable, "seal", full)
        with pytest.raises(InputError, match=r"the disk is full.*checkpoint-2 \(step 2\) is whole\. The same command"):
            run(recipe)
    assert last_whole(tmp_path / "sft/checkpoints").name == "checkpoint-2"
    assert (run(recipe) / "model/config.json").is_file()


def fill(out):
    with only_one(out), new_folder(out) as grown:
        (grown / "half").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_leaves_the_old_folder_and_no_copy(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    with pytest.raises(InputError, match=r"the disk is full\. .*out is as it was before"):
        fill(out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    assert [p.name for p in out.iterdir()] == ["old"]


def test_the_innermost_word_counts_and_other_faults_pass():
    with pytest.raises(Stopped) as stopped, stands(lambda: "outer"), stands(lambda: "inner"):
        stop(signal.SIGTERM)
    assert (stopped.value.stands, stopped.value.exit_code) == ("inner", 143)
    for fault in (ValueError("x"), InputError("y"), OSError(errno.EACCES, "z")):
        with pytest.raises(type(fault)) as passed, stands(lambda: "outer"):
            raise fault
        assert passed.value is fault


def test_libraries_that_hand_on_no_number_are_understood():
    assert is_of_a_full_disk(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert is_of_a_full_disk(RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"))
    assert not is_of_a_full_disk(RuntimeError("CUDA out of memory"))


def test_handlers_are_given_back_and_a_forked_child_ends_as_ever():
    before = signal.getsignal(signal.SIGTERM)
    with handled_by(stop):
        child = os.fork()
        if not child:
            signal.raise_signal(signal.SIGINT)  # passed over
            signal.raise_signal(signal.SIGUSR1)  # as is what Slurm sends to all, or a run's data workers would end
            signal.raise_signal(signal.SIGTERM)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGTERM) is before
