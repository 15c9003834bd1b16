"""A run that is asked to end writes a checkpoint first; the run that goes on from it was never stopped."""

import signal
import socket

import pytest

from alignment.resuming.checkpoints import MANIFEST
from alignment.resuming.ending import IMPATIENT_S, EndRequest
from data_builders.interruptions import Stopped
from tests.alignment.resuming.test_resume_after_kill import (
    ROOT,
    assert_same_run,
    ended,
    recipe_of,
    start,
    started,
    trained,
)

__all__ = ["start"]
pytestmark = pytest.mark.filterwarnings("default")


def end_request(recipe, name, at=6, **env):
    log = recipe.with_suffix(f".{env.get('RANK', 0)}.log")
    return started(recipe, at, log, KILL_WITH=name, **env), log


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_run_that_is_asked_to_end_has_a_checkpoint_of_its_last_step_and_goes_on_to_the_same_losses(
    write_recipe, start, tmp_path, name
):
    whole = recipe_of(write_recipe, tmp_path, "whole", "sft", start)
    broken = recipe_of(write_recipe, tmp_path, "broken", "sft", start)
    trained(whole)
    process, log = end_request(broken, name)
    assert ended(process) == 128 + signal.Signals[name], log.read_text()[-3000:]
    assert "checkpoint-7 (step 7) is whole. The same command goes on from checkpoint-7." in log.read_text()
    assert "Traceback" not in log.read_text()
    assert (tmp_path / "broken/checkpoints/checkpoint-7" / MANIFEST).is_file()
    assert "goes on from" in trained(broken)
    assert_same_run(tmp_path / "broken", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "whom"), [("SIGTERM", "1"), ("SIGUSR1", "all")])
def test_all_ranks_stop_behind_the_step_in_which_one_or_all_were_asked(name, whom, write_recipe, start, tmp_path):
    """SIGTERM as a launcher may send it to one; SIGUSR1 as Slurm's warning comes to all, by way of ``torchrun.py``."""
    settings = {"deepspeed": str(ROOT / "recipes/deepspeed/zero2.json"), "per_device_train_batch_size": 2}
    recipe = recipe_of(write_recipe, tmp_path, "run", "sft", start, trainer=settings)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared["KILL_RANK"] = whom
    ranks = [end_request(recipe, name, RANK=str(r), LOCAL_RANK=str(r), **shared) for r in range(2)]
    for process, log in ranks:
        assert ended(process) == 128 + signal.Signals[name], log.read_text()[-3000:]
        assert "checkpoint-7 (step 7) is whole" in log.read_text()
    assert (tmp_path / "run/checkpoints/checkpoint-7" / MANIFEST).is_file()


def test_a_signal_that_a_launcher_repeats_at_once_still_leaves_time_and_a_later_one_does_not(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("alignment.resuming.ending.time.monotonic", lambda: now[0])
    asked = EndRequest()
    asked.note(15, None)
    now[0] += IMPATIENT_S / 2
    asked.note(15, None)
    now[0] += IMPATIENT_S
    with pytest.raises(Stopped) as stopped:
        asked.note(2, None)
    assert (stopped.value.name, stopped.value.exit_code) == ("SIGINT", 130)
