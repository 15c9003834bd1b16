"""Pickles planted in a checkpoint: a run that goes on from it runs none of them, sealed anew or not.

Each is a real attack: whoever opens it with ``pickle`` leaves a file. A seal shows damage, not who wrote it, so the
checkpoints are tried both with the seal they had and sealed anew by the attacker.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alignment.checks.read_recipe import read_recipe
from alignment.resuming.checkpoints import MANIFEST, fault, seal
from alignment.resuming.plain_pickles import FORBIDDEN, FORCED, PlainPickles
from alignment.training.run import run
from rewards.config.input_error import InputError

ROOT = Path(__file__).parents[3]
PLAIN = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin")
EVERY = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "seed": 5}


class Bomb:
    """Whoever unpickles it leaves a folder ``marker``."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def plant(file, marker):
    torch.save({"state": Bomb(marker)}, file)


def seal_anew(checkpoint):
    (checkpoint / MANIFEST).unlink()
    seal(checkpoint, step=int(checkpoint.name.split("-")[1]))
    assert fault(checkpoint) is None


def unfinished(folder):
    """The checkpoint of a run as if that had been killed in its second step."""
    shutil.rmtree(folder / "model")
    shutil.rmtree(folder / "checkpoints" / "checkpoint-2")
    return folder / "checkpoints" / "checkpoint-1"


def test_the_bomb_goes_off_where_it_is_opened_without_care(tmp_path):
    plant(tmp_path / "a.pt", tmp_path / "it_ran")
    torch.load(tmp_path / "a.pt", weights_only=False)
    (tmp_path / "it_ran").rmdir()
    pickle.loads(pickle.dumps(Bomb(tmp_path / "it_ran")))
    assert (tmp_path / "it_ran").exists()


def test_torch_is_told_to_open_plain_data_until_training_begins(tmp_path, monkeypatch):
    monkeypatch.setenv(FORBIDDEN, "1")
    plant(tmp_path / "a.pt", tmp_path / "it_ran")
    told = pytest.raises(InputError, match=r"checkpoint-2: .* \(it names posix\.mkdir\) .* Remove checkpoint-2")
    with told, PlainPickles(tmp_path / "checkpoint-2"):
        torch.load(tmp_path / "a.pt", weights_only=False)
    assert not (tmp_path / "it_ran").exists()
    assert (os.environ[FORBIDDEN], os.environ.get(FORCED)) == ("1", None)
    with PlainPickles(tmp_path) as opening:
        opening.on_train_begin(None, None, None)
        torch.load(tmp_path / "a.pt", weights_only=False)
    assert (tmp_path / "it_ran").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_no_file_of_a_plain_checkpoint_is_run(write_recipe, tmp_path, caplog):
    recipe, marker = write_recipe(trainer=EVERY), tmp_path / "it_ran"
    run(read_recipe(recipe))
    folder = tmp_path / "sft"
    whole = shutil.copytree(folder, tmp_path / "whole")
    for anew in (False, True):
        for name in PLAIN:
            shutil.rmtree(folder)
            shutil.copytree(whole, folder)
            checkpoint = unfinished(folder)
            assert (checkpoint / name).is_file()
            plant(checkpoint / name, marker)
            caplog.clear()
            if not anew:
                run(read_recipe(recipe))
                assert any(f"{name} has" in said or f"{name} is not" in said for said in caplog.messages)
                continue
            seal_anew(checkpoint)
            if name == "training_args.bin":  # which nobody opens
                run(read_recipe(recipe))
            else:
                with pytest.raises(InputError, match=r"checkpoint-1: a pickle in it is no plain data \(it names "):
                    run(read_recipe(recipe))
    assert not marker.exists()


def launched(recipe):
    env = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1"]
    worker = str(Path(__file__).with_name("resume_worker.py"))
    command = [*torchrun, worker, str(recipe), "-1", "all"]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("stage", [2, 3])
def test_no_file_of_a_checkpoint_of_deepspeed_is_run_and_its_own_go_on(write_recipe, tmp_path, stage):
    settings = str(ROOT / f"recipes/deepspeed/zero{stage}.json")
    recipe, marker = write_recipe(trainer={**EVERY, "deepspeed": settings}), tmp_path / "it_ran"
    done = launched(recipe)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "sft"
    losses = [json.loads(line)["loss"] for line in (folder / "ledger/rank0.jsonl").read_text().splitlines()]
    whole = shutil.copytree(folder, tmp_path / "whole")

    unfinished(folder)
    done = launched(recipe)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "goes on from" in done.stderr
    assert [json.loads(line)["loss"] for line in (folder / "ledger/rank0.jsonl").read_text().splitlines()] == losses

    names = sorted(str(f.relative_to(whole)) for f in whole.glob("checkpoints/checkpoint-1/global_step*/*.pt"))
    assert len(names) == 2
    for name in names:
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        checkpoint = unfinished(folder)
        plant(folder / name, marker)
        seal_anew(checkpoint)
        done = launched(recipe)
        assert done.returncode == 1
        assert "checkpoint-1: a pickle in it is no plain data (it names " in done.stderr
        assert not marker.exists()
