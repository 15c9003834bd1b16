"""Two torchrun agents on loopback stand for two nodes, each started by the line that ``launch`` writes."""

import os
import signal
import socket
import subprocess
import time

import psutil
import pytest

from alignment.planning.launch import Machines, Run, environment, line
from alignment.resuming.checkpoints import MANIFEST
from tests.alignment.resuming.test_resume_after_kill import (
    ROOT,
    assert_same_run,
    recipe_of,
    start,
    steps_of,
    trained_by_two,
)

__all__ = ["start"]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
START_S, END_S = 180, 30
SAID = {
    1: "error: the launcher of the first node cannot be reached",
    143: "is whole. The same command goes on from checkpoint-",
}
"""By exit code, what the other node says: what it meets first, the lost rendezvous or ranks that were asked to end."""


class Node:
    """An agent with its one rank; what both say goes to ``log``."""

    def __init__(self, recipe, port, number):
        place = Machines(nodes=2, gpus=1, cpu=True, head=f"127.0.0.1:{port}")
        env = {**os.environ, **environment(place), "PYTHONPATH": str(ROOT), "COLUMNS": "1000"}
        self.log = recipe.with_suffix(f".node{number}.log")
        with self.log.open("w") as log:
            self.agent = subprocess.Popen(line(Run(recipe), place), env=env, stdout=log, stderr=log)

    def ended(self, within_s=END_S):
        """The agent's exit code; an error if it has not ended in time."""
        return self.agent.wait(within_s)

    def ranks(self):
        return [child for child in psutil.Process(self.agent.pid).children() if "RANK" in child.environ()]


def nodes(recipe):
    """Two nodes; on one machine, whichever comes first holds the rendezvous."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [Node(recipe, port, number) for number in range(2)]


def until(done, running):
    last = time.monotonic() + START_S
    while not done():
        assert time.monotonic() < last
        assert all(node.agent.poll() is None for node in running), [node.log.read_text() for node in running]
        time.sleep(0.01)


def test_two_nodes_of_which_one_loses_its_agent_end_at_once_and_both_go_on_as_one_node(write_recipe, start, tmp_path):
    settings = {"max_steps": 20, "per_device_train_batch_size": 2}
    whole = recipe_of(write_recipe, tmp_path, "whole", "sft", start, trainer=settings)
    broken = recipe_of(write_recipe, tmp_path, "broken", "sft", start, trainer=settings)
    trained_by_two(whole)
    first, second = nodes(broken)
    until((tmp_path / "broken/checkpoints/checkpoint-4" / MANIFEST).is_file, [first, second])
    ranks = [*first.ranks(), *second.ranks()]
    first.agent.send_signal(signal.SIGKILL)
    assert first.ended() == -signal.SIGKILL
    assert SAID[second.ended()] in second.log.read_text()
    assert "Traceback" not in second.log.read_text()
    assert len(ranks) == 2
    assert not psutil.wait_procs(ranks, END_S)[1]  # none trains on without its agent
    done = len(steps_of(tmp_path / "broken"))
    assert 4 <= done < 20
    first, second = nodes(broken)
    assert (first.ended(START_S), second.ended()) == (0, 0), first.log.read_text()[-3000:]
    assert f"goes on from {tmp_path}/broken/checkpoints/checkpoint-" in first.log.read_text() + second.log.read_text()
    assert_same_run(tmp_path / "broken", tmp_path / "whole", processes=2)
