"""State as safetensors and JSON: bit for bit what was written."""

import math

import pytest
import torch

from alignment.resuming.kept_state import read_state, write_state


def test_a_tree_comes_back_bit_for_bit(tmp_path):
    buffer = {"ids": torch.arange(6).view(2, 3)[:, ::2], "images": [1, 2], "none": None, "rows": ["a", "b"]}
    state = {
        "loss": torch.tensor(0.1),
        "metrics": {"kl": [0.1 + 0.2, math.nan, torch.tensor(1 / 3)]},
        "buffer": [buffer],
    }
    write_state(tmp_path / "state.safetensors", state)
    back = read_state(tmp_path / "state.safetensors")
    assert torch.equal(back["buffer"][0]["ids"], buffer["ids"])
    assert {k: back["buffer"][0][k] for k in ("images", "none", "rows")} == {
        "images": [1, 2],
        "none": None,
        "rows": ["a", "b"],
    }
    assert back["metrics"]["kl"][0] == 0.1 + 0.2
    assert math.isnan(back["metrics"]["kl"][1])
    assert torch.equal(back["metrics"]["kl"][2], state["metrics"]["kl"][2])
    assert torch.equal(back["loss"], state["loss"])


def test_tensors_that_share_memory_and_half_precision_are_kept(tmp_path):
    whole = torch.arange(8, dtype=torch.bfloat16)
    write_state(tmp_path / "s", {"a": whole[:4], "b": whole[2:], "scalar": torch.tensor(3)})
    back = read_state(tmp_path / "s")
    assert torch.equal(back["a"], whole[:4])
    assert torch.equal(back["b"], whole[2:])
    assert back["scalar"].ndim == 0


def test_a_state_without_tensors_can_be_kept(tmp_path):
    write_state(tmp_path / "s", {"seen": 3})
    assert read_state(tmp_path / "s") == {"seen": 3}


def test_tensors_come_back_on_a_processor_that_is_numbered_too(tmp_path):
    """As accelerate numbers those of several processes without a GPU."""
    write_state(tmp_path / "s", {"loss": torch.tensor(0.5)})
    assert read_state(tmp_path / "s", torch.device("cpu:0")) == {"loss": torch.tensor(0.5)}


def test_what_cannot_be_kept_is_said(tmp_path):
    with pytest.raises(TypeError):
        write_state(tmp_path / "s", {"x": object()})
