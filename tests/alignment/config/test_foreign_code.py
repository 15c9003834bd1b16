"""A model that brings code or pickles: one sentence, nothing asked, nothing run.

The planted folder is a real attack: with ``trust_remote_code`` unset, transformers asks on standard input, and the
``y`` that stands there runs ``modeling_evil.py``, which leaves a file.
"""

import ast
import json
import shutil
from pathlib import Path

import deepspeed
import pytest
from typer.testing import CliRunner

from alignment.checks.read_recipe import read_recipe
from alignment.cli.app import app
from alignment.config.foreign_code import pretrained, refuse_foreign_code
from rewards.config.input_error import InputError

ROOT = Path(__file__).parents[3]
SOURCES = [file for floor in ("alignment", "data_builders", "rewards") for file in sorted((ROOT / floor).rglob("*.py"))]
CONFIG = {"model_type": "evil", "architectures": ["Evil"], "auto_map": {"AutoConfig": "modeling_evil.Evil"}}


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "it_ran"


@pytest.fixture
def evil(tmp_path, marker):
    """A model's folder whose config names Python that leaves ``marker``."""
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "modeling_evil.py").write_text(
        f"from pathlib import Path\nPath({str(marker)!r}).touch()\n"
        "from transformers import PretrainedConfig\nclass Evil(PretrainedConfig):\n    model_type = 'evil'\n"
    )
    return folder


def finished_run(folder, model):
    (folder / "evaluation").mkdir(parents=True)
    shutil.copytree(model, folder / "model")
    (folder / "evaluation" / "evaluation.json").write_text(json.dumps({"metrics": {"clean": {"x": {"value": 1.0}}}}))
    (folder / "recipe.resolved.yaml").write_text("method: sft\n")
    (folder / "provenance.json").write_text("{}")
    return str(folder)


@pytest.mark.parametrize("command", ["check", "train", "eval", "release", "inspect", "counterparts", "adapter"])
def test_code_in_a_models_folder_is_never_run_and_never_asked_about(
    command, evil, marker, data, write_recipe, tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr("builtins.input", lambda *_: asked.append(1) or "y")
    prompts = str(data / "prompt/test")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(evil)})
    )
    words = {
        "check": ["check", str(write_recipe(model={"path": str(evil)}))],
        "train": ["train", str(write_recipe(model={"path": str(evil)}))],
        "eval": ["eval", str(evil), prompts, "--out", str(tmp_path / "out")],
        "release": ["release", finished_run(tmp_path / "run", evil), str(tmp_path / "released")],
        "inspect": ["inspect", prompts, "--model", str(evil), "--out", str(tmp_path / "x.png")],
        "counterparts": ["counterparts", prompts, str(tmp_path / "pool"), "--model", f"a={evil}"],
        "adapter": ["eval", str(adapter), prompts, "--out", str(tmp_path / "out")],
    }[command]
    result = CliRunner().invoke(app, words, input="y\n" * 9)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    (told,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "evil" in told or "run/model" in told
    assert "custom code" in told
    assert not asked
    assert not marker.exists()


@pytest.mark.parametrize("name", ["config.json", "processor_config.json", "tokenizer_config.json"])
def test_an_auto_map_is_found_in_every_config_however_deep(name, tmp_path):
    (tmp_path / name).write_text(json.dumps({"image_processor": {"auto_map": {"AutoImageProcessor": "x.Y"}}}))
    with pytest.raises(InputError, match=f"{name} names custom code"):
        refuse_foreign_code(tmp_path)


@pytest.mark.parametrize("name", ["modeling.py", "custom_generate/generate.py"])
def test_python_in_a_models_folder_is_named(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=name):
        refuse_foreign_code(tmp_path)


def test_a_folder_of_data_a_vocabulary_that_has_the_word_and_a_hub_name_pass(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "auto_map": {}}))
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"auto_map": 1}}}))
    (tmp_path / "training_args.bin").touch()
    refuse_foreign_code(tmp_path)
    refuse_foreign_code("some/hub-name")


def test_the_scripts_that_deepspeed_puts_beside_a_checkpoint_are_no_code_of_the_models(tmp_path):
    scripts = list((Path(deepspeed.__file__).parent / "utils").glob("zero_to_*.py"))
    for script in scripts:
        shutil.copy(script, tmp_path)
    refuse_foreign_code(tmp_path)
    assert len(scripts) > 1


def test_a_hub_model_of_custom_code_is_one_sentence():
    class Hub:
        @staticmethod
        def from_pretrained(path, **options):
            assert options == {"trust_remote_code": False}
            raise ValueError("contains custom code ... Please pass the argument `trust_remote_code=True`.")

    with pytest.raises(InputError, match="hub/name: it is made of custom code"):
        pretrained(Hub, "hub/name")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "adapter_model.bin"])
def test_pickled_weights_are_refused_where_nothing_else_holds_them(name, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=f"{name}: weights as a Python pickle"):
        refuse_foreign_code(tmp_path)
    (tmp_path / "model.safetensors").touch()
    refuse_foreign_code(tmp_path)


@pytest.mark.parametrize(
    "given", [{"trust_remote_code": True}, {"model_init_kwargs": {"trust_remote_code": True}},
              {"model_init_kwargs": {"use_safetensors": False}}],
)  # fmt: skip
def test_a_recipe_cannot_ask_for_it(given, write_recipe):
    with pytest.raises(InputError, match="runs no code that comes with a model"):
        read_recipe(write_recipe(trainer=given))


def test_trl_is_told_so_too(write_recipe):
    from alignment.models.loading import model_options

    options = model_options(read_recipe(write_recipe()).model)
    assert (options["trust_remote_code"], options["use_safetensors"]) == (False, True)


def calls(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]


def refuses_code(call):
    by_name = {keyword.arg: keyword.value for keyword in call.keywords}
    told = by_name.get("trust_remote_code")
    return isinstance(told, ast.Constant) and told.value is False


def test_no_call_in_the_source_can_run_what_it_reads():
    """A new path cannot forget: models come by ``pretrained`` alone (PEFT's adapters hold no code)."""
    for file, call in [(place, call) for place in SOURCES for call in calls(place)]:
        owner, name = ast.unparse(call.func).rpartition(".")[::2]
        place = f"{file.name}:{call.lineno}: {ast.unparse(call)}"
        if name in ("from_pretrained", "from_config") and owner not in ("PeftModel", "PeftConfig"):
            assert refuses_code(call), place
        if owner in ("torch", "np", "numpy") and name == "load":
            assert "weights_only=True" in place or "allow_pickle=False" in place, place
        if owner == "yaml":
            safe = name == "load" and "Loader=BoundedLoader" in place  # a SafeLoader that counts
            assert safe or name not in ("load", "load_all", "unsafe_load", "full_load"), place
        if owner == "pickle":
            assert name == "UnpicklingError", place


def test_only_one_reader_imports_pickle_and_it_refuses_every_name():
    imports = {
        (file.name, alias.name)
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    found = {(file, name) for file, name in imports if name in ("pickle", "dill", "cloudpickle", "joblib", "shelve")}
    assert found == {("path_vqa.py", "pickle")}
