"""Ten steps of each method on a tiny model against a recorded trajectory: a change of numbers is seen, and argued.

``make golden`` records anew. Tolerances leave room for another CPU's rounding, not for another formula.
"""

import json
import os
from pathlib import Path

import pytest

from alignment.recipe import read_recipe
from alignment.train import run

GOLDEN = Path(__file__).with_name("golden")
RECORDING = os.environ.get("CLINALIGN_GOLDEN") == "record"
STEPS = {"max_steps": 10, "per_device_train_batch_size": 4, "seed": 5, "lr_scheduler_type": "constant"}
pytestmark = pytest.mark.filterwarnings("default")  # third-party deprecations of trl and accelerate


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    """A tiny model to start from, so that every run begins with the same weights."""
    from alignment.models import built_texts
    from alignment.tiny import build_tiny

    folder = tmp_path_factory.mktemp("start") / "tiny"
    return build_tiny(built_texts(str(data / "instruction/sft")), folder, image_size=64)


def trajectory(write_recipe, method, start, out, **trainer):
    path = write_recipe(method, model={"path": str(start)}, trainer={**STEPS, **trainer}, output=str(out))
    log = [json.loads(line) for line in (run(read_recipe(path)) / "log.jsonl").read_text().splitlines()]
    return [{key: entry[key] for key in ("loss", "grad_norm")} for entry in log if "loss" in entry]


@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_ten_steps_go_as_recorded(write_recipe, start, tmp_path, method):
    got, golden = trajectory(write_recipe, method, start, tmp_path / "run"), GOLDEN / f"{method}.json"
    if RECORDING:
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(json.dumps(got, indent=1) + "\n")
    want = json.loads(golden.read_text())
    assert len(got) == len(want) == STEPS["max_steps"]
    for step, (ours, recorded) in enumerate(zip(got, want, strict=True)):
        assert ours["loss"] == pytest.approx(recorded["loss"], rel=2e-3, abs=2e-3), f"step {step}"
        assert ours["grad_norm"] == pytest.approx(recorded["grad_norm"], rel=2e-2, abs=2e-3), f"step {step}"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_four_rows_at_once_train_like_one_row_four_times(write_recipe, start, tmp_path, method):
    once = trajectory(write_recipe, method, start, tmp_path / "once", max_steps=4)
    split = {"max_steps": 4, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    accumulated = trajectory(write_recipe, method, start, tmp_path / "accumulated", **split)
    assert [e["loss"] for e in once] == pytest.approx([e["loss"] for e in accumulated], abs=2e-4)
