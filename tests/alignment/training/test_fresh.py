"""``--fresh`` replaces a run's own folder and nothing else, and a folder that is no run is never trained into."""

import shutil

import pytest
import yaml
from typer.testing import CliRunner

from alignment.checks.read_recipe import read_recipe
from alignment.cli.app import app
from alignment.config.own_files import is_of_run, is_of_soak
from alignment.distributed.ranks import alone_at
from alignment.loop.run_loop import run_loop
from alignment.training.chains import run_chain
from alignment.training.run import run
from data_builders.locks import only_one
from rewards.config.input_error import InputError

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
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.setenv(name, "1")
    with only_one(tmp_path / "sft"), alone_at(tmp_path / "sft"):
        pass


def test_the_mark_of_a_launch_that_was_killed_while_its_nodes_looked_for_it_is_no_file_of_others(
    write_recipe, tmp_path
):
    mark = tmp_path / "sft" / f".shared-{'0a' * 16}"
    mark.parent.mkdir()
    mark.touch()
    assert is_of_run(mark.name)
    run(read_recipe(write_recipe()))
    assert not mark.exists()


def test_soak_keeps_what_is_no_soak(desk):
    a_run_at(desk / "run")
    for out in (".", "run", "data"):
        done = CliRunner().invoke(app, ["soak", "sft.yaml", "--out", out])
        assert done.exit_code == 2, (out, done.output)
    assert (desk / "thesis.tex").exists()
    assert (desk / "run/recipe.resolved.yaml").exists()


@pytest.mark.parametrize(
    "theirs",
    ["notes.txt", "mine/figure.png", "evaluation/edits.csv", "evaluation/pictures/annotated.png", "model/notes.md",
     "checkpoints/best/weights.tar", "preference/corrected.parquet", "ledger/paper.tex", "log.jsonl.bak"],
)  # fmt: skip
def test_a_file_that_was_added_to_a_run_is_named_and_the_run_stays(desk, theirs):
    a_run_at(desk / "run")
    (desk / "run" / theirs).parent.mkdir(parents=True, exist_ok=True)
    (desk / "run" / theirs).write_text("a day of work")
    before = everything(desk)
    recipe = read_recipe(desk / "sft.yaml", ["output=run", "data.train=data/instruction/sft"])
    with pytest.raises(InputError, match=f"run also holds {theirs}, which a run did not write"):
        run(recipe, fresh=True)
    assert everything(desk) == before


@pytest.mark.parametrize("path", [
    "recipe.resolved.yaml.17.tmp", "provenance.json", "launch.sbatch", "audit.html", "log.jsonl", "ledger/rank3.jsonl",
    "evaluation.sbatch",
    "ledger/epoch0.json", "preference/card.json", "preference/.pairs.parquet.unfinished", "relevance-pairs.jsonl",
    "checkpoints/README.md", "checkpoints/checkpoint-8/global_step8/zero.pt", "checkpoints/checkpoint-8/latest",
    "checkpoints/completions/completions_00001.parquet", "checkpoints/runs/x/events.out.tfevents.1.host.2.0",
    "model/merges.txt", "model.unfinished/model-00001-of-00002.safetensors", "init/tokenizer.json",
    "init_evaluation/evaluation.json", "evaluation/answers.unfinished.jsonl.lock", "evaluation/reward_model.html",
    "evaluation/pictures/0123456789abcdef.png", ".cache/row_lengths/x.safetensors", ".rows/parquet/x.arrow",
    ".evaluation.lock",
])  # fmt: skip
def test_what_commands_write_into_a_run_goes_with_it(path):
    assert is_of_run(path)
    assert is_of_soak(f"broken/{path}")
    assert not is_of_soak(f"mine/{path}")


def test_a_chain_refuses_before_its_first_stage_trains(write_recipe, tmp_path):
    recipe = write_recipe()
    stages = [{"name": name, "recipe": recipe.name} for name in ("one", "two")]
    (tmp_path / "chain.yaml").write_text(yaml.safe_dump({"output": str(tmp_path / "chain"), "stages": stages}))
    (tmp_path / "chain" / "two").mkdir(parents=True)
    (tmp_path / "chain" / "two" / "notes.txt").write_text("a day of work")
    with pytest.raises(InputError, match=r"two also holds notes\.txt"):
        run_chain(tmp_path / "chain.yaml", fresh=True)
    assert [p.name for p in (tmp_path / "chain").iterdir()] == ["two"]


def test_a_loop_refuses_before_anything_is_built(write_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = write_recipe()
    chain = {"output": "chain", "stages": [{"name": "one", "recipe": recipe.name}]}
    loop = {
        "spec": "x", "test": "prompt/test", "chain": chain, "release": "one",
        "compare": [{"before": "untrained", "after": "one", "metrics": ["finding_f1"]}],
    }  # fmt: skip
    (tmp_path / "loop.yaml").write_text(yaml.safe_dump(loop))
    seed = int(yaml.safe_load(recipe.read_text()).get("trainer", {}).get("seed", 42))
    for home in ("chain", f"chain/seed{seed + 1}"):
        (tmp_path / home / "one").mkdir(parents=True)
        (tmp_path / home / "one" / "notes.txt").write_text("a day of work")
    for seeds, home in ((1, "chain"), (2, f"chain/seed{seed + 1}")):
        with pytest.raises(InputError, match=rf"{home}/one also holds notes\.txt"):
            run_loop(tmp_path / "loop.yaml", fresh=True, seeds=seeds)


def test_soak_keeps_what_was_added_to_a_soak(desk):
    (desk / "soak" / "mine").mkdir(parents=True)
    for name in ("whole.log", "notes.txt", "mine/x.csv"):
        (desk / "soak" / name).write_text("a day of work")
    before = everything(desk)
    done = CliRunner().invoke(app, ["soak", "sft.yaml", "data.train=data/instruction/sft", "--out", "soak"])
    assert done.exit_code == 2
    assert "soak also holds mine/x.csv, notes.txt, which a soak did not write" in done.stderr
    assert everything(desk) == before
