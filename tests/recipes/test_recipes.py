"""Every shipped recipe reads strictly, names what exists, and says how to run it. Nothing is built or trained here."""

import json
from pathlib import Path

import pytest
import yaml

from alignment.checks.chains import read_chain
from alignment.checks.faults import trainer_faults
from alignment.config.library_names import installed_keys
from alignment.config.methods import config_class
from alignment.config.recipe import Recipe
from alignment.loop.loop_file import read_loop
from data_builders.build.build_spec import read_spec
from rewards.config.strict_yaml import read_yaml, validated
from rewards.loading import load_reward

RECIPES = Path(__file__).parents[2] / "recipes"
FILES = sorted(RECIPES.glob("*/*.yaml"))
RUNS = [file for file in FILES if "method" in yaml.safe_load(file.read_text())]
LOOPS = sorted(RECIPES.glob("loops/*.yaml"))


def name(file):
    return str(file.relative_to(RECIPES))


@pytest.mark.parametrize("file", FILES, ids=name)
def test_the_header_says_how_to_run_it_and_what_it_needs(file):
    comments = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert any(line.startswith("# Run: ") for line in comments)
    assert any(line.startswith("# Needs: ") for line in comments)


@pytest.mark.parametrize("file", RUNS, ids=name)
def test_a_run_reads_strictly_and_its_trainer_section_builds(file, tmp_path):
    recipe = validated(Recipe, read_yaml(file), where=str(file))
    assert trainer_faults(read_yaml(file)) == []
    assert file.parent.name == recipe.method
    for entry in recipe.rewards:
        load_reward(entry.name, **entry.knobs)
    if recipe.method != "pairs":
        settings = {**recipe.trainer}
        if deepspeed := settings.pop("deepspeed", None):  # TRL's config would switch it on for all later tests
            assert (RECIPES.parent / deepspeed).is_file()
        config_class(recipe.method)(output_dir=str(tmp_path), report_to="none", bf16=False, **installed_keys(settings))


@pytest.mark.parametrize("file", sorted(RECIPES.glob("data/*.yaml")), ids=name)
def test_a_data_spec_reads_strictly(file):
    assert Path(read_spec(file, []).output).name == file.stem


@pytest.mark.parametrize("file", LOOPS, ids=name)
def test_a_loop_reads_strictly_and_its_stages_exist(file):
    loop = read_loop(file)
    assert all((file.parent / stage.recipe).is_file() for stage in loop.chain.stages)
    assert Path(loop.spec).name in {spec.name for spec in RECIPES.glob("data/*.yaml")}


@pytest.mark.parametrize("file", sorted(RECIPES.glob("chains/*.yaml")), ids=name)
def test_a_chain_reads_strictly_with_every_stage(file):
    assert read_chain(file, []).stages


@pytest.mark.parametrize("file", sorted(RECIPES.glob("deepspeed/*.json")), ids=name)
def test_a_deepspeed_file_loads_and_names_its_stage(file):
    assert str(json.loads(file.read_text())["zero_optimization"]["stage"]) in file.stem
