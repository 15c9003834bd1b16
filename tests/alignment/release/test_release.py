import json
import os
import shutil
import stat
import subprocess
import sys

import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from alignment.models.tiny import build_tiny
from alignment.provenance.weights_digest import model_sha256
from alignment.release.release import release, verify
from data_builders.schema import user_turn
from rewards.config.input_error import InputError

FIGURE = {"value": 0.875, "low": 0.8, "high": 0.95, "num_rows": 9, "num_patients": 3}
EVALUATION = {
    "metrics": {"clean": {"closed_accuracy": FIGURE}, "noise": {"closed_accuracy": FIGURE | {"value": 0.5}}},
    "num_rows": 9, "num_patients": 3, "data": "data/x/prompt/test", "data_sha256": "d" * 64, "seed": 0,
    "data_card": None, "model": "runs/x", "max_new_tokens": {}, "versions": {"torch": "2.14.1"},
}  # fmt: skip
DATA_CARD = {
    "source": "phantom_chest", "kind": "prompt", "split": "test", "rows": {"presence": 9}, "patients": 3,
    "licence": "drawn by clinalign; no restriction", "quarantined": 0, "sha256": "d" * 64,
}  # fmt: skip
RECIPE = {"method": "dpo", "model": {"path": "runs/sft"}, "data": {"train": "data/x/preference/train"}}
PROVENANCE = {
    "packages": {"torch": "2.14.1"},
    "git_commit": "abc123" + "0" * 34,
    "seed": 7,
    "data_sha256": {"x": "e" * 64},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    texts = ["Is there a nodule?", "Yes", "No"]
    return build_tiny(texts, tmp_path_factory.mktemp("base"), image_size=32, hidden_size=32, vision_hidden_size=32)


def records(run):
    run.mkdir(exist_ok=True)
    (run / "recipe.resolved.yaml").write_text(yaml.safe_dump(RECIPE))
    (run / "provenance.json").write_text(json.dumps(PROVENANCE))
    return run


def judged(run, **changes):
    """The run with an evaluation of its weights, so changed."""
    (run / "evaluation").mkdir(exist_ok=True)
    content = {**EVALUATION, "data_card": DATA_CARD, "model_sha256": model_sha256(str(run)), **changes}
    (run / "evaluation" / "evaluation.json").write_text(json.dumps(content))
    return run


@pytest.fixture
def full_run(base, tmp_path):
    run = records(tmp_path / "run")
    (run / "model").symlink_to(base)
    return judged(run)


@pytest.fixture
def adapter_run(base, tmp_path):
    run = records(tmp_path / "run")
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = get_peft_model(AutoModelForImageTextToText.from_pretrained(base), config)
    adapted.save_pretrained(run / "model")
    AutoProcessor.from_pretrained(base).save_pretrained(run / "model")
    return judged(run)


def question(processor):
    prompt = processor.apply_chat_template(user_turn("Is there a nodule?"), add_generation_prompt=True, tokenize=False)
    return processor(text=[prompt], images=[[Image.new("RGB", (32, 32), "gray")]], return_tensors="pt")


def test_a_release_answers_a_question_about_an_image_with_plain_transformers(full_run, tmp_path):
    out = release(full_run, tmp_path / "out")
    processor = AutoProcessor.from_pretrained(out)
    model = AutoModelForImageTextToText.from_pretrained(out)
    asked = question(processor)
    answer = model.generate(**asked, do_sample=False, max_new_tokens=4)[:, asked["input_ids"].shape[1] :]
    assert answer.shape[1] >= 1
    assert isinstance(processor.batch_decode(answer)[0], str)


# peft 0.21 reads a property that transformers 5 renamed: https://github.com/huggingface/peft
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_a_released_adapter_is_merged_and_answers_as_before(base, adapter_run, tmp_path):
    out = release(adapter_run, tmp_path / "out")
    adapted = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), adapter_run / "model")
    released = AutoModelForImageTextToText.from_pretrained(out)
    asked = question(AutoProcessor.from_pretrained(out))
    with torch.inference_mode():
        torch.testing.assert_close(released(**asked).logits, adapted(**asked).logits, atol=1e-5, rtol=1e-4)
        untouched = AutoModelForImageTextToText.from_pretrained(base)(**asked).logits
    assert not torch.allclose(released(**asked).logits, untouched, atol=1e-3)
    assert not (out / "adapter_config.json").exists()


def test_the_card_shows_figures_beside_their_controls_and_the_limits(full_run, tmp_path):
    card = (release(full_run, tmp_path / "out") / "README.md").read_text()
    assert "| metric | the image itself | noise instead of the image |\n| --- | --- | --- |" in card
    assert "| closed_accuracy | 0.875 [0.800, 0.950] | 0.500 [0.800, 0.950] |" in card
    assert "Not a medical device" in card
    assert "drawn by clinalign" in card
    assert "runs/sft" not in card
    assert "method: dpo" in card
    assert "abc123" in card


def test_weights_are_safetensors_and_every_file_is_in_the_manifest(full_run, tmp_path):
    out = release(full_run, tmp_path / "out")
    listed = json.loads((out / "manifest.json").read_text())["files"]
    assert set(listed) == {p.name for p in out.iterdir()} - {"manifest.json"}
    assert "model.safetensors" in listed
    assert listed["evaluation.json"]["bytes"] == (out / "evaluation.json").stat().st_size
    assert verify(out) == len(listed)


def test_verification_names_every_file_that_changed(full_run, tmp_path):
    out = release(full_run, tmp_path / "out")
    (out / "config.json").write_text("{}")
    (out / "README.md").unlink()
    (out / "extra.txt").write_text("x")
    told = "README.md is missing; config.json has changed; extra.txt is not in the manifest"
    with pytest.raises(InputError, match=told):
        verify(out)


def test_a_run_without_evaluation_is_not_released(base, tmp_path):
    run = records(tmp_path / "run")
    (run / "model").symlink_to(base)
    with pytest.raises(InputError, match=r"not released without its evaluation.*clinalign eval"):
        release(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("facts", [PROVENANCE | {"git_commit": None}, {"packages": {"torch": "2.14.1"}}])
def test_a_run_of_no_checkout_is_released_from_a_folder_of_none(full_run, tmp_path, monkeypatch, facts):
    monkeypatch.chdir(tmp_path)
    (full_run / "provenance.json").write_text(json.dumps(facts))
    card = (release(full_run, tmp_path / "out") / "README.md").read_text()
    assert "commit" not in card.casefold()


REFUSED_EARLY = """
import sys
from typer.testing import CliRunner
from alignment.cli.app import app
result = CliRunner().invoke(app, ["release", *sys.argv[1:]])
print(result.output)
print(result.exit_code, sorted({"torch", "transformers", "trl"} & {*sys.modules}))
"""


@pytest.mark.parametrize(("out", "told"), [("full", "is there already"), ("new", "without its evaluation")])
def test_what_files_can_tell_is_told_before_a_library_of_models_is_loaded(out, told, tmp_path):
    records(tmp_path / "run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    words = [sys.executable, "-c", REFUSED_EARLY, str(tmp_path / "run"), str(tmp_path / out)]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "2 []"
    assert told in ended.stdout


def test_an_evaluation_without_a_figure_is_no_evidence(full_run, tmp_path):
    judged(full_run, metrics={"clean": {}})
    with pytest.raises(InputError, match=r"evaluation.json: holds no figure. Evaluate on rows that can be judged"):
        release(full_run, tmp_path / "out")


def test_the_card_says_what_no_metric_judges(full_run, tmp_path):
    judged(full_run, unjudged={"box without true boxes": 2, "report without facts": 3})
    card = (release(full_run, tmp_path / "out") / "README.md").read_text()
    assert "Not judged by any metric: 3 x report without facts; 2 x box without true boxes.\n" in card


def test_an_evaluation_elsewhere_can_be_named(full_run, tmp_path):
    (full_run / "evaluation").rename(tmp_path / "judged")
    assert verify(release(full_run, tmp_path / "out", evaluation=tmp_path / "judged")) > 3


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "evaluation.json").write_text(json.dumps(EVALUATION))
    with pytest.raises(InputError, match=r"not a finished run: no recipe.resolved.yaml, provenance.json, model/config"):
        release(tmp_path, tmp_path / "out")


def test_a_folder_with_files_is_never_overwritten(full_run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="not empty"):
        release(full_run, tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"


def test_nothing_is_left_behind_by_a_release(full_run, tmp_path):
    (tmp_path / "out").mkdir()
    release(full_run, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "run"]


def test_an_unharmed_folder_without_manifest_is_no_release(tmp_path):
    with pytest.raises(InputError, match="no release"):
        verify(tmp_path)


def retrained(run):
    """The run with one weight of its model changed."""
    file = next((run / "model").resolve().glob("*model.safetensors"))
    weights = load_file(file)
    name = sorted(weights)[0]
    weights[name] = weights[name] + 1
    copy = run / "model2"
    shutil.copytree((run / "model").resolve(), copy)
    save_file(weights, copy / file.name, metadata={"format": "pt"})
    (run / "model").unlink() if (run / "model").is_symlink() else shutil.rmtree(run / "model")
    copy.rename(run / "model")
    return run


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("kind", ["full_run", "adapter_run"])
def test_an_evaluation_of_weights_that_were_trained_anew_since_is_refused(kind, request, tmp_path):
    run = retrained(request.getfixturevalue(kind))
    with pytest.raises(InputError, match=r"evaluation.json: is of other weights than the run holds. Evaluate these"):
        release(run, tmp_path / "out")
    assert verify(release(judged(run), tmp_path / "out")) > 3


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_an_adapter_on_another_base_is_another_model(adapter_run, base, tmp_path):
    own = model_sha256(str(adapter_run))
    other = build_tiny(["a"], tmp_path / "base", image_size=32, hidden_size=32, vision_hidden_size=32, seed=1)
    file = adapter_run / "model" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(other)}))
    assert len({own, model_sha256(str(adapter_run)), model_sha256(str(base)), model_sha256(str(other))}) == 4


@pytest.mark.parametrize("content", [{"model_sha256": None}, {"model_sha256": "a" * 64}])
def test_an_evaluation_of_another_model_or_of_none_is_refused(full_run, tmp_path, content):
    judged(full_run, **content)
    with pytest.raises(InputError, match=r"(says not which weights it judged|is of other weights).*clinalign eval"):
        release(full_run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"metrics": [1]}', "[" * 100_000])
def test_a_file_that_is_no_evaluation_is_refused(full_run, tmp_path, content):
    (full_run / "evaluation" / "evaluation.json").write_text(content)
    with pytest.raises(InputError, match=r"not an evaluation. Make it again"):
        release(full_run, tmp_path / "out")


def test_a_release_is_readable_by_whom_the_umask_lets(full_run, tmp_path):
    out = release(full_run, tmp_path / "out")
    umask = os.umask(0)
    os.umask(umask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()}
    assert set(modes.values()) == {0o666 & ~umask}
    assert stat.S_IMODE(out.stat().st_mode) == 0o777 & ~umask


def test_the_card_tells_training_data_and_test_data_apart(full_run, tmp_path):
    card = (release(full_run, tmp_path / "out") / "README.md").read_text()
    trained_on, tested_on = card.split("## Trained on")[1].split("## Recipe")[0].split("## Tested on")
    assert f"- `dpo`: rows without a card of clinalign. Licence: not stated. SHA-256 `{'e' * 64}`." in trained_on
    assert "phantom_chest, prompt rows, split test: 9 rows (9 presence), 3 patients." in tested_on
    assert "phantom_chest" not in trained_on
    assert card.startswith("---\nlibrary_name: transformers\n")


def test_a_vocabulary_made_of_what_people_wrote_is_not_released(base, tmp_path):
    texts = ["Is there a nodule?", "Yes", "No", *["Seen by Qvortrup."] * 9]
    run = records(tmp_path / "run")
    build_tiny(texts, run / "model", image_size=32, hidden_size=32, vision_hidden_size=32)
    release(judged(run), tmp_path / "of a published base")
    (run / "recipe.resolved.yaml").write_text(yaml.safe_dump(RECIPE | {"model": {"path": "tiny"}}))
    with pytest.raises(InputError, match=r"run: its vocabulary was made from the texts of its data, .*Qvortrup"):
        release(run, tmp_path / "out")
