"""A loop as jobs: each waits for what it reads and for nothing else, and all of them give what one call gives."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from alignment.cli.app import app
from alignment.loop.jobs import jobs_of, submission
from alignment.loop.loop_file import read_loop
from alignment.loop.steps import steps_of
from alignment.planning.launch import JobRequest, Machines
from tests.alignment.conftest import SPEC
from tests.alignment.distributed.test_ranks import LIMIT_S, launcher, rank
from tests.alignment.resuming.test_resume_after_kill import ROOT, SERVER

STAGES = [
    {"name": "sft", "recipe": "sft.yaml"},
    {"name": "pairs", "recipe": "pairs.yaml"},
    {"name": "dpo", "recipe": "dpo.yaml", "train": "pairs"},
    {"name": "plain", "recipe": "dpo.yaml", "model": "sft"},
    {"name": "read", "recipe": "sft.yaml", "model": "sft", "overrides": ["data.train=runs/x/pairs/preference/pairs"]},
    {"name": "crpo", "recipe": "grpo.yaml", "counterparts": ["sft", "plain"]},
    {"name": "anew", "recipe": "sft.yaml", "overrides": ["model.path=tiny"]},
]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A working directory with a loop of seven stages, of which nothing is there."""
    monkeypatch.chdir(tmp_path)
    for method in ("sft", "pairs", "dpo", "grpo"):
        # what a stage's own recipe names is not read where the chain wires it
        content = {"method": method, "model": {"path": "runs/x/plain"}, "data": {"train": "runs/x/plain"}}
        content |= {"rewards": [{"name": "box_overlap"}]} if method == "grpo" else {}
        (tmp_path / f"{method}.yaml").write_text(yaml.safe_dump(content))
    loop = {
        "spec": "data.yaml", "test": "prompt/test", "release": "dpo",
        "chain": {"output": "runs/x", "data": "data/tiny", "stages": STAGES},
        "compare": [{"before": "untrained", "after": "dpo", "metrics": ["mean_iou"]}],
    }  # fmt: skip
    (tmp_path / "loop.yaml").write_text(yaml.safe_dump(loop))
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({**SPEC, "output": "data/tiny"}))
    return tmp_path


def steps(seeds=1):
    return steps_of(read_loop(Path("loop.yaml")), Path("loop.yaml"), seeds)


def test_a_step_waits_for_what_it_reads_and_for_nothing_else(desk):
    assert {step.name: step.after for step in steps()} == {
        "build": (),
        "sft": ("build",),
        "sft/init_evaluation": ("sft",),
        "sft/evaluation": ("sft",),
        "pairs": ("build", "sft"),
        "dpo": ("build", "sft", "pairs"),
        "dpo/evaluation": ("dpo",),
        "plain": ("build", "sft"),
        "plain/evaluation": ("plain",),
        "read": ("build", "sft", "pairs"),
        "read/evaluation": ("read",),
        "crpo": ("build", "sft", "plain", "read"),
        "crpo/evaluation": ("crpo",),
        "anew": ("build",),
        "anew/evaluation": ("anew",),
        "release": (
            "sft/init_evaluation", "sft/evaluation", "dpo/evaluation", "plain/evaluation", "read/evaluation",
            "crpo/evaluation", "anew/evaluation",
        ),
    }  # fmt: skip


def test_seeds_share_the_build_alone(desk):
    of_two = {step.name: step.after for step in steps(seeds=2)}
    assert of_two["seed43/dpo"] == ("build", "seed43/sft", "seed43/pairs")
    assert len(of_two["release"]) == 2 * 7


def told(*words):
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 2, done.output
    return " ".join(done.output.split())


def test_a_step_out_of_order_names_the_one_before(desk):
    said = told("run", "loop.yaml", "--step", "sft")
    assert (
        "reads what step 'build' makes, which is not done. Do that first: clinalign run loop.yaml --step build" in said
    )
    assert "--seeds 2 --step seed42/sft/init_evaluation" in told("run", "loop.yaml", "--step", "release", "--seeds", 2)
    assert "no such step. Did you mean 'dpo/evaluation'?" in told("run", "loop.yaml", "--step", "dpo/evaluatoin")


def test_what_is_overridden_of_a_loop_is_so_in_every_step(desk):
    given = ["chain.output=runs/other", "limit=3"]
    jobs = jobs_of(Path("loop.yaml"), Machines(), JobRequest(), given, seeds=2)
    assert {job.file.parent for job in jobs} == {Path("runs/other")}
    assert all(
        f"run loop.yaml chain.output=runs/other limit=3 --seeds 2 --step {j.step.name}" in j.script for j in jobs
    )
    said = told("run", "loop.yaml", *given, "--step", "sft")
    assert "Do that first: clinalign run loop.yaml chain.output=runs/other limit=3 --step build" in said
    assert "override 'limit=many'" in told("launch", "loop.yaml", "limit=many", "--gpus", "2")


def test_a_chain_that_is_run_as_a_loop_is_told_from_one(desk):
    (desk / "chain.yaml").write_text(yaml.safe_dump(yaml.safe_load((desk / "loop.yaml").read_text())["chain"]))
    assert "no loop. Train it: clinalign train chain.yaml" in told("run", "chain.yaml")
    assert all(
        "a loop, and no recipe or chain. Run it: clinalign run" in told(c, "loop.yaml") for c in ("train", "check")
    )


def test_the_demo_is_the_loop_that_comes_with_clinalign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "recipes/loops/phantom_chest.yaml has no such step. Did you mean 'grpo'?" in told("demo", "--step", "gro")


def test_a_stage_cannot_be_called_like_a_step(desk):
    content = yaml.safe_load((desk / "loop.yaml").read_text())
    content["chain"]["stages"][3]["name"] = "build"
    content["chain"]["stages"][5]["counterparts"] = ["sft"]
    (desk / "loop.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(Exception, match="no stage can be named 'build'"):
        steps()


def test_build_and_release_need_no_gpu(desk):
    jobs = {job.step.name: job.script for job in jobs_of(Path("loop.yaml"), Machines(2, 4), JobRequest(mem="9G"))}
    for name in ("build", "release"):
        assert "gpus" not in jobs[name]
        assert "torchrun" not in jobs[name]
        assert "#SBATCH --nodes=1\n" in jobs[name]
    assert "#SBATCH --gpus-per-node=4\n#SBATCH --cpus-per-task=32\n#SBATCH --mem=9G\n" in jobs["sft/evaluation"]
    assert "--nnodes 2 " in jobs["pairs"]


def test_without_sbatch_a_script_that_submits_is_left_and_named(desk, monkeypatch):
    monkeypatch.setenv("PATH", str(desk))
    assert "bash runs/x/submit.sh" in told("launch", "loop.yaml", "--slurm")
    assert (desk / "runs/x/submit.sh").read_text() == submission(jobs_of(Path("loop.yaml"), Machines(), JobRequest()))


def stand_in(folder, **commands):
    folder.mkdir()
    for name, body in commands.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_what_sbatch_refuses_half_way_is_told_with_what_was_submitted(desk, monkeypatch):
    refuses = 'case "$*" in *pairs*) echo "QOS limit" >&2; exit 1;; esac; echo 7'
    monkeypatch.setenv("PATH", stand_in(desk / "bin", sbatch=refuses)["PATH"])
    said = told("launch", "loop.yaml", "--slurm")
    assert "sbatch refused a job: QOS limit. Submitted before it: build: job 7, sft: job 7" in said


# --- a tiny loop, in one call and by its jobs ------------------------------------------------------------------------

TINY = {
    "output": "runs/none", "model": {"path": "tiny", "image_size": 64},
    "trainer": {"max_steps": 2, "per_device_train_batch_size": 4, "activation_checkpointing": False,
                "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True, "learning_rate": 1.0e-3},
}  # fmt: skip


def tiny_loop(folder):
    """A working directory with a loop that trains two stages by two steps each."""
    folder.mkdir()
    for method, train in (("sft", "instruction/sft"), ("dpo", "preference/align")):
        recipe = {**TINY, "method": method, "data": {"train": f"data/tiny/{train}"}}
        (folder / f"{method}.yaml").write_text(yaml.safe_dump(recipe))
    loop = {
        "spec": "data.yaml", "test": "prompt/test", "limit": 8, "release": "dpo",
        "chain": {"output": "runs/tiny", "stages": [{"name": n, "recipe": f"{n}.yaml"} for n in ("sft", "dpo")]},
        "compare": [{"before": "sft", "after": "dpo", "metrics": ["report_parse_failure", "train/loss"]}],
    }  # fmt: skip
    (folder / "loop.yaml").write_text(yaml.safe_dump(loop))
    (folder / "data.yaml").write_text(yaml.safe_dump({**SPEC, "output": "data/tiny"}))
    return folder


def rank_at(folder, words, log, env):
    os.chdir(folder)
    rank(words, log, env)


def submitted(folder):
    """What ``launch --slurm`` hands to Slurm: script and dependencies by the job's number."""
    done = CliRunner().invoke(app, ["launch", "loop.yaml", "--slurm", "--gpus", "2"])
    assert done.exit_code == 0, done.output
    jobs = {}
    for n, line in enumerate((folder / "queue").read_text().splitlines()):
        words = line.split()
        assert words[:2] == ["--parsable", "--kill-on-invalid-dep=yes"]
        jobs[str(n + 1)] = (words[-1], set(re.findall(r"\d+", words[2])) if len(words) > 3 else set())
    return jobs


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_jobs_of_a_loop_give_what_one_call_gives(tmp_path, monkeypatch):
    """Of the jobs that may start, always the last submitted is run: a dependency that lacks is seen. Two ranks each."""
    together, apart = tiny_loop(tmp_path / "together"), tiny_loop(tmp_path / "apart")
    shared, logs = launcher(2), [tmp_path / f"rank{k}.log" for k in range(2)]
    of_rank = [{**shared, "RANK": str(k), "LOCAL_RANK": str(k)} for k in range(2)]
    words = ["run", "loop.yaml"]
    ranks = [SERVER.Process(target=rank_at, args=(together, words, logs[k], of_rank[k])) for k in range(2)]
    for process in ranks:
        process.start()
    slurm = stand_in(
        tmp_path / "bin", sbatch='echo "$@" >> queue; wc -l < queue', srun='exec "$@"', scontrol="echo 127.0.0.1"
    )
    env = {**slurm, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(apart)
    waiting, done = submitted(apart), []
    while waiting:
        number = max((n for n, (_, after) in waiting.items() if after <= {*done}), key=int)
        script, _ = waiting.pop(number)
        job = {**os.environ, "SLURM_JOB_ID": number, "SLURM_JOB_NODELIST": "x"}
        ended = subprocess.run(["bash", script], env=job, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr[-3000:]
        done.append(number)
    for process in ranks:
        process.join(LIMIT_S)
        process.kill()
    assert [process.exitcode for process in ranks] == [0, 0], [log.read_text()[-3000:] for log in logs]
    assert done == ["1", "2", "4", "5", "3", "6"]  # build, sft, dpo, its evaluation, that of sft, release
    for name in ("effects.json", "sft/evaluation/answers.jsonl", "dpo/evaluation/evaluation.json"):
        assert (apart / "runs/tiny" / name).read_bytes() == (together / "runs/tiny" / name).read_bytes(), name
    assert json.loads((apart / "runs/tiny/effects.json").read_text())["effects"][1]["change"] is not None
    assert (apart / "released/tiny/manifest.json").is_file()
    assert (apart / "runs/tiny/report.html").is_file()
