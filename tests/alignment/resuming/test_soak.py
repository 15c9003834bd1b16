"""The soak: its figures, and a real one of a few steps with a real kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from alignment.cli.app import app
from alignment.resuming.ledger import Ledger, Plan
from alignment.resuming.soak import GIVES_BACK, Killing, Run, compared, differing, differing_logs, ending, finish, soak
from data_builders.interruptions import Stopped
from rewards.config.input_error import InputError

ROOT = Path(__file__).parents[3]


def lines(losses):
    return [{"step": k, "loss": loss, "rows": [["a"]], "seconds": 0.1} for k, loss in enumerate(losses, start=1)]


def test_a_loss_that_differs_in_its_last_bit_is_counted_and_a_missing_step_too():
    one = lines([0.1, 0.2, 0.3])
    assert differing(one, lines([0.1, 0.2, 0.3]), "loss") == 0
    assert differing(one, lines([0.1, np.nextafter(0.2, 1), 0.3]), "loss") == 1
    assert differing(one, lines([0.1, 0.2]), "loss") == 1


def a_run(folder, losses, rows=("a", "b", "c", "d")):
    ledger = Ledger(folder / "ledger", 0)
    for step, (loss, row) in enumerate(zip(losses, rows, strict=True), start=1):
        ledger.saw([row])
        ledger.add_loss(loss)
        ledger.close_step(step, 0)
    ledger.plan(Plan(1))
    ledger.plan_epoch(0, ["a", "b", "c", "d"])
    log = [{"loss": loss, "step_time": k} for k, loss in enumerate(losses)]
    (folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))
    return folder


def test_equal_runs_differ_in_nothing(tmp_path):
    whole, broken = (a_run(tmp_path / name, [0.4, 0.3, 0.2, 0.1]) for name in ("whole", "broken"))
    found = compared(whole, broken, Killing([2], [1], [0.3]))
    assert (found["kills"], found["resumes"], found["steps"]) == (1, 1, 4)
    for name in ("differing_losses", "differing_rows", "differing_log_entries", "rows_skipped", "rows_repeated"):
        assert found[name] == 0, name
    assert found["held_mib_at_the_end"] > 0
    assert found["held_mib_growth_per_1000_steps"] is None  # four steps do not show one


def test_a_replayed_row_shows_in_every_figure_that_it_should(tmp_path):
    whole = a_run(tmp_path / "whole", [0.4, 0.3, 0.2, 0.1])
    broken = a_run(tmp_path / "broken", [0.4, 0.3, 0.25, 0.1], rows=("a", "b", "b", "d"))
    found = compared(whole, broken, Killing([2], [1], [0.3]))
    assert found["differing_losses"] == found["differing_rows"] == found["differing_log_entries"] == 1
    assert found["rows_skipped"] == found["rows_repeated"] == 1


def test_log_lines_of_only_one_run_are_counted_and_times_are_not(tmp_path):
    whole, broken = a_run(tmp_path / "whole", [0.4, 0.3, 0.2, 0.1]), a_run(tmp_path / "broken", [0.4, 0.3, 0.2, 0.1])
    log = broken / "log.jsonl"
    log.write_text(log.read_text().replace('"step_time": 0', '"step_time": 9'))
    assert differing_logs(whole, broken) == 0
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    assert differing_logs(whole, broken) == 1


def test_the_last_step_is_read_past_a_half_written_line(tmp_path):
    run = Run(tmp_path / "x.yaml", [], tmp_path / "run")
    assert run.step() == 0
    a_run(tmp_path / "run", [0.1] * 4)
    with (tmp_path / "run/ledger/rank0.jsonl").open("a") as opened:
        opened.write('{"step": 5')
    assert run.step() == 4


HOLES = """
from alignment.resuming.resident_memory import resident_mib
bytes(16 * 2**20)  # freed: from now on glibc would keep blocks up to this size
blocks = [b"x" * (2**20 + k) for k in range(128)]
before = resident_mib()["held_mib"]
blocks[:-1] = []  # the last one keeps the heap from shrinking
print(before - resident_mib()["held_mib"])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is one of glibc")
def test_freed_blocks_go_back_to_the_system_at_once_while_a_soak_measures():
    env = {**os.environ, **GIVES_BACK}
    done = subprocess.run([sys.executable, "-c", HOLES], env=env, capture_output=True, text=True, check=True)
    assert float(done.stdout) > 120


def test_a_signal_is_named():
    assert ending(-9) == "was killed by SIGKILL"
    assert ending(2) == "ended with exit code 2"


def test_the_ledger_command_proves_a_run_or_fails(tmp_path):
    a_run(tmp_path / "good", [0.1] * 4)
    a_run(tmp_path / "bad", [0.1] * 4, rows=("a", "a", "c", "d"))
    assert CliRunner().invoke(app, ["ledger", str(tmp_path / "good")]).exit_code == 0
    assert CliRunner().invoke(app, ["ledger", str(tmp_path / "bad")]).exit_code == 1


def test_a_folder_that_is_no_soak_is_left_alone(tmp_path, write_recipe):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    done = CliRunner().invoke(app, ["soak", str(write_recipe()), "--out", str(tmp_path / "mine")])
    assert done.exit_code == 2
    assert "not a soak" in " ".join(done.stderr.split())
    assert (tmp_path / "mine/thesis.txt").exists()


FAMILY = """
import signal, subprocess, sys, time
if "deaf" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(300)
"""


@pytest.mark.parametrize("words", [[], ["deaf"]])
def test_a_soak_that_is_stopped_ends_its_run_and_what_that_started(words, tmp_path, monkeypatch):
    monkeypatch.setattr("alignment.resuming.soak.ENDS_S", 0.5)
    note = tmp_path / "pid"
    command = [sys.executable, "-c", FAMILY, str(note), *words]
    monkeypatch.setattr(Run, "_start", lambda run: subprocess.Popen(command, start_new_session=True, text=True))
    run = Run(tmp_path / "x.yaml", [], tmp_path / "run")
    seen = []

    def stopped_within():
        with run.started() as process:
            seen.append(process)
            while not (note.is_file() and note.read_text()):
                time.sleep(0.02)
            raise Stopped(signal.SIGINT)

    with pytest.raises(Stopped):
        stopped_within()
    assert seen[0].poll() is not None
    assert not psutil.pid_exists(int(note.read_text())) or psutil.Process(int(note.read_text())).status() == "zombie"


@pytest.mark.slow
def test_ctrl_c_at_a_soak_leaves_no_process(tmp_path, write_recipe):
    recipe = write_recipe(trainer={"max_steps": 5000})
    command = [
        sys.executable,
        "-m",
        "alignment",
        "soak",
        str(recipe),
        "--steps",
        "5000",
        "--out",
        str(tmp_path / "soak"),
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        while not (children := psutil.Process(process.pid).children(recursive=True)):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert "stopped by SIGINT" in said
    assert "Traceback" not in said
    assert not any(child.is_running() and child.status() != "zombie" for child in children)


@pytest.mark.slow
def test_a_recipe_at_fault_is_said_with_what_the_run_said(tmp_path, write_recipe):
    run = Run(write_recipe(), ["trainer.no_such_knob=1"], tmp_path / "run")
    with pytest.raises(InputError, match=r"ended with exit code 2.*unknown key"):
        finish(run)


@pytest.mark.slow
def test_a_soak_with_a_real_kill_differs_in_nothing(tmp_path, write_recipe):
    recipe = write_recipe(trainer={"max_steps": 30})
    found = soak(recipe, [], folder=tmp_path / "soak", steps=30, kills=1)
    assert found["kills"] == found["resumes"] == 1
    assert found["steps"] == 30
    for name in ("differing_losses", "differing_rows", "differing_log_entries", "rows_skipped", "rows_repeated"):
        assert found[name] == 0, name
