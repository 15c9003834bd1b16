"""``--fresh`` replaces a run's own folder and nothing else, and a folder that is no run is never trained into."""

import shutil

import pytest
import yaml
from typer.testing import CliRunner

from alignment.cli import app
from alignment.loop import run_loop
from alignment.recipe import read_recipe
from alignment.train import run, run_chain
from data_builders.locks import only_one
from rewards.strict_yaml import InputError

pytestmark = pytest.mark.filterwarnings("default")


def everything(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def desk(write_recipe, data, tmp_path, monkeypatch):
    """A working directory with a recipe, data, and years of work; everything in it must stay."""
    desk = tmp_path / "desk"
    desk.mkdir()
    shutil.copytree(data, desk / "data")
    shutil.copy(write_recipe(), desk / "sft.yaml")
    (desk / "thesis.tex").write_text("years of work")
    monkeypatch.chdir(desk)
    return desk


def a_run_at(folder):
    folder.mkdir(exist_ok=True)
    (folder / "recipe.resolved.yaml").write_text("{}")


@pytest.mark.parametrize("is_a_run", [False, True])
@pytest.mark.parametrize("output", [".", "..", "data", "data/instruction", "../desk"])
def test_nothing_but_a_run_is_replaced_and_no_run_that_holds_what_is_needed(desk, output, is_a_run):
    if is_a_run:
        a_run_at(desk / output)
    before = everything(desk.parent)
    recipe = read_recipe(desk / "sft.yaml", [f"output={output}", "data.train=data/instruction/sft"])
    with pytest.raises(InputError, match=r"^output: .*(not replaced|of its own)"):
        run(recipe, fresh=True)
    assert everything(desk.parent) == before


@pytest.mark.parametrize("needed", ["sft.yaml", "model/config.json", "rewards/mine.py", "zero2.json"])
def test_no_run_is_replaced_that_holds_a_file_of_its_own_recipe(desk, needed):
    a_run_at(desk / "run")
    (desk / "run" / needed).parent.mkdir(exist_ok=True)
    (desk / "run" / needed).write_text("{}")
    overrides = ["output=run", "data.train=data/instruction/sft"]
    if needed.startswith("model"):
        overrides.append("model.path=run")
    if needed.startswith("rewards"):
        overrides.append("trainer.chat_template_path=run/rewards/mine.py:margin")
    if needed.startswith("zero2"):
        overrides.append("trainer.deepspeed=run/zero2.json")
    before = everything(desk)
    with pytest.raises(InputError, match="which is read; it is not replaced"):
        run(read_recipe(desk / "sft.yaml", overrides), fresh=True, inputs=[desk / "run" / "sft.yaml"])
    assert everything(desk) == before


def test_a_folder_that_is_no_run_is_not_trained_into(desk):
    before = everything(desk)
    with pytest.raises(InputError, match=r"no recipe\.resolved\.yaml, so it is not a run"):
        run(read_recipe(desk / "sft.yaml", [f"output={desk}"]))
    assert everything(desk) == before


def test_the_command_protects_its_recipe(desk):
    a_run_at(desk / "run")
    shutil.move("sft.yaml", "run/sft.yaml")
    done = CliRunner().invoke(app, ["train", "run/sft.yaml", "output=run", "--fresh"])
    assert done.exit_code == 2
    assert "run/sft.yaml, which is read" in done.stderr


def test_fresh_replaces_a_run_and_leaves_nothing_behind(write_recipe, tmp_path):
    recipe = read_recipe(write_recipe())
    folder = run(recipe)
    (folder / "evaluation").mkdir()
    changed = recipe.model_copy(update={"trainer": {**recipe.trainer, "seed": 7}})
    with pytest.raises(InputError, match="another recipe"):
        run(changed)
    run(changed, fresh=True)
    assert yaml.safe_load((folder / "recipe.resolved.yaml").read_text())["trainer"]["seed"] == 7
    assert not (folder / "evaluation").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sft", "sft.yaml"]


def test_two_runs_chains_or_loops_at_one_output_are_told_at_once(write_recipe, tmp_path):
    recipe = write_recipe()
    chain = {"output": str(tmp_path / "chain"), "stages": [{"name": "one", "recipe": recipe.name}]}
    (tmp_path / "chain.yaml").write_text(yaml.safe_dump(chain))
    loop = {
        "spec": "x", "test": "prompt/test", "chain": chain, "release": "one",
        "compare": [{"before": "untrained", "after": "one", "metrics": ["finding_f1"]}],
    }  # fmt: skip
    (tmp_path / "loop.yaml").write_text(yaml.safe_dump(loop))
    with only_one(tmp_path / "sft"), pytest.raises(InputError, match="is writing there now"):
        run(read_recipe(recipe))
    with only_one(tmp_path / "chain"):
        with pytest.raises(InputError, match="is writing there now"):
            run_chain(tmp_path / "chain.yaml")
        with pytest.raises(InputError, match="is writing there now"):
            run_loop(tmp_path / "loop.yaml")
    assert not (tmp_path / "sft").exists()


def test_only_the_first_rank_asks_for_the_lock(write_recipe, tmp_path, monkeypatch):
    run(read_recipe(write_recipe()))
    monkeypatch.setenv("RANK", "1")
    with only_one(tmp_path / "sft"):
        from alignment.train import _alone_at

        with _alone_at(tmp_path / "sft"):
            pass


def test_soak_keeps_what_is_no_soak(desk):
    a_run_at(desk / "run")
    for out in (".", "run", "data"):
        done = CliRunner().invoke(app, ["soak", "sft.yaml", "--out", out])
        assert done.exit_code == 2, (out, done.output)
    assert (desk / "thesis.tex").exists()
    assert (desk / "run/recipe.resolved.yaml").exists()
