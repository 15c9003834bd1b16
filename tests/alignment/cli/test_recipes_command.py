"""``clinalign recipes`` lists what comes along and copies a file that reads what the shipped one read."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from alignment.checks.chains import read_chain
from alignment.cli.app import app
from alignment.cli.recipes import KINDS
from alignment.loop.loop_file import read_loop
from rewards.config.shipped import shipped_recipes

LOOP = "recipes/loops/mmedpo.yaml"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(*words):
    done = CliRunner().invoke(app, ["recipes", *words])
    assert done.exit_code == 0, done.output
    return dict(line.split(": ", 1) for line in done.output.splitlines())


def test_every_folder_of_recipes_is_a_kind_and_every_file_is_listed_with_a_sentence():
    kinds = {path.name for path in shipped_recipes().iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert kinds == set(KINDS)
    files = [path for path in shipped_recipes().glob("*/**/*") if path.is_file()]
    found = listed()
    assert len(found) == len(files)
    assert found["recipes/deepspeed/zero3_offload.json"] == "ZeRO-3, optimizer and param on the CPU"
    assert found["recipes/dpo/phantom_chest.yaml"] == "Weighted DPO (MMedPO eq. 3) on the model's own errors."
    assert found["recipes/data/phantom_chest.yaml"].endswith("boxes are 1.35 times too wide and too high.")
    assert found["recipes/loops/rewards.yaml"].startswith("Which reward? From one SFT model, seven arms of GRPO")
    assert set(listed("loops")) == {path for path in found if path.startswith("recipes/loops/")}


@pytest.mark.parametrize("name", ["loops/mmedpo", LOOP, "mmedpo", "loops/mmedpo.yaml"])
def test_a_loop_is_copied_by_each_of_its_names_and_says_what_it_reads(name):
    found = listed(name)
    assert found["copied"] == LOOP
    assert "'recipes/data/mmedpo_phantom.yaml', 'recipes/sft/phantom_chest.yaml'" in found["reads"]


@pytest.mark.parametrize(("to", "file"), [("mine.yaml", "mine.yaml"), ("a/b", "a/b/mmedpo.yaml"), (None, LOOP)])
def test_a_copy_reads_the_same_stages_wherever_it_lies(to, file):
    assert listed("loops/mmedpo", *(["--to", to] if to else []))["copied"] == file
    shipped, copied = shipped_recipes() / "loops" / "mmedpo.yaml", Path(file)
    loop = read_loop(copied)
    assert loop.spec == read_loop(shipped).spec
    for stage, other in zip(loop.chain.stages, read_loop(shipped).chain.stages, strict=True):
        assert (shipped_recipes().parent / stage.file(copied)).resolve() == other.file(shipped).resolve()


def test_a_chain_copied_elsewhere_reads_whole_with_its_deepspeed_file():
    listed("chains/phantom_chest", "--to", "chain.yaml")
    assert [stage.name for stage in read_chain(Path("chain.yaml"), []).stages] == ["sft", "pairs", "dpo", "grpo"]


def test_a_recipe_of_ones_own_is_read_by_a_shipped_loop():
    listed("sft/phantom_chest")
    own = Path("recipes/sft/phantom_chest.yaml")
    own.write_text(own.read_text().replace("method: sft", "method: stf"))
    assert "'stf'" in told("run", LOOP, "--step", "build")


def told(*words):
    done = CliRunner().invoke(app, [*words])
    assert done.exit_code == 2, done.output
    return " ".join(done.output.split())


def test_what_is_there_is_not_written_over():
    Path("mine.yaml").write_text("mine")
    assert "mine.yaml: is there already" in told("recipes", "sft/phantom_chest", "--to", "mine.yaml")
    assert Path("mine.yaml").read_text() == "mine"


def test_a_name_that_is_none_or_several_is_told():
    assert "Did you mean 'sft/phantom_chest'?" in told("recipes", "sft/phantom_chst")
    assert "may be recipes/data/phantom_oct.yaml, recipes/sft/phantom_oct.yaml" in told("recipes", "phantom_oct")
    assert "name the recipe to be copied too" in told("recipes", "--to", "x")


def test_an_architecture_is_named_by_its_folder_as_a_model_is():
    assert listed("Qwen2.5-VL-7B-Instruct", "--to", "sizes")["copied"] == "sizes/config.json"
    assert "recipes/architectures/Qwen2.5-VL-7B-Instruct" in listed("architectures")
