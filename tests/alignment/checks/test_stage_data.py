"""Which rows a stage trains on: tasks of the recipe, and the pool of answers that earlier stages give."""

import json
import shutil

import pytest
import yaml

from alignment.checks.chains import read_chain, stage_recipe
from alignment.checks.read_recipe import read_recipe
from alignment.config.data_entries import train_rows
from alignment.training.chains import stage_to_train
from alignment.training.run import run
from rewards.config.input_error import InputError

pytestmark = pytest.mark.filterwarnings("default")  # third-party deprecations of trl and accelerate


def tasks_of(path):
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=["task"])["task"].to_pylist()


def test_a_recipe_may_train_on_some_tasks_only(write_recipe, data):
    recipe = read_recipe(write_recipe("grpo", rewards=[{"name": "box_overlap"}], data={"tasks": ["box"], "limit": 3}))
    tasks = tasks_of(data / "prompt/align.parquet")
    assert [tasks[index] for index in train_rows(recipe).indices] == ["box"] * 3


def test_a_task_that_no_row_has_is_refused_with_the_nearest(write_recipe):
    with pytest.raises(InputError, match=r"data.tasks: no row of .* is of task 'boxes'. Did you mean 'box'"):
        read_recipe(write_recipe("grpo", data={"tasks": ["boxes"]}))


@pytest.mark.slow
def test_named_stages_answer_the_training_prompts_first(write_recipe, data, tmp_path):
    write_recipe("sft")
    write_recipe("grpo", rewards=[{"name": "crpo"}])
    chain = {
        "output": str(tmp_path / "runs"),
        "data": str(data),
        "stages": [
            {"name": "weak", "recipe": "sft.yaml"},
            {"name": "crpo", "recipe": "grpo.yaml", "counterparts": ["weak"],
             "overrides": ["data.tasks=[report]", "data.limit=2"]},
        ],
    }  # fmt: skip
    path = tmp_path / "chain.yaml"
    path.write_text(yaml.safe_dump(chain))
    read = read_chain(path, [])
    run(stage_recipe(read, 0, path))
    recipe = stage_to_train(read, 1, path)
    assert recipe.data.train == f"{tmp_path}/runs/crpo_pool/align"
    assert tasks_of(f"{recipe.data.train}.parquet") == ["report"] * 2
    card = json.loads((tmp_path / "runs/crpo_pool/align.counterparts.json").read_text())
    assert card["models"]["weak"]["answers"] == 2
    assert stage_to_train(read, 1, path) == recipe


def test_a_pool_of_a_later_stage_is_refused(tmp_path):
    chain = {"output": "x", "stages": [{"name": "crpo", "recipe": "grpo.yaml", "counterparts": ["sft"]}]}
    path = tmp_path / "chain.yaml"
    path.write_text(yaml.safe_dump(chain))
    with pytest.raises(InputError, match="not an earlier stage"):
        read_chain(path, [])


@pytest.mark.parametrize("name", ["a #1", "b: c", "{d", "null", "1e3", "[e]", "'f", "=g", "ä ö", "*h", "1.0"])
def test_a_stage_finds_the_folders_that_odd_names_name(name, write_recipe, data, tmp_path):
    """Names of folders go from a chain to its stages as they are; no YAML is made of them and read again."""
    odd = tmp_path / name
    shutil.copytree(data, odd / "data")
    stages = [{"name": "sft", "recipe": "sft.yaml"}, {"name": "again", "recipe": "sft.yaml", "model": "sft"}]
    write_recipe("sft")
    path = tmp_path / "chain.yaml"
    path.write_text(yaml.safe_dump({"output": str(odd), "data": str(odd / "data"), "stages": stages}))
    chain = read_chain(path, [])
    recipe = stage_recipe(chain, 1, path, seed=7)
    assert (recipe.output, recipe.model.path) == (f"{odd}/again", f"{odd}/sft")
    assert recipe.data.train == f"{odd}/data/instruction/sft"
    assert (recipe.trainer["seed"], recipe.model.seed) == (7, 7)
    shorter = chain.model_copy(update={"output": name})  # relative, as people write it
    assert stage_recipe(shorter, 0, path).output == f"{name}/sft"
