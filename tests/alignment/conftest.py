"""A small built phantom data set and a recipe on it, shared by the tests of this folder."""

import os
import shutil
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import yaml
from PIL import Image

from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec

LARYNX = Path(__file__).parent / "release" / "aldate_larynx.yaml"
"""The rule set of an invented hospital."""
SPEC = {
    "source": {"name": "phantom_chest", "patients": 24, "images_per_patient": 1, "size": 64},
    "seed": 3,
    "splits": {"sft": 0.5, "align": 0.3, "test": 0.2},
    "rows": {"instruction": ["sft"], "preference": ["align"], "prompt": ["align", "test"]},
    "tasks": {"presence": 2, "side": 1, "box": 1, "report": 1},
    "box_grid": 100,
    "corruptions_per_image": 3,
}
TRAINER = {
    "sft": {"learning_rate": 1.0e-3},
    "dpo": {"learning_rate": 1.0e-3, "beta": 0.1},
    "reward_model": {"learning_rate": 1.0e-3},
    "grpo": {"learning_rate": 1.0e-3, "num_generations": 2, "max_completion_length": 6, "beta": 0.0},
}
TRAIN = {
    "sft": "instruction/sft",
    "dpo": "preference/align",
    "reward_model": "preference/align",
    "grpo": "prompt/align",
    "pairs": "prompt/align",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's cache; a test's runs share one."""
    monkeypatch.setenv("CLINALIGN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """The folder of a built data set of 24 phantom patients."""
    out = tmp_path_factory.mktemp("data") / "phantom"
    return build(BuildSpec.model_validate({**SPEC, "output": str(out)}))


MARROW = {
    "source": {"name": "phantom_marrow", "patients": 24, "images_per_patient": 1, "size": 64, "seed": 1},
    "seed": 3,
    "splits": {"sft": 0.4, "align": 0.4, "test": 0.2},
    "rows": {"instruction": ["sft"], "prompt": ["align", "test"]},
    "tasks": {},
    "dialogues": {
        "mixture": {"standard": 1.0, "improvised": 1.0, "subset": 1.0, "single": 1.0},
        "test_wording": ["test"],
        "eval_mixture": ["standard", "confirm_wrong"],
    },
}


@pytest.fixture(scope="session")
def marrow(tmp_path_factory):
    """The folder of a built data set of dialogues about 24 phantom patients."""
    out = tmp_path_factory.mktemp("data") / "marrow"
    return build(BuildSpec.model_validate({**MARROW, "output": str(out)}))


@pytest.fixture(scope="session")
def larynx(tmp_path_factory):
    """The folder of a set of six pictures under an invented hospital's rule set, which it keeps alone."""
    hospital = tmp_path_factory.mktemp("hospital")
    lines = ["id,patient,image,swelling,leak", *(f"v{k},p{k},{k}.png,{k % 2},{k % 3 % 2}" for k in range(6))]
    (hospital / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    for k in range(6):
        Image.new("RGB", (64, 64), (40 * k, 0, 0)).save(hospital / f"{k}.png")
    rules = hospital / "larynx.yaml"
    shutil.copy(LARYNX, rules)
    source = {"name": "table", "root": str(hospital), "rule_set": str(rules)}
    spec = {
        "source": source, "output": str(hospital / "set"), "splits": {"train": 1.0},
        "rows": {"prompt": ["train"]}, "tasks": {"presence": 1, "report": 1},
    }  # fmt: skip
    folder = build(BuildSpec.model_validate(spec))
    rules.unlink()
    return folder


@pytest.fixture
def write_recipe(data, tmp_path):
    """A function that writes a small valid recipe of a method, with changes, and gives its path."""

    def write(method="sft", **changes):
        content = {
            "method": method,
            "output": str(tmp_path / method),
            "model": {"path": "tiny", "image_size": 64},
            "data": {"train": str(data / TRAIN[method])},
            "trainer": {
                "max_steps": 2, "per_device_train_batch_size": 4, "activation_checkpointing": False,
                "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True, **TRAINER.get(method, {}),
            },
        }  # fmt: skip
        if method == "grpo":
            content["rewards"] = [{"name": "box_overlap"}, {"name": "finding_f1"}]
        for key, value in changes.items():
            if isinstance(value, dict) and isinstance(content.get(key), dict):
                content[key] = {**content[key], **value}
            else:
                content[key] = value
        path = tmp_path / f"{method}.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write
