"""A recipe that names a file of the user's: what is seen, what is made of it, and what is refused."""

import json
import logging
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from alignment.checks.read_recipe import read_recipe
from data_builders.schema import assistant_turn, user_turn
from rewards.config.input_error import InputError

ASKED = {"question": "A nodule?", "answer": "no", "image": "a.png"}


@pytest.fixture
def named(write_recipe, tmp_path):
    """A function that writes records as JSON, or rows as Parquet, and reads a recipe that names the file."""
    Image.new("L", (64, 64)).save(tmp_path / "a.png")

    def read(content, method="sft", name="own.json", **changes):
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(content), tmp_path / name)
        else:
            (tmp_path / name).write_text(json.dumps(content))
        return read_recipe(write_recipe(method, data={"train": str(tmp_path / name)}, **changes))

    return read


def rows_of(recipe):
    return pq.read_table(f"{recipe.data.train}.parquet").to_pylist()


def test_rows_are_built_once_beside_the_run_and_that_is_sentence(named, caplog):
    recipe = named([ASKED, ASKED | {"question": "A mass?"}])
    assert recipe.data.train.startswith(f"{recipe.output}.data/own-instruction-")
    assert len(rows_of(recipe)) == 2
    (sentence,) = [record.message for record in caplog.records if "own.json" in record.message]
    assert "shape question (questions and answers); built once as" in sentence
    assert sentence.endswith("2 instruction rows, patients unknown.")
    stamp = Path(f"{recipe.data.train}.parquet").stat().st_mtime_ns
    caplog.clear()
    again = named([ASKED, ASKED | {"question": "A mass?"}])
    assert again.data.train == recipe.data.train
    assert Path(f"{recipe.data.train}.parquet").stat().st_mtime_ns == stamp
    assert "found as" in caplog.text
    assert named([ASKED]).data.train != recipe.data.train


def test_grpo_gets_prompt_rows_with_answers(named):
    (row,) = rows_of(named([ASKED], "grpo", rewards=[{"name": "closed_answer"}]))
    assert (row["answer"], row["prompt"]) == ("no", user_turn("A nodule?"))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([{"text": "..."}], "no record has a shape that is known. Seen: text. Known by the key: conversations (LLaVA"),
        ([{"prompt": "?", "chosen": "a", "rejected": "b"}], "holds preference pairs (keys chosen, rejected)"),
        ([ASKED, ASKED | {"answer": None}], "record 1: its answer is null ('answer')"),
        ([], "holds no records"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_in_one_line(named, content, fault):
    with pytest.raises(InputError) as raised:
        named(content)
    (line, *_) = str(raised.value).splitlines()
    assert "data" in line
    assert fault in line


def png():
    buffer = BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    return buffer.getvalue()


def text(role, words):
    return [{"role": role, "content": words}]


FORMS = {
    "texts in messages": (text("user", "A nodule?"), text("assistant", "no"), {"images": [{"bytes": png()}]}),
    "plain texts": ("A nodule?", "no", {"images": [{"bytes": png(), "path": None}]}),
    "bare bytes": ("<image>\nA nodule?", "no", {"images": [png()]}),
    "a path under the key image": ("A nodule?", "no", {"image": "a.png"}),
    "blocks without notes": (user_turn("A nodule?"), assistant_turn("no"), {"images": [{"path": "a.png"}]}),
}


@pytest.mark.parametrize("form", FORMS)
def test_parquet_of_rows_keeps_its_other_columns_and_gets_the_houses_messages(named, form):
    prompt, completion, images = FORMS[form]
    row = {"id": "r", "prompt": prompt, "completion": completion, **images, "mine": 0.5}
    recipe = named([row], name="own.parquet")
    (made,) = rows_of(recipe)
    assert (made["prompt"], made["completion"]) == (user_turn("A nodule?"), assistant_turn("no"))
    assert (made["id"], made["mine"]) == ("r", 0.5)
    assert Image.open(BytesIO(made["images"][0]["bytes"])).size == (64, 64)


def test_parquet_whose_tags_are_not_as_many_as_its_images_is_refused_by_row(named):
    row = {"id": "r7", "prompt": "<image><image>?", "completion": "no", "images": [png()]}
    with pytest.raises(InputError, match="row r7: 2 image tags for 1 images; expected as many"):
        named([row], name="own.parquet")


def test_rows_of_a_built_set_are_read_where_they_are(write_recipe, data, caplog):
    with caplog.at_level(logging.INFO):
        assert read_recipe(write_recipe()).data.train == str(data / "instruction/sft")
    assert "built" not in caplog.text
