"""Answers are the model's own: what a checkpoint's ``generation_config`` asks for changes none of them."""

import pytest
import torch
from PIL import Image

from alignment.config.checkpoint_folders import model_folder
from alignment.evaluation.dialogue_answers import dialogue_responses
from alignment.models.generation import generate
from alignment.models.loading import load_for_inference
from alignment.models.tiny import build_tiny
from data_builders.schema import user_turn

OF_A_CHECKPOINT = {"repetition_penalty": 1.8, "no_repeat_ngram_size": 2, "num_beams": 3}
"""Each alone changes what the library generates by itself."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A tiny random model and its processor."""
    folder = build_tiny(["Where is the lesion?", "Left. Right. No."], tmp_path_factory.mktemp("tiny"), image_size=32)
    return load_for_inference(str(model_folder(str(folder))))


def asked(number):
    """Prompt rows on grey images."""
    questions = [user_turn("Where is the lesion?", num_images=1), user_turn("Left?", num_images=1)]
    return [
        {"images": [Image.new("RGB", (32, 32), (40 * k, 90, 9))], "prompt": questions[k % 2], "task": "open"}
        for k in range(number)
    ]


@pytest.mark.parametrize("setting", OF_A_CHECKPOINT)
@pytest.mark.parametrize("how", ["greedy", "sampled"])
def test_settings_of_a_checkpoint_change_no_answer(loaded, monkeypatch, setting, how):
    model, processor = loaded

    def answers():
        torch.manual_seed(3)
        drawn = {"temperature": 1.0, "num_samples": 2} if how == "sampled" else {}
        return generate(model, processor, asked(4), max_new_tokens=12, **drawn)

    plain = answers()
    assert any(text for texts in plain for text in texts)
    monkeypatch.setattr(model.generation_config, setting, OF_A_CHECKPOINT[setting])
    assert answers() == plain


def test_settings_of_a_checkpoint_change_no_turn_of_a_dialogue(marrow, tmp_path, monkeypatch):
    from alignment.data.prompt_rows import decoded_row, read_rows

    rows = [decoded_row(row) for row in read_rows(marrow / "prompt/test") if row["task"] == "dialogue"][:2]
    folder = build_tiny(["Is it adequate? Yes. No."], tmp_path / "tiny", image_size=32)
    model, processor = load_for_inference(str(folder))
    plain = dialogue_responses(model, processor, rows, max_answer_tokens=6)
    for name, value in OF_A_CHECKPOINT.items():
        monkeypatch.setattr(model.generation_config, name, value)
    assert dialogue_responses(model, processor, rows, max_answer_tokens=6) == plain
