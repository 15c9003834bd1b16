"""Two processes of one launch that meet a fault: both end with code 2, it is told once, and nobody waits for ever."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from alignment.cli.faults import tell
from alignment.distributed import torchrun
from alignment.distributed.processes import is_main_process, leave_process_group
from alignment.distributed.ranks import agreed, from_all, num_ranks, over_ranks
from data_builders.locks import only_one
from rewards.config.input_error import InputError
from tests.alignment.resuming.test_resume_after_kill import ROOT, SERVER

LIMIT_S = 120
LARGER = 9 << 20
"""Bytes that a value of torch's store cannot have."""


def rank(words, log, env):
    """A process's whole work: the command, as torchrun starts it."""
    os.environ.update(env)
    with log.open("w") as opened:
        os.dup2(opened.fileno(), 2)
        sys.stderr = opened
        sys.argv = ["clinalign", *words]
        from alignment.cli.app import main

        main()


def launcher(ranks):
    """What torchrun tells all its processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    told = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return told | {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "COLUMNS": "1000"}


def exit_codes(ranks, limit_s=LIMIT_S):
    """How processes ended that are started here together; who is late is killed."""
    for process in ranks:
        process.start()
    last = time.monotonic() + limit_s
    for process in ranks:
        process.join(max(0, last - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in ranks]


def both(words, tmp_path, *, other=None):
    """What two ranks of ``clinalign WORDS`` said, and their exit codes; ``other``: the words of rank 1."""
    shared = launcher(2)
    logs = [tmp_path / f"rank{k}.log" for k in range(2)]
    asked = [[*map(str, words)], [*map(str, other or words)]]
    ranks = [
        SERVER.Process(target=rank, args=(asked[k], logs[k], {**shared, "RANK": str(k), "LOCAL_RANK": str(k)}))
        for k in range(2)
    ]
    codes = exit_codes(ranks)
    return [log.read_text() for log in logs], codes


def spoilt(data, tmp_path):
    """Instruction rows, one of them without an answer."""
    table = pq.read_table(data / "instruction/sft.parquet")
    rows = table.to_pylist()
    rows[3]["completion"] = None
    file = tmp_path / "instruction/sft.parquet"
    file.parent.mkdir()
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), file)
    return {"train": str(tmp_path / "instruction/sft")}


FAULTS = {
    "a row, which only rank 0 reads": "'completion': null",
    "an unknown key": "trainer.learning_rat: unknown key",
    "a value that TRL refuses": "trainer: adamm is not a valid OptimizerNames",
    "a name that is not here": "nobody/base' is not in the local cache",
    "an output that rank 0 refuses": "is writing there now",
    "a file that rank 1 lacks": "gone.yaml: no such file",
    "a limit of silence that is none": "CLINALIGN_SILENT_S: got 'soon'; expected seconds above 0",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_fault_is_told_once_and_every_rank_ends_with_it(fault, data, write_recipe, tmp_path, monkeypatch):
    changes = {
        "a row, which only rank 0 reads": lambda: {"data": spoilt(data, tmp_path)},
        "an unknown key": lambda: {"trainer": {"learning_rat": 1.0}},
        "a value that TRL refuses": lambda: {"trainer": {"optim": "adamm"}},
        "a name that is not here": lambda: {"model": {"path": "nobody/base"}},
    }.get(fault, dict)()
    recipe = write_recipe(**changes)
    other = ["train", tmp_path / "gone.yaml"] if fault == "a file that rank 1 lacks" else None
    if fault == "a limit of silence that is none":
        env = {"CLINALIGN_SILENT_S": "soon"}
        monkeypatch.setattr(
            "tests.alignment.distributed.test_ranks.launcher", lambda ranks, known=launcher: known(ranks) | env
        )
    if fault == "an output that rank 0 refuses":
        with only_one(tmp_path / "sft"):
            said, codes = both(["train", recipe], tmp_path)
    else:
        said, codes = both(["train", recipe], tmp_path, other=other)
    assert codes == [2, 2], said
    told = [line for line in "".join(said).splitlines() if line.startswith("error: ") and "looked at next" not in line]
    assert len(told) == 1, said
    assert FAULTS[fault] in told[0]
    assert "Traceback" not in "".join(said)


def test_one_process_asks_nobody(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")  # without a rank: no launcher has set it
    monkeypatch.delenv("RANK", raising=False)
    assert num_ranks() == 1
    assert agreed(lambda: 7) == 7
    tell("a fault")
    assert "a fault" in capsys.readouterr().err


def test_what_a_cluster_sets_for_every_program_of_a_pod_makes_no_launch(monkeypatch):
    """torchrun and accelerate number the processes of a node too. Without them nobody else comes by."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert num_ranks() == 1
    assert is_main_process()
    assert list(over_ranks([3], lambda task: task)) == [(3, 3)]


def test_one_process_does_all_tasks_in_their_order():
    assert list(over_ranks([3, 1, 2], lambda task: [task, task * task])) == [(3, [3, 9]), (1, [1, 1]), (2, [2, 4])]


def share(env, file, unreadable):
    """A process's share of seven tasks: which it did, and what it has been given of all."""
    os.environ.update(env)
    did = []

    def work(task):
        did.append(task)
        if task == unreadable:
            raise InputError("task 4 cannot be read")
        return {"square": task * task}

    try:
        given = list(over_ranks(range(7), work)) + [(-1, each) for each in from_all(env["RANK"])]
        given += [(-2, len(each)) for each in from_all("." * LARGER * int(env["RANK"]))]
    except InputError as fault:
        tell(str(fault))
        given = str(fault)
    file.write_text(json.dumps([did, given]))
    from_all("the last word") if unreadable is None else time.sleep(1)  # who holds the store ends last


def shares(tmp_path, unreadable=None):
    """What each of three processes did, and was given."""
    shared, files = launcher(3), [tmp_path / f"{k}.json" for k in range(3)]
    ranks = [
        SERVER.Process(target=share, args=({**shared, "RANK": str(k), "LOCAL_RANK": str(k)}, files[k], unreadable))
        for k in range(3)
    ]
    exit_codes(ranks)
    return [json.loads(file.read_text()) for file in files]


@pytest.mark.slow
def test_each_process_does_every_third_task_and_is_given_all(tmp_path):
    did, given = zip(*shares(tmp_path), strict=True)
    assert did == ([0, 3, 6], [1, 4], [2, 5])
    squares = [[task, {"square": task * task}] for task in range(7)]
    words = [*([-1, str(k)] for k in range(3)), *([-2, k * LARGER] for k in range(3))]
    assert given[0] == squares + words
    assert given[1] == given[2] == given[0]


def ends_early(env, file):
    """Rank 1 ends, as by a signal, where rank 0 waits for it."""
    os.environ.update(env)
    from_all(env["RANK"])
    if env["RANK"] == "1":
        leave_process_group(143, always=True)
    try:
        from_all(0) if file.suffix == ".given" else agreed(lambda: 0)
    except InputError as fault:
        file.write_text(str(fault))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["given", "agreed"])
def test_nobody_waits_for_a_process_that_has_ended(kind, tmp_path):
    shared, file = launcher(2), tmp_path / f"0.{kind}"
    ranks = [
        SERVER.Process(target=ends_early, args=({**shared, "RANK": str(k), "LOCAL_RANK": str(k)}, file))
        for k in range(2)
    ]
    exit_codes(ranks, LIMIT_S / 2)
    assert "rank 1 on " in file.read_text()
    assert "has ended before the others" in file.read_text()


@pytest.mark.slow
def test_a_fault_in_one_share_is_the_fault_of_all(tmp_path):
    assert [given for _, given in shares(tmp_path, unreadable=4)] == ["task 4 cannot be read"] * 3


# --- torchrun as it is started here --------------------------------------------------------------------------------


def waits(tmp_path, *words):
    """torchrun, started here, over two ranks that say when they are there."""
    script = tmp_path / "rank.py"
    script.write_text(
        "import os, signal, sys, time\n"
        "here = sys.argv[1] + '/' + os.environ['RANK']\n"
        "def end(number, _):\n    open(here + '.got', 'w').write(str(number)); time.sleep(float(sys.argv[2]))\n"
        "    os._exit(128 + number)\n"
        "signal.signal(signal.SIGUSR1, end)\n"
        "if len(sys.argv) > 3: sys.exit(int(sys.argv[3]))\n"
        "open(here + '.there', 'w').close()\n"
        "time.sleep(100)\n"
    )
    start = [
        sys.executable,
        "-m",
        "alignment.distributed.torchrun",
        "--standalone",
        "--nproc_per_node",
        "2",
        str(script),
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*start, str(tmp_path), *words], env=env, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_slurms_warning_reaches_every_rank_through_torchrun(tmp_path):
    with waits(tmp_path, "0.5") as process:
        while len(list(tmp_path.glob("*.there"))) < 2:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        process.send_signal(signal.SIGUSR1)
        said = process.stderr.read()
    assert [(tmp_path / f"{k}.got").read_text() for k in range(2)] == [str(int(signal.SIGUSR1))] * 2
    assert process.returncode == 128 + signal.SIGUSR1
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize(("code", "told"), [(2, False), (1, True)])
def test_torchrun_adds_its_summary_to_crashes_alone(code, told, tmp_path):
    with waits(tmp_path, "0", str(code)) as process:
        said = process.stderr.read()
    assert process.returncode == code
    assert ("ChildFailedError" in said) == told


def test_the_codes_that_are_told_are_those_of_commands():
    assert set(torchrun.REPORTED) == {2, 130, 143, 138}
