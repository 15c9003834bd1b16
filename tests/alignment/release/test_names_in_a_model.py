"""A name in any file of a run or its model: it is left out of a release, or the release is refused in a sentence."""

import json
import shutil

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText, AutoProcessor

from alignment.models.loading import load_for_inference
from alignment.models.tiny import build_tiny
from alignment.provenance.weights_digest import model_sha256
from alignment.release.release import release, verify
from alignment.release.vocabulary import check_texts
from rewards.config.input_error import InputError

NAME, MRN = "Qvortrup", "19540312"
FIGURE = {"value": 0.875, "low": 0.8, "high": 0.95, "num_rows": 9, "num_patients": 3}
EVALUATION = {
    "metrics": {"clean": {"closed_accuracy": FIGURE}}, "num_rows": 9, "num_patients": 3, "data": NAME, "seed": 0,
    "data_sha256": "d" * 64, "data_card": None, "model": NAME, "max_new_tokens": {}, "versions": {"torch": "2.14.1"},
}  # fmt: skip
LEFT_OUT = {
    "config.json": [
        ("note",), ("_name_or_path",), ("id2label", "0"), ("task_specific_params", "by"), ("transformers_version",),
        ("text_config", "note"), ("text_config", "_name_or_path"), ("text_config", "rope_parameters", NAME),
        ("vision_config", "id2label", "0"), ("quantization", "note"), 
    ],
    "generation_config.json": [("note",), ("_from_model_config",), ("watermark",)],
    "processor_config.json": [
        ("note",), ("name_or_path",), ("image_processor", "note"), ("image_processor", "image_mean", 3),
        ("image_processor", "max_image_size", NAME), ("chat_template_by",),
    ],
    "tokenizer_config.json": [("note",), ("name_or_path",), ("backend",), ("errors",), ("tokenizer_file",)],
    "trainer_state.json": [("log_history",)],
    "adapter_config.json": [("auto_mapping", "by")],
    "special_tokens_map.json": [("note",)],
}  # fmt: skip
"""By file: where the name is put, as the keys (or the place in a list) that lead there."""
REFUSED = {
    "tokenizer_config.json": [("eos_token",), ("unk_token",), ("pad_token",), ("image_token",)],
    "tokenizer.json": [("added_tokens", 0, "content"), ("model", "unk_token"), ("model", "end_of_word_suffix")],
}


def put(content, at, value):
    """The JSON value with another at this place; a place that is not there is made."""
    if not at:
        return value
    if isinstance(content, list):
        kept = [*content, *[None] * (at[0] + 1 - len(content))]
        return [put(own, at[1:], value) if k == at[0] else own for k, own in enumerate(kept)]
    own = content if isinstance(content, dict) else {}
    return own | {at[0]: put(own.get(at[0]), at[1:], value)}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    texts = ["Is there a nodule?", "Yes", "No"]
    return build_tiny(texts, tmp_path_factory.mktemp("base"), image_size=32, hidden_size=32, vision_hidden_size=32)


@pytest.fixture(params=["full", "adapter"])
def run(base, tmp_path, request):
    """A run whose records name a person wherever a text may stand; its model is whole, or an adapter on a base."""
    folder = tmp_path / "run"
    own = shutil.copytree(base, tmp_path / "base" if request.param == "adapter" else folder / "model")
    if request.param == "adapter":
        torch.manual_seed(0)
        config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        get_peft_model(AutoModelForImageTextToText.from_pretrained(own), config).save_pretrained(folder / "model")
        AutoProcessor.from_pretrained(own).save_pretrained(folder / "model")
        (folder / "model" / "README.md").write_text(f"trained on {NAME}")
    recipe = {
        "method": "sft", "output": NAME, "model": {"path": str(own), "attention": NAME, "seed": NAME, "freeze": [NAME]},
        "data": {"train": f"data/{NAME}", "tasks": [NAME]}, "trainer": {"run_name": NAME, "optim": NAME, "seed": NAME},
        "rewards": [{"name": NAME, "weight": 1.0, "by": NAME}], NAME: 1,
    }  # fmt: skip
    (folder / "recipe.resolved.yaml").write_text(yaml.safe_dump(recipe))
    provenance = {
        "packages": {"torch": f"2.{NAME}", NAME: "1.0", "trl": MRN}, "git_commit": MRN, "seed": NAME, "host": NAME,
        "environment": {"USER": NAME}, "started_from": NAME, "data_sha256": {f"/home/{NAME}/x": "e" * 64},
    }  # fmt: skip
    (folder / "provenance.json").write_text(json.dumps(provenance))
    (folder / "log.jsonl").write_text(json.dumps({"note": NAME}))
    (folder / "evaluation").mkdir()
    return folder


def judged(run, **changes):
    content = EVALUATION | {"model_sha256": model_sha256(str(run))} | changes
    (run / "evaluation" / "evaluation.json").write_text(json.dumps(content))
    return run


def change(folder, name, at, value):
    file = folder / name
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    file.write_text(json.dumps(put(content, at, value)), encoding="utf-8")


def without(file, field):
    return {name: own for name, own in json.loads(file.read_text(encoding="utf-8")).items() if name != field}


def named(folder):
    """The files that hold the name or the number, in their names or in any byte."""
    found = {path.name: path.name.encode() + path.read_bytes().lower() for path in folder.rglob("*") if path.is_file()}
    return sorted(n for n, content in found.items() if NAME.lower().encode() in content or MRN.encode() in content)


pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing:FutureWarning"  # peft 0.21 reads a property that transformers 5 renamed
)


def test_names_in_every_field_that_is_no_part_of_a_model_are_left_out(run, base, tmp_path):
    before = judged(run)
    plain = release(before, tmp_path / "plain")
    assert named(plain) == []
    folders = [run / "model", *([tmp_path / "base"] if (tmp_path / "base").is_dir() else [])]
    for folder in folders:
        for name, places in LEFT_OUT.items():
            for at in places if (folder / name).is_file() or name == "trainer_state.json" else []:
                change(folder, name, at, NAME)
        (folder / f"{NAME}.txt").write_text(NAME)
        (folder / f"by {NAME}").mkdir()
        (folder / f"by {NAME}" / "notes.json").write_text(json.dumps(NAME))
        template = folder / "chat_template.jinja"
        template.write_text(f"{{#- by {NAME} #}}" + template.read_text())
    assert {name for name in LEFT_OUT if (run / "model" / name).is_file()} <= {*named(run / "model")}
    out = release(judged(run), tmp_path / "out")
    assert named(out) == []
    assert verify(out) == verify(plain)
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        assert without(out / name, "backend") == without(plain / name, "backend")  # what is the model did not go too
    load_for_inference(str(out))


@pytest.mark.parametrize("at", [(name, *at) for name, places in REFUSED.items() for at in places], ids=str)
def test_a_name_that_is_a_token_is_refused(run, tmp_path, at):
    change(run / "model", at[0], at[1:], NAME)
    judged(run)
    told = r"run: its (special tokens|tokenizer) holds words .*\(Qvortrup\).*--not-a-name Qvortrup.* anew"
    with pytest.raises(InputError, match=told):
        release(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("word", [NAME, "李小", MRN, "Jürgen"])
def test_a_name_in_what_a_chat_template_says_is_refused(run, tmp_path, word):
    template = run / "model" / "chat_template.jinja"
    template.write_text(f"{{{{ 'You are the assistant of {word}.' }}}}" + template.read_text())
    with pytest.raises(InputError, match=rf"run: its chat template holds words .*\({word}\)"):
        release(judged(run), tmp_path / "out")


def test_what_a_published_template_says_may_stay(base):
    own, published = AutoProcessor.from_pretrained(base), AutoProcessor.from_pretrained(base)
    own.chat_template = published.chat_template = "You are Qwortium, a helpful assistant. Today Date: 26 Jul 2024"
    check_texts(own, base, published=published)
    check_texts(own, base, not_names=["Qwortium"])
    with pytest.raises(InputError, match=r"\(Qwortium\)"):
        check_texts(own, base)


@pytest.mark.parametrize(
    "changes",
    [
        {"data_card": {"source": NAME, "kind": NAME, "licence": NAME, "rows": {NAME: 3}, "by": NAME, "sha256": MRN}},
        {
            "metrics": {
                "clean": {"closed_accuracy": FIGURE | {"note": NAME}, f"f1[{NAME}]": FIGURE},
                NAME: {"x": FIGURE},
            }
        },
        {"versions": {"torch": f"2.{NAME}", "numpy": MRN, NAME: "1.0"}, "notes": NAME, "unjudged": {NAME: 1}},
        {"rule_sets": [NAME, f"/home/{NAME}/rules.yaml"], "box_space": NAME, "max_new_tokens": {NAME: 3}},
    ],
    ids=" ".join,
)
def test_a_name_in_an_evaluation_is_left_out(run, tmp_path, changes):
    judged(run, **changes)
    assert named(run / "evaluation") == ["evaluation.json"]
    assert named(release(run, tmp_path / "out")) == []


def test_a_method_that_is_none_is_not_told(run, tmp_path):
    recipe = yaml.safe_load((run / "recipe.resolved.yaml").read_text())
    (run / "recipe.resolved.yaml").write_text(yaml.safe_dump(recipe | {"method": NAME}))
    assert named(release(judged(run), tmp_path / "out")) == []
