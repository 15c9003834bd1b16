"""What `inspect` shows: the row that training reads, its loss, and a picture that is one."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from alignment.cli.inspection import inspect_row
from alignment.models.tiny import build_tiny
from rewards.config.input_error import InputError

WORDS = ["A nodule?", "No.", "Why?", "It is clear."]


@pytest.fixture(scope="module", params=["idefics3", "qwen3_vl"])
def model(request, tmp_path_factory):
    return str(build_tiny(WORDS, tmp_path_factory.mktemp(request.param), family=request.param, image_size=64))


def write(folder, record):
    shades = np.linspace(0, 255, 64, dtype=np.uint8)
    Image.fromarray(np.broadcast_to(shades, (64, 64)).copy()).save(folder / "a.png")
    (folder / "own.json").write_text(json.dumps([record]))
    return str(folder / "own.json")


def test_a_users_file_shows_the_picture_and_the_loss_of_the_answers_alone(model, tmp_path):
    turns = [
        {"from": ("human", "gpt")[k % 2], "value": text} for k, text in enumerate(["<image>\n" + WORDS[0], *WORDS[1:]])
    ]
    shown = inspect_row(write(tmp_path, {"image": "a.png", "conversations": turns}), 0, model, tmp_path / "out.png")
    trained = [part for part in shown["tokens"].replace(" ", "").split("]") if "[" in part]
    assert "".join(part.split("[")[1] for part in trained) == "No.<|im_end|>\\nItisclear.<|im_end|>\\n"
    assert shown["image_tokens"] > 0
    assert shown["image_size"] == [[64, 64]]
    with Image.open(shown["image_as_processed"]) as picture:
        row = np.asarray(picture.convert("L"), dtype=int)[picture.height // 2]
    assert picture.width == picture.height == 64
    assert (np.diff(row) >= 0).all()  # the shades rise from left to right, as in the row's own picture
    assert row[-1] - row[0] > 200


def test_contents_that_are_texts_are_shown_as_training_reads_them(model, tmp_path):
    file = write(tmp_path, {})
    row = {"images": [{"path": "a.png"}], "prompt": "A nodule?", "completion": "No."}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "own.parquet")
    shown = inspect_row(str(tmp_path / "own.parquet"), 0, model, tmp_path / "out.png")
    assert shown["tokens"].replace(" ", "").endswith("[No][.][<|im_end|>][\\n]")
    with pytest.raises(InputError, match="makes no such row"):
        inspect_row(str(tmp_path / "own.parquet"), 1, model, tmp_path / "out.png")
    with pytest.raises(InputError, match="no record has a shape"):
        inspect_row(file, 0, "", tmp_path / "out.png")
