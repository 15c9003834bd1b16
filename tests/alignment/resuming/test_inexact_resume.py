"""A checkpoint of two ranks gone on from under one or four: the rows, schedule and moments of the run that it was."""

import json
import shutil
import socket

import pytest
import yaml

from alignment.resuming.ledger import proof
from tests.alignment.resuming.test_resume_after_kill import ROOT, ended, log_of, recipe_of, start, started, steps_of
from tests.alignment.training.moving_grpo import assert_moved_alike, largest_difference, weights_of

__all__ = ["start"]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
EVERY = {
    "max_steps": 6, "save_steps": 2, "logging_steps": 1, "per_device_train_batch_size": 2, "weight_decay": 0.1,
    "warmup_steps": 2, "learning_rate": 1.0e-3, "lr_scheduler_type": "linear", "save_total_limit": 9,
}  # fmt: skip
"""A step takes four rows of sixteen: the epoch ends with step 4, where no batch is filled up."""
ROUNDING = 1e-6
"""Of a loss. Where Adam's moments are lost it differs by more than 1e-3, by one count of steps for two groups 7e-4."""


def trained_by(ranks, recipe, *, fails=False, **env):
    """What rank 0 said."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    logs = [recipe.with_suffix(f".{rank}.log") for rank in range(ranks)]
    running = [started(recipe, -1, logs[r], RANK=str(r), LOCAL_RANK=str(r), **shared, **env) for r in range(ranks)]
    codes = [ended(process) for process in running]
    assert (max(codes) > 0) == fails, "".join(log.read_text()[-3000:] for log in logs)
    return logs[0].read_text()


def cut_to(folder, step):
    """The run as if all of its processes had been killed behind the checkpoint of this step."""
    shutil.rmtree(folder / "model")
    for checkpoint in (folder / "checkpoints").glob("checkpoint-*"):
        if int(checkpoint.name.split("-")[1]) > step:
            shutil.rmtree(checkpoint)


def inexact_resumes(folder):
    """As the run's provenance has them: step, ranks before and after."""
    told = json.loads((folder / "provenance.json").read_text()).get("inexact_resumes", [])
    return [(place["step"], place["ranks_before"], place["ranks"]) for place in told]


def rows_of(folder):
    """The rows of each step, whichever ranks saw them."""
    seen = {}
    for rank in range(len(list((folder / "ledger").glob("rank*.jsonl")))):
        for step, _, rows, _ in steps_of(folder, rank):
            seen.setdefault(step, []).extend(row for batch in rows for row in batch)
    return {step: sorted(rows) for step, rows in seen.items()}


@pytest.fixture
def whole_run(write_recipe, start, tmp_path):
    """A function that trains a small recipe on two ranks, and gives its file, its folder and a copy of that."""

    def made(method="sft", stage=0, *, trainer=(), **model):
        deepspeed = {"deepspeed": str(ROOT / f"recipes/deepspeed/zero{stage}.json")} if stage else {}
        settings = {**EVERY, **deepspeed, **dict(trainer)}
        data = {"limit": 16}
        recipe = recipe_of(write_recipe, tmp_path, "run", method, start, trainer=settings, data=data)
        content = yaml.safe_load(recipe.read_text())
        recipe.write_text(yaml.safe_dump(content | {"model": content["model"] | model}))
        trained_by(2, recipe)
        shutil.copytree(tmp_path / "run", tmp_path / "whole")
        return recipe, tmp_path / "run", tmp_path / "whole"

    return made


def assert_goes_on_as(run, whole):
    """The same rows in each step, each once an epoch, and losses and rates of the whole run to rounding."""
    assert rows_of(run) == rows_of(whole)
    proved = proof(run)
    assert not any(proved[k] for k in ("rows_skipped", "rows_repeated", "steps_missing_or_twice", "rows_made_anew"))
    assert proved["inexact_resumes"] == 1
    for here, there in zip(log_of(run)[:-1], log_of(whole)[:-1], strict=True):
        assert here["loss"] == pytest.approx(there["loss"], rel=ROUNDING)
        assert (here["learning_rate"], here["epoch"]) == (there["learning_rate"], there["epoch"])


@pytest.mark.parametrize(("stage", "ranks"), [(2, 4), (3, 1)])
def test_sft_under_zero_goes_on_on_other_ranks(whole_run, start, stage, ranks):
    recipe, run, whole = whole_run(stage=stage, learning_rates={"vision": 1.0e-4})
    cut_to(run, 2)
    said = trained_by(ranks, recipe, INEXACT="1")
    assert said.count(f"checkpoint-2 was written by 2 processes, and this run has {ranks}") == 1
    assert_goes_on_as(run, whole)
    assert_moved_alike(weights_of(run / "model"), weights_of(whole / "model"), weights_of(start), within=1e-2)
    assert inexact_resumes(run) == [(2, 2, ranks)]
    assert not list(run.glob("checkpoints/*/*universal*"))


def test_dpo_of_adapters_goes_on_on_one_rank(whole_run):
    recipe, run, whole = whole_run("dpo", 2, lora={"rank": 4})
    cut_to(run, 2)
    trained_by(1, recipe, INEXACT="1")
    assert_goes_on_as(run, whole)


def test_without_deepspeed_to_one_rank_and_back(whole_run):
    recipe, run, whole = whole_run()
    cut_to(run, 2)
    said = trained_by(1, recipe, fails=True)
    assert "written by 2 processes, and this run has 1: it cannot go on exactly. Start it with 2, add --inexact" in said
    said = trained_by(2, recipe, INEXACT="1")
    assert "inexactly" not in said
    assert inexact_resumes(run) == []
    assert [steps_of(run, rank) for rank in range(2)] == [steps_of(whole, rank) for rank in range(2)]
    assert largest_difference(weights_of(run / "model"), weights_of(whole / "model")) == 0
    cut_to(run, 2)
    trained_by(1, recipe, INEXACT="1")
    assert_goes_on_as(run, whole)
    on_one, log_on_one = steps_of(run), log_of(run)
    cut_to(run, 4)
    said = trained_by(1, recipe)  # goes on exactly: this checkpoint is of one rank, which takes a step's rows in turns
    assert "inexactly" not in said
    assert (steps_of(run), log_of(run)) == (on_one, log_on_one)
    assert inexact_resumes(run) == [(2, 2, 1)]
    cut_to(run, 4)
    trained_by(2, recipe, INEXACT="1")
    assert inexact_resumes(run) == [(2, 2, 1), (4, 1, 2)]
    assert rows_of(run) == rows_of(whole)
    assert proof(run)["steps_missing_or_twice"] == 0


def test_grpo_answers_a_generation_batch_anew(whole_run):
    turns = {"steps_per_generation": 2, "num_iterations": 1, "save_steps": 1}
    recipe, run, whole = whole_run("grpo", trainer=turns)
    cut_to(run, 3)
    assert "its rows are answered anew" in trained_by(1, recipe, INEXACT="1")
    assert proof(run) == proof(whole) | {"processes": 1, "inexact_resumes": 1, "rows_made_anew": 4}
    here, there = rows_of(run), rows_of(whole)
    assert [here[step] for step in (1, 2, 3)] == [there[step] for step in (1, 2, 3)]
    assert sorted(here[5] + here[6]) == sorted(there[5] + there[6])  # each generation batch in an order of its own
