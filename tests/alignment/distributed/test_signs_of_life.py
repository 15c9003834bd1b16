"""A process that is gone, on whatever node, ends the wait of the others; one that is busy does not."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from alignment.distributed import signs_of_life
from alignment.distributed.ranks import from_all, over_ranks
from alignment.distributed.signs_of_life import silent_s
from rewards.config.input_error import InputError
from tests.alignment.distributed.test_ranks import launcher
from tests.alignment.resuming.test_resume_after_kill import ROOT, SERVER

SILENT = "2"


def work(what, file, env):
    """A rank that does ``what`` after all have met; how it ended is told in ``file``."""
    os.environ.update(env)
    signs_of_life.GRACE_S = 1.0
    with file.with_suffix(".log").open("w") as log:
        os.dup2(log.fileno(), 2)
        from_all("here")
        file.with_suffix(".there").touch()
        try:
            file.write_text(str(what()))
        except InputError as fault:
            file.write_text(f"fault: {fault}")
        time.sleep(0.5)


def busy():
    """Longer than the limit, without a rest."""
    last = time.monotonic() + 2 * float(SILENT)
    while time.monotonic() < last:
        pass
    return from_all("done")


def waits():
    """For the others, at the launcher's store."""
    return from_all("done")


def deaf():
    """As one that waits in a library, and hears nothing of the others."""
    time.sleep(60)


@contextlib.contextmanager
def started(tmp_path, *works):
    """The ranks, once all have met, and what each will have told."""
    shared = {**launcher(len(works)), "CLINALIGN_SILENT_S": SILENT}
    files = [tmp_path / f"{k}.txt" for k in range(len(works))]
    ranks = [
        SERVER.Process(target=work, args=(one, files[k], {**shared, "RANK": str(k), "LOCAL_RANK": "0"}))
        for k, one in enumerate(works)
    ]
    try:
        for process in ranks:
            process.start()
        last = time.monotonic() + 60
        while not all(file.with_suffix(".there").exists() for file in files):
            assert time.monotonic() < last
            time.sleep(0.02)
        yield ranks, files
    finally:
        for process in ranks:
            process.kill()


def ended(ranks, within_s=30):
    """The exit codes; None of a process that is still there."""
    last = time.monotonic() + within_s
    for process in ranks:
        process.join(max(0, last - time.monotonic()))
    return [process.exitcode for process in ranks]


@pytest.mark.slow
def test_a_rank_that_is_busy_for_longer_than_the_limit_is_waited_for(tmp_path):
    with started(tmp_path, waits, busy) as (ranks, files):
        assert ended(ranks) == [0, 0]
    assert files[0].read_text() == "['done', 'done']"


@pytest.mark.slow
def test_a_rank_that_gives_no_more_signs_is_named_and_ends_those_that_wait_and_those_that_hear_nothing(tmp_path):
    """SIGSTOP stands for a node that has lost its power: no connection breaks."""
    with started(tmp_path, deaf, waits, busy) as (ranks, files):
        os.kill(ranks[2].pid, signal.SIGSTOP)
        assert ended(ranks[:2]) == [2, 0]
    assert "rank 2 on " in files[1].read_text()
    assert "has given no sign of life for 2 s (CLINALIGN_SILENT_S)" in files[1].read_text()


@pytest.mark.slow
def test_a_rank_whose_launchers_store_is_gone_says_so(tmp_path):
    with started(tmp_path, deaf, waits, deaf) as (ranks, files):
        ranks[0].kill()  # who holds the store
        assert ended(ranks[1:]) == [0, 2]
    assert "fault: the launcher of the first node (127.0.0.1:" in files[1].read_text()
    assert "error: the launcher of the first node" in files[2].with_suffix(".log").read_text()


@pytest.mark.slow
def test_a_rank_that_crashes_is_told_to_those_that_wait_for_it(tmp_path):
    said = []
    code = "import sys\nfrom alignment.distributed.ranks import from_all\nfrom_all(1)\n"
    ends = ["from_all(2)", "raise KeyError('no such thing')"]
    shared = {**os.environ, **launcher(2), "PYTHONPATH": str(ROOT)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code + end], env={**shared, "RANK": str(k), "LOCAL_RANK": "0"},
            stderr=subprocess.PIPE, text=True,
        )
        for k, end in enumerate(ends)
    ]  # fmt: skip
    for process in ranks:
        said.append(process.communicate(timeout=120)[1])
    assert [process.returncode for process in ranks] == [1, 1]
    assert "InputError: rank 1 on " in said[0]
    assert "ended by KeyError: 'no such thing'" in said[0]


@pytest.mark.parametrize("text", ["0", "-1", "ten", "nan", "inf"])
def test_a_limit_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv("CLINALIGN_SILENT_S", text)
    with pytest.raises(InputError, match="expected seconds above 0"):
        silent_s()
    monkeypatch.setenv("CLINALIGN_SILENT_S", "90")
    assert silent_s() == 90


def test_one_process_gives_no_signs():
    assert list(over_ranks([1], lambda task: task)) == [(1, 1)]
    assert "signs of life" not in {thread.name for thread in threading.enumerate()}
