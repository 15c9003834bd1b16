"""From a LLaVA file of one's own to a release: built, trained, evaluated, with a card that claims no more."""

import json

import pytest
import yaml
from PIL import Image

import alignment
from alignment.config.generation_section import GenerationSection
from alignment.evaluation.evaluate import evaluate
from alignment.models.loading import load_for_inference
from alignment.provenance.weights_digest import model_sha256
from alignment.release.release import release
from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec

pytestmark = pytest.mark.filterwarnings("default")  # third-party deprecations of trl and accelerate


def test_a_file_of_ones_own_becomes_a_released_model(tmp_path):
    for k in range(8):
        Image.new("L", (32, 32), 30 * k).save(tmp_path / f"{k}.png")
    words = ["<image>\nA nodule?", "Yes", "And here? <image>", "No, none."]
    turns = [{"from": ("human", "gpt")[k % 2], "value": text} for k, text in enumerate(words)]
    records = [{"id": k, "image": [f"{k}.png", f"{k}.png"], "conversations": turns} for k in range(8)]
    (tmp_path / "own.json").write_text(json.dumps(records))
    spec = {
        "source": {"name": "chats", "file": str(tmp_path / "own.json")},
        "output": str(tmp_path / "set"),
        "splits": {"train": 0.5, "test": 0.5},
        "rows": {"instruction": ["train"], "prompt": ["test"]},
        "tasks": {},
    }
    made = build(BuildSpec.model_validate(spec))
    recipe = {
        "method": "sft",
        "output": str(tmp_path / "run"),
        "model": {"path": "tiny", "image_size": 32},
        "data": {"train": str(made / "instruction/train")},
        "trainer": {"max_steps": 1, "per_device_train_batch_size": 2, "activation_checkpointing": False},
    }
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump(recipe))
    run = alignment.train(tmp_path / "sft.yaml")
    model, processor = load_for_inference(str(run))
    judged = evaluate(
        model,
        processor,
        made / "prompt/test",
        out=run / "evaluation",
        model_name=str(run),
        weights_sha256=model_sha256(str(run)),
        blind_controls=False,
        generation=GenerationSection(max_new_tokens=2),
        num_resamples=10,
    )
    assert {"closed_accuracy", "open_recall"} <= judged.metrics["clean"].keys()
    page = (release(run, tmp_path / "released") / "README.md").read_text()
    assert page.count("Licence: not known to clinalign: that of the user's file.") == 2
