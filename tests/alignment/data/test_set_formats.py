"""A set of format 1 trains and evaluates as the same set of today; every command refuses one of a newer format."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from alignment.checks.read_recipe import read_recipe
from alignment.cli.app import app
from alignment.config.box_units import card_grid
from alignment.data.prompt_rows import read_rows
from alignment.loop.steps import is_built
from alignment.metrics.intervals import summarise
from alignment.metrics.outcomes import score_answers
from alignment.models.prepared import built_texts
from alignment.models.tiny import build_tiny
from alignment.training.run import run
from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec
from data_builders.cards import FORMAT, read_card
from tests.alignment.conftest import TRAIN
from tests.data_builders.build.test_set_formats import FORMAT_1, SPEC


@pytest.fixture(scope="module")
def today(tmp_path_factory):
    """The set of format 1, built today."""
    out = tmp_path_factory.mktemp("formats") / "today"
    return build(BuildSpec.model_validate({**SPEC, "output": str(out)}))


@pytest.fixture(scope="module")
def start(today, tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats") / "tiny"
    return build_tiny(built_texts(str(today / "instruction/sft")), folder, image_size=64)


@pytest.mark.filterwarnings("default")  # third-party deprecations of trl and accelerate
@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_both_formats_train_to_the_same_numbers(method, start, today, write_recipe, tmp_path):
    trainer = {"seed": 5, "max_steps": 2, "per_device_train_batch_size": 2, "report_to": "none"}
    logs = []
    for name, folder in (("old", FORMAT_1), ("new", today)):
        changes = {"output": str(tmp_path / name), "data": {"train": str(folder / TRAIN[method])}}
        path = write_recipe(method, model={"path": str(start)}, trainer=trainer, **changes)
        lines = [json.loads(line) for line in (run(read_recipe(path, [])) / "log.jsonl").read_text().splitlines()]
        kept = ("loss", "grad_norm", "reward", "reward_std", "rewards/margins", "mean_token_accuracy")
        logs.append([{key: line[key] for key in kept if key in line} for line in lines])
    assert logs[0] == logs[1]
    assert any("grad_norm" in line for line in logs[0])


def test_both_formats_evaluate_to_the_same_numbers(today):
    rows = {folder: read_rows(folder / "prompt/test") for folder in (FORMAT_1, today)}
    assert {row["task"] for row in rows[today]} == {"presence", "box", "report"}
    for said in (lambda row: row["answer"], lambda row: "no opacity [[10,20,30,40]]"):
        found = [summarise(score_answers(of, [said(row) for row in of])) for of in rows.values()]
        assert found[0] == found[1]
    assert card_grid(FORMAT_1 / "prompt/test.parquet") == card_grid(today / "prompt/test.parquet") == 100


def test_a_loop_takes_a_set_of_format_1_for_built(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(FORMAT_1, "data/format_1")
    spec = BuildSpec.model_validate({**SPEC, "output": "data/format_1"})
    assert is_built(spec)
    assert not is_built(spec.model_copy(update={"seed": 4}))
    assert not is_built(spec.model_copy(update={"stratify": "nodule"}))
    assert not is_built(spec.model_copy(update={"output": "data/other"}))


@pytest.mark.parametrize(
    "command",
    ["check", "train", "audit RECIPE", "eval tiny SET/prompt/test", "inspect SET/prompt/test",
     "export SET/preference/align trl OUT", "audit-splits SET"],
)  # fmt: skip
def test_every_command_refuses_a_newer_format_by_the_same_sentence(command, write_recipe, tmp_path):
    newer = tmp_path / "newer"
    shutil.copytree(FORMAT_1, newer)
    card = read_card(newer) | {"format": FORMAT + 1}
    (newer / "card.json").write_text(json.dumps(card))
    recipe = str(write_recipe("grpo", data={"train": str(newer / "prompt/align")}))
    words = command if " " in command else f"{command} RECIPE"
    named = {"RECIPE": recipe, "OUT": str(tmp_path / "out")}
    arguments = [named.get(word, word.replace("SET", str(newer))) for word in words.split()]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2, done.output
    told = " ".join(done.stderr.split())
    assert f"{newer}/card.json: the set is of format 3, and this version reads up to 2. Update clinalign" in told
