"""From a hospital's rule set, images and table to a release, outside the checkout: dialogues, SFT, GRPO over turns.

Each command begins as a new process does, knowing no file; the hospital's own file is gone once the set is built.
"""

import csv
import json
import random
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from alignment.cli.app import app
from data_builders.digest import sha256
from rewards.rules import known_files

RULES = Path(__file__).with_name("aldate_larynx.yaml")
KEPT = "rule_sets/aldate_larynx@1.yaml"
SPEC = {
    "source": {"name": "labelled", "root": ".", "table": "labels.csv", "rule_set": "larynx.yaml"},
    "output": "set",
    "seed": 3,
    "splits": {"train": 0.6, "test": 0.4},
    "rows": {"instruction": ["train"], "prompt": ["train", "test"]},
    "tasks": {},
    "dialogues": {"mixture": {"standard": 1.0, "hint_wrong": 1.0}, "test_wording": ["test"]},
}
TRAINER = {
    "max_steps": 1,
    "per_device_train_batch_size": 2,
    "learning_rate": 1.0e-3,
    "activation_checkpointing": False,
    "dataloader_pin_memory": False,
    "report_to": [],
}
SFT = {
    "method": "sft",
    "output": "run/sft",
    "model": {"path": "tiny", "family": "idefics3", "image_size": 64},
    "data": {"train": "set/instruction/train"},
    "trainer": TRAINER,
}
GRPO = {
    "method": "grpo",
    "output": "run/grpo",
    "model": {"path": "run/sft"},
    "data": {"train": "set/prompt/train"},
    "rewards": [{"name": "dialogue_consistency"}],
    "dialogue": {"credit": "turn", "max_answer_tokens": 4},
    "trainer": TRAINER | {"num_generations": 2, "max_completion_length": 256},
}


@pytest.fixture
def clinic(tmp_path, monkeypatch):
    """A folder with an invented hospital's rule set, pictures and labels; the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(RULES, tmp_path / "larynx.yaml")
    draw, rows = random.Random(1), []
    for k in range(10):
        quality, swelling = ("good" if k % 5 else "poor"), draw.choice(("yes", "no"))
        picture = Image.new("RGB", (64, 64), (k, 0, 0))
        if swelling == "yes":
            ImageDraw.Draw(picture).ellipse((10, 10, 40, 40), fill="white")
        picture.save(tmp_path / f"{k}.png")
        rows.append((f"visit{k}", f"patient{k}", f"{k}.png", quality, swelling))
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "patient", "images", "quality", "swelling"), *rows])
    for name, content in (("spec", SPEC), ("sft", SFT), ("grpo", GRPO)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return tmp_path


def run(monkeypatch, *words):
    """What a command prints, begun as a new process."""
    monkeypatch.setattr(known_files, "_known", {})
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # third-party deprecations
def test_a_hospitals_rule_set_comes_in_and_a_released_model_names_it(clinic, monkeypatch):
    assert "records: 10" in run(monkeypatch, "check-rules", "larynx.yaml", "--data", "labels.csv")
    run(monkeypatch, "build", "spec.yaml")
    (clinic / "larynx.yaml").unlink()
    for recipe in ("sft", "grpo"):
        run(monkeypatch, "train", f"{recipe}.yaml")
        assert json.loads((clinic / f"run/{recipe}/provenance.json").read_text())["rules"] == {KEPT: sha256(RULES)}
    log = [json.loads(line) for line in (clinic / "run/grpo/log.jsonl").read_text().splitlines()]
    assert any("rewards/dialogue_consistency/mean" in line for line in log)
    assert "A_Q" in run(monkeypatch, "eval", "run/grpo", "set/prompt/test")
    shutil.rmtree(clinic / "set")  # a run and its evaluation stand for themselves
    run(monkeypatch, "release", "run/grpo", "out")
    assert "verified" in run(monkeypatch, "verify", "out")
    assert (clinic / "out" / KEPT).read_bytes() == RULES.read_bytes()
    card = (clinic / "out" / "README.md").read_text(encoding="utf-8")
    assert f"- `{KEPT}`, SHA-256 `{sha256(RULES)}`" in card
    assert json.loads((clinic / "out" / "evaluation.json").read_text())["rules"] == {KEPT: sha256(RULES)}
