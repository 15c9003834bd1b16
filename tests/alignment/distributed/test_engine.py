"""What is settled before torch is loaded."""

import gc
import os
import subprocess
import sys
import threading

import pytest

from alignment.distributed.engine import loaded_objects_left_alone
from alignment.distributed.shared_folder import wait_for
from rewards.config.input_error import InputError

CODE = """
import os, sys
from alignment.cli.app import main
sys.argv = ["clinalign", "rewards"]
assert "torch" not in sys.modules
try:
    main()
finally:
    print("policy", os.environ["OMP_WAIT_POLICY"])
"""


@pytest.mark.parametrize(("set_by_user", "expected"), [(None, "passive"), ("active", "active")])
def test_waiting_threads_sleep_unless_the_environment_says_otherwise(set_by_user, expected):
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    env |= {"OMP_WAIT_POLICY": set_by_user} if set_by_user else {}
    said = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=env, check=True).stdout
    assert f"policy {expected}" in said


def test_a_file_of_another_process_is_waited_for(tmp_path):
    file = tmp_path / "config.json"
    threading.Timer(0.2, file.touch).start()
    wait_for(file, limit_s=10)
    assert file.is_file()


def test_a_file_that_never_comes_is_told_of(tmp_path):
    with pytest.raises(InputError, match="Rank 0 makes it"):
        wait_for(tmp_path / "config.json", limit_s=0.1)


def test_the_collector_passes_over_loaded_objects_and_comes_back_to_them_after_a_fault():
    def fails():
        with loaded_objects_left_alone():
            seen.append((gc.get_freeze_count(), len(gc.get_objects())))
            raise InputError("a fault")

    seen = []
    with pytest.raises(InputError):
        fails()
    frozen, watched = seen[0]
    assert frozen > 10_000 > watched
    assert gc.get_freeze_count() == 0


GROUP_OF_ONE = """
import atexit, sys
import torch
import torch.distributed as dist
from alignment.distributed.processes import leave_process_group

real = sys.__stdout__
sys.stdout = sys.stderr  # as the command line does for --json

class Left:
    def __del__(self, out=real):
        print("taken down", file=out, flush=True)

left = Left()
atexit.register(print, "at exit", file=real)
if sys.argv[1] != "none":
    dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=0, world_size=1)
    dist.all_reduce(torch.ones(4))
leave_process_group()
print("goes on", file=real, flush=True)
"""


@pytest.mark.parametrize(("group", "said"), [(True, ["at exit"]), (False, ["goes on", "at exit", "taken down"])])
def test_a_process_of_several_ends_without_taking_python_down(group, said, tmp_path):
    store = str(tmp_path / "store") if group else "none"
    command = [sys.executable, "-c", GROUP_OF_ONE, store]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert (done.returncode, done.stdout.split("\n")[:-1]) == (0, said)
