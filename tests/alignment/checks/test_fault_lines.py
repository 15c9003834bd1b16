"""Where faults of recipes, chains and loops are said to stand, and what is loaded to find them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from alignment.checks.chains import read_chain, stage_recipe
from alignment.checks.read_recipe import TRAINER_IS_NEXT, read_recipe
from alignment.loop.loop_file import read_loop
from rewards.config.input_error import InputError

HEAVY = ("torch", "transformers", "trl", "datasets", "peft", "accelerate")
OF_ROWS = ("numpy", "pyarrow", "PIL", "filelock")
OF_A_NETWORK = ("huggingface_hub", "httpx2", "ssl", "asyncio", "tenacity")
LOADED = f"""
import json, sys
from alignment.cli.app import main
try:
    main()
except SystemExit as ended:
    print(json.dumps([ended.code, [name for name in {(*HEAVY, *OF_ROWS, *OF_A_NETWORK)} if name in sys.modules]]))
"""


def told(read, path, *overrides):
    """The faults of a file, without the path in front of them."""
    with pytest.raises(InputError) as caught:
        read(path, list(overrides)) if read is not read_loop else read(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(str(path)) for line in lines), lines
    return [line.removeprefix(str(path)) for line in lines]


def line(path, text):
    """The number of the line that begins with a text."""
    return 1 + [each.strip() for each in path.read_text().splitlines()].index(text)


def test_a_fault_names_the_line_of_its_key_and_a_missing_key_that_of_its_section(write_recipe):
    path = write_recipe("grpo", data={"tasks": ["boxes"]}, model={"freez": []}, rewards=[{"weight": 1.0}])
    first, second, next_look = told(read_recipe, path)
    assert {first, second} == {
        f", line {line(path, 'freez: []')}: model.freez: unknown key. Did you mean 'freeze'?",
        f", line {line(path, '- weight: 1.0')}: rewards.0.name: this key is required.",
    }
    assert next_look == f": {TRAINER_IS_NEXT}"
    path = write_recipe(data={"limit": 0})
    content = yaml.safe_load(path.read_text())
    del content["data"]["train"]
    path.write_text(yaml.safe_dump(content))
    assert f", line {line(path, 'data:')}: data.train: this key is required." in told(read_recipe, path)


def test_faults_of_rows_rewards_and_the_trainer_name_their_lines_too(write_recipe):
    path = write_recipe("grpo", data={"tasks": ["boxes"]}, rewards=[{"name": "box_overlap"}, {"name": "box_overlapp"}])
    kinds, reward, _ = told(read_recipe, path)
    assert kinds.startswith(f", line {line(path, 'tasks:')}: data.tasks: no row of ")
    assert reward.startswith(f", line {line(path, '- name: box_overlapp')}: rewards[1]: ")
    path = write_recipe(trainer={"max_stepps": 3, "seed": "x"})
    unknown, wrong = told(read_recipe, path)
    assert unknown.startswith(f", line {line(path, 'max_stepps: 3')}: trainer.max_stepps: unknown key.")
    assert wrong.startswith(f", line {line(path, 'seed: x')}: trainer.seed: got the string 'x'")


def test_an_override_is_named_in_place_of_a_line_and_the_last_of_a_key_holds(write_recipe):
    path = write_recipe()
    (fault,) = told(read_recipe, path, "trainer.seed=a", "trainer.seed=b")
    assert fault.startswith(", override 'trainer.seed=b': trainer.seed: got the string 'b'")
    first, _ = told(read_recipe, path, "data={limit: 1}")
    assert first == ", override 'data={limit: 1}': data.train: this key is required."
    first, _ = told(read_recipe, path, "model.a.b=1")  # the override makes model.a, which the file lacks
    assert first.startswith(", override 'model.a.b=1': model.a: unknown key.")
    first, _ = told(read_recipe, path, "data.train=gone", "data.limit=3")
    assert first.startswith(", override 'data.train=gone': data.train: no file gone.parquet.")
    (fault,) = told(read_recipe, write_recipe(trainer={"seed": "x"}), "data.limit=3")
    assert ", line " in fault


def test_a_chain_and_a_loop_name_the_lines_of_their_faults(write_recipe, tmp_path):
    write_recipe("sft")
    path = tmp_path / "chain.yaml"
    path.write_text("output: x\nstages:\n- {name: sft,\n   recipe: sft.yaml,\n   modle: x}\n")
    assert told(read_chain, path) == [", line 5: stages.0.modle: unknown key. Did you mean 'model'?"]
    path.write_text("output: x\nstages:\n- {name: sft, recipe: sft.yaml}\n")
    assert told(read_chain, path, "stages=[]")[0].startswith(", override 'stages=[]': stages: ")
    loop = tmp_path / "loop.yaml"
    chain = "chain:\n  output: x\n  stages:\n  - {name: sft, recipe: sft.yaml}\n"
    loop.write_text(
        "spec: s\ntest: t\nrelease: sftt\n" + chain + "compare:\n"
        "- {before: untrained, after: sft, metrics: [finding_f1]}\n- {before: sf, after: sft, metrics: [finding_f1]}\n"
    )
    assert told(read_loop, loop) == [
        ", line 10: compare.1: no stage 'sf' is evaluated. Did you mean 'sft'?",
        ", line 3: release: no stage 'sftt' is evaluated. Did you mean 'sft'?",
    ]


def test_what_a_chain_sets_is_named_as_such(write_recipe, tmp_path):
    file = write_recipe("sft", data={"train": "gone/instruction/sft"})
    path = tmp_path / "chain.yaml"
    path.write_text("output: x\ndata: moved\nstages:\n- {name: sft, recipe: sft.yaml}\n")
    with pytest.raises(InputError) as caught:
        stage_recipe(read_chain(path, []), 0, path)
    assert str(caught.value).startswith(f"{file}, 'data.train' as its chain sets it: data.train: no file moved/")


def test_the_trainer_is_looked_at_once_the_rest_is_mended(write_recipe):
    path = write_recipe(trainer={"seed": "x"}, modle={})
    assert told(read_recipe, path)[1:] == [f": {TRAINER_IS_NEXT}"]
    mended = Path(path.parent / "mended.yaml")
    mended.write_text(path.read_text().replace("modle: {}\n", ""))
    (fault,) = told(read_recipe, mended)
    assert "trainer.seed: " in fault


def test_a_recipe_without_a_trainer_section_is_not_promised_another_look(write_recipe):
    assert len(told(read_recipe, write_recipe(trainer=None), "trainer=null", "modle=3")) == 2
    path = write_recipe("pairs", modle=3)
    content = yaml.safe_load(path.read_text())
    content.pop("trainer", None)
    path.write_text(yaml.safe_dump(content))
    (fault,) = told(read_recipe, path)
    assert "modle" in fault


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check", "train"])
def test_faults_outside_of_the_trainer_are_listed_without_torch_and_trl(write_recipe, tmp_path, command):
    path = write_recipe(
        "grpo",
        rewards=[{"name": "box_overlap"}, {"name": "box_overlapp"}],
        data={"tasks": ["boxes"]},
        trainer={"learning_rate": "1e-6", "report_to": "none", "deepspeed": "recipes/deepspeed/zero2.json"},
    )
    run = [sys.executable, "-c", LOADED, command, str(path)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    code, loaded = json.loads(done.stdout)
    assert (code, [name for name in loaded if name in HEAVY]) == (2, []), done.stderr
    assert [line.removeprefix("error: ").partition(": ")[0] for line in done.stderr.splitlines()][-1] == str(path)
    assert "box_overlapp" in done.stderr
    assert done.stderr.splitlines()[-1].endswith(TRAINER_IS_NEXT)


@pytest.mark.slow
def test_a_fault_of_form_is_told_before_libraries_of_rows_models_or_a_network_are_loaded(write_recipe):
    path = write_recipe("grpo", model={"freez": []}, data={"train": "data/none"}, rewards=[{"name": "box_overlapp"}])
    done = subprocess.run(
        [sys.executable, "-c", LOADED, "check", str(path)], capture_output=True, text=True, check=False
    )
    assert json.loads(done.stdout) == [2, []], done.stderr
    assert "freez" in done.stderr
