"""The line that is started is the right one; two CPU processes really train with it."""

import json
import os
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from alignment.cli.app import app
from alignment.models.loading import load_model
from alignment.planning.launch import (
    Command,
    JobRequest,
    Machines,
    Run,
    launch,
    line,
    sbatch_script,
    shell_line,
    submit,
)
from rewards.config.input_error import InputError
from tests.alignment.distributed.test_deepspeed import ROOT

RUN = Run(Path("recipes/sft/x.yaml"), ["trainer.seed=1"])
TRAIN = ["-m", "alignment", "train", "recipes/sft/x.yaml", "trainer.seed=1"]


def options(command):
    """The options of a command, as a dict."""
    return {a: b for a, b in pairwise(command) if a.startswith("--")}


def test_one_node_is_a_rendezvous_of_its_own():
    command = line(RUN, Machines(gpus=8))
    assert command[1:] == ["-m", "alignment.distributed.torchrun", "--standalone", "--nproc_per_node", "8", *TRAIN]


def test_several_nodes_meet_at_the_head():
    asked = options(line(RUN, Machines(nodes=4, gpus=8, head="node-a")))
    assert (asked["--nnodes"], asked["--nproc_per_node"]) == ("4", "8")
    assert (asked["--rdzv_backend"], asked["--rdzv_endpoint"]) == ("c10d", "node-a:29500")


def test_several_nodes_without_a_head_are_refused():
    with pytest.raises(InputError, match="--head HOST"):
        line(RUN, Machines(nodes=2))


def test_accelerate_counts_all_processes():
    asked = options(line(RUN, Machines(nodes=2, gpus=4, head="a:1234", node=1, by="accelerate")))
    assert (asked["--num_processes"], asked["--num_machines"], asked["--machine_rank"]) == ("8", "2", "1")
    assert (asked["--main_process_ip"], asked["--main_process_port"]) == ("a", "1234")


def test_accelerate_knows_every_option_that_it_is_given():
    from accelerate.commands.launch import launch_command_parser

    command = line(RUN, Machines(nodes=2, gpus=4, head="a", node=0, by="accelerate"))
    parsed = launch_command_parser().parse_args(command[3:])
    assert parsed.num_processes == 8
    assert (parsed.module, parsed.training_script) == (True, "alignment")


def test_torchrun_knows_every_option_that_it_is_given():
    from torch.distributed.run import parse_args

    parsed = parse_args(line(RUN, Machines(nodes=2, gpus=4, head="a"))[3:])
    assert (parsed.nnodes, parsed.nproc_per_node, parsed.training_script) == ("2", "4", "alignment")


def test_accelerate_on_the_cpu_is_refused():
    with pytest.raises(InputError, match="does not say so"):
        line(RUN, Machines(cpu=True, by="accelerate"))


def test_the_printed_line_holds_its_environment():
    words = shlex.split(shell_line(RUN, Machines(gpus=2, cpu=True)))
    assert "HF_HUB_OFFLINE=1" in words
    assert "DS_ACCELERATOR=cpu" in words
    assert words[-len(TRAIN) :] == TRAIN


def test_what_the_user_says_of_the_network_wins(monkeypatch):
    for said in ("0", ""):
        monkeypatch.setenv("HF_HUB_OFFLINE", said)
        assert f"HF_HUB_OFFLINE={said}" in shlex.split(shell_line(RUN, Machines()))
        assert f"export HF_HUB_OFFLINE=${{HF_HUB_OFFLINE-{shlex.quote(said)}}}\n" in sbatch_script(RUN, Machines())
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert "export HF_HUB_OFFLINE=${HF_HUB_OFFLINE-1}\n" in sbatch_script(RUN, Machines())


def test_a_job_asks_for_time_memory_and_enough_cpus():
    asked = sbatch_script(RUN, Machines(gpus=8), JobRequest("1-12:00:00", "200G")).splitlines()
    assert {"#SBATCH --time=1-12:00:00", "#SBATCH --mem=200G", "#SBATCH --cpus-per-task=64"} <= {*asked}
    assert 'export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-64}"' in asked
    assert "#SBATCH --cpus-per-task=6" in sbatch_script(RUN, Machines(gpus=8), JobRequest(cpus=6)).splitlines()
    unasked = sbatch_script(RUN, Machines(gpus=8))
    assert "--time" not in unasked
    assert "--mem" not in unasked
    for fault in ({"time": "soon"}, {"time": "1:00\n#SBATCH --nice"}, {"mem": "200 G"}):
        with pytest.raises(InputError, match="expected"):
            JobRequest(**fault)


@pytest.mark.parametrize("nodes", [1, 16])
def test_the_batch_script_asks_for_what_torchrun_is_told(nodes, tmp_path):
    script = sbatch_script(RUN, Machines(nodes=nodes, gpus=8))
    assert f"#SBATCH --nodes={nodes}\n" in script
    assert "#SBATCH --gpus-per-node=8\n" in script
    assert f"--nnodes {nodes} " in script
    assert '--rdzv_endpoint "$HEAD:$PORT" --nproc_per_node 8 -m alignment train' in script
    file = tmp_path / "x.sbatch"
    file.write_text(script)
    assert subprocess.run(["bash", "-n", str(file)], check=False).returncode == 0


def test_a_job_is_warned_before_its_end_and_goes_on_in_the_same_log():
    """``USR1@`` without ``B:`` goes to the steps, where our torchrun hands it on; ``B:`` would end the script alone."""
    asked = [line for line in sbatch_script(RUN, Machines(nodes=2, gpus=8)).splitlines() if line.startswith("#SBATCH")]
    assert {"#SBATCH --signal=USR1@300", "#SBATCH --open-mode=append", "#SBATCH --requeue"} <= set(asked)
    assert "srun" in sbatch_script(RUN, Machines(nodes=2, gpus=8)).splitlines()[-1]
    assert "-m alignment.distributed.torchrun" in sbatch_script(RUN, Machines(nodes=2, gpus=8)).splitlines()[-1]


def test_the_batch_script_runs_torchrun_at_the_first_host(tmp_path):
    """With stand-ins for SLURM's own commands, which are not on this machine."""
    for name, body in {"scontrol": "echo first; echo second", "srun": 'printf "%s\\n" "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    file = tmp_path / "x.sbatch"
    file.write_text(sbatch_script(RUN, Machines(nodes=2, gpus=8)))
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "x"}
    said = subprocess.run(["bash", str(file)], env=env, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[said.index("--rdzv_endpoint") + 1] == "first:20077"
    assert said[said.index("--rdzv_id") + 1] == "77"
    assert said[-len(TRAIN) :] == TRAIN


def test_without_sbatch_the_script_is_left_and_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"launch\.sbatch"):
        submit(RUN, Machines(nodes=2, gpus=8), tmp_path / "run" / "launch.sbatch")
    assert (tmp_path / "run" / "launch.sbatch").read_text() == sbatch_script(RUN, Machines(nodes=2, gpus=8))


def test_more_gpus_than_there_are_is_refused():
    with pytest.raises(InputError, match="this node has"):
        launch(RUN, Machines(gpus=1000))


def clinalign(*arguments):
    command = [sys.executable, "-m", "alignment", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)


def printed(*words):
    """What ``launch`` prints in place of starting anything."""
    done = CliRunner().invoke(app, ["launch", *map(str, words), "--dry-run"])
    assert done.exit_code == 0, done.output
    return done.output


def test_launch_takes_its_options_anywhere_and_hands_on_the_others(data):
    words = ["counterparts", data / "prompt/align", "pool/align", "--model", "sft=./runs/x", "--limit", 3]
    said = printed("--gpus", 4, *words[:3], "--cpu", *words[3:])
    assert shlex.split(said)[-len(words) - 3 :] == ["4", "-m", "alignment", *map(str, words)]
    assert "DS_ACCELERATOR=cpu" in said


def test_a_launched_evaluation_is_one_job_whose_script_lies_in_the_run(tmp_path, monkeypatch):
    (tmp_path / "sft/model").mkdir(parents=True)
    (tmp_path / "sft/model/config.json").write_text('{"model_type": "idefics3"}')
    (tmp_path / "sft/recipe.resolved.yaml").write_text("{}")
    said = printed("eval", tmp_path / "sft", "data/x/prompt/test", "--gpus", 8, "--slurm", "--limit", 3)
    assert "#SBATCH --job-name=clinalign-eval-sft\n" in said
    assert f"--nproc_per_node 8 -m alignment eval {tmp_path}/sft data/x/prompt/test --limit 3\n" in said
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "sft/evaluation.sbatch; submit" in refused("eval", tmp_path / "sft", "data/x/prompt/test", "--slurm")
    assert (tmp_path / "sft/evaluation.sbatch").is_file()


def refused(*words):
    done = CliRunner().invoke(app, ["launch", *map(str, words)])
    assert done.exit_code == 2, done.output
    return " ".join(done.output.split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["RECIPE", "--gpu", 2], "no option --gpu. Did you mean '--gpus'?"),
        (["--gpu", 2, "RECIPE"], "no option --gpu. Did you mean '--gpus'?"),
        (["RECIPE", "--frsh"], "no option --frsh. Did you mean '--fresh'?"),
        (["eval", "runs/x", "data/x", "--limt=3"], "no option --limt. Did you mean '--limit'?"),
        (["eval", "runs/x", "data/x", "--fresh"], "eval knows no --fresh; leave it out."),
        (["eval", "runs/x"], "Missing argument 'data'"),
        (["RECIPE", "--time", "3:00"], "asked of Slurm; add --slurm"),
        (["RECIPE", "--time", "3h", "--slurm"], "--time 3h: expected such as 90 (minutes), 12:00:00"),
    ],
)
def test_a_misspelt_option_is_one_error_before_anything_starts(words, told, write_recipe, monkeypatch):
    monkeypatch.setattr("alignment.planning.launch.launch", lambda *_: pytest.fail("started"))
    recipe = write_recipe()
    assert told in refused(*(recipe if word == "RECIPE" else word for word in words))


def test_fresh_goes_to_the_ranks(write_recipe):
    said = printed(write_recipe(), "--fresh", "trainer.max_steps=1", "--gpus", 2)
    assert shlex.split(said)[-2:] == ["trainer.max_steps=1", "--fresh"]


@pytest.mark.parametrize("run", [Run(Path("x.yaml"), fresh=True), Command("a b/c", ["run", "x y.yaml"], fresh=True)])
def test_a_job_that_is_started_again_does_not_begin_anew(run, tmp_path):
    file = tmp_path / "x.sbatch"
    file.write_text(sbatch_script(run, Machines(gpus=2)))
    for name, body in {"scontrol": "echo first", "srun": 'printf "%s\\n" "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "x"}
    for restarts, words in (({}, run.arguments), ({"SLURM_RESTART_COUNT": "1"}, run.arguments[:-1])):
        done = subprocess.run(["bash", str(file)], env=env | restarts, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-len(words) :] == words
        assert done.stdout.count("--fresh") == words.count("--fresh")


@pytest.mark.slow
def test_a_faulty_recipe_is_refused_before_anything_is_started(write_recipe):
    done = clinalign("launch", write_recipe(model={"quantization": "4bit"}), "--gpus", 2, "--dry-run")
    assert done.returncode == 2
    assert "4-bit weights take no gradient" in done.stderr


@pytest.mark.slow
def test_launch_trains_on_two_cpu_processes(write_recipe, tmp_path):
    recipe = write_recipe("sft", trainer={"per_device_train_batch_size": 29, "num_train_epochs": 3, "max_steps": -1})
    done = clinalign("launch", recipe, "--gpus", 2, "--cpu")
    assert done.returncode == 0, done.stderr[-2000:]
    log = [json.loads(text) for text in (tmp_path / "sft" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3]  # 58 rows: two processes share an epoch
    start, end = (load_model(str(tmp_path / "sft" / part)).state_dict() for part in ("init", "."))
    assert any(not torch.equal(value, end[name]) for name, value in start.items())
