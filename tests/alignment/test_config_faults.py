"""What a machine or TRL's config refuses is told by `check` and `train` before the first step."""

from importlib.util import find_spec

import pytest

from alignment.check import check_recipe
from alignment.config_faults import check_model_name
from alignment.recipe import read_recipe
from alignment.train import run
from rewards.strict_yaml import InputError

without_vllm = pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")


def fault_of(call, *arguments):
    with pytest.raises(InputError) as fault:
        call(*arguments)
    return str(fault.value)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("trainer.report_to=wandbb", "trainer.report_to: no tracker 'wandbb'. Did you mean 'wandb'?"),
        ("trainer.report_to=[none, wandb]", "trainer.report_to: 'wandb' is not installed here."),
        ("trainer.report_to=3", "trainer.report_to: no tracker '3'."),
        pytest.param("trainer.use_vllm=true", "trainer.use_vllm: needs the package 'vllm'", marks=without_vllm),
        ("trainer.deepspeed=gone.json", "trainer.deepspeed: gone.json: no such file."),
        ("trainer.{1: 2}=3", "unknown key"),
        ("trainer.optim=adamm", "trainer: adamm is not a valid OptimizerNames"),
        ("trainer.eval_strategy=stps", "trainer: stps is not a valid IntervalStrategy"),
        ("trainer.load_best_model_at_end=true", "trainer: --load_best_model_at_end requires"),
        ("trainer.max_steps=[1]", "trainer"),
    ],
)
def test_check_tells_what_no_run_would_take(write_recipe, override, told):
    path = write_recipe(trainer={"save_strategy": "steps", "eval_strategy": "no"})
    assert told in fault_of(check_recipe, path, [override])


@pytest.mark.parametrize("text", ["{", "[1]", '{"zero_optimization": 2}'])
def test_a_damaged_deepspeed_file_is_told(write_recipe, tmp_path, text):
    file = tmp_path / "zero.json"
    file.write_text(text)
    assert f"trainer.deepspeed: {file}" in fault_of(read_recipe, write_recipe(trainer={"deepspeed": str(file)}))


def test_train_tells_what_this_machine_lacks_and_writes_nothing(write_recipe, tmp_path, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    file = tmp_path / "zero.json"
    file.write_text('{"zero_optimization": {"stage": 2}}')
    recipe = read_recipe(write_recipe(trainer={"deepspeed": str(file)}))
    assert "DeepSpeed needs a launcher" in fault_of(run, recipe)
    assert not (tmp_path / "sft").exists()


def test_a_name_that_is_not_in_the_cache_is_told(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "hf download nobody/nothing; or name a folder" in fault_of(check_model_name, "nobody/nothing")
    assert "neither a folder nor a name on the Hugging Face hub" in fault_of(check_model_name, "a//b c")


def test_names_that_are_here_pass(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("tiny", "smollm2", str(tmp_path)):
        check_model_name(name)
