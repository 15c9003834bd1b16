"""The table of docs/train/your_data.md: each file that it names is written here, and gives what it says."""

import json
import re
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_builders.build import user_file as of_user_file
from data_builders.build.user_file import rows_in_memory, rows_of_file, user_file
from rewards.config.input_error import InputError

PAGE = Path(__file__).parents[3] / "docs" / "train" / "your_data.md"
LINE = re.compile(r"^\| ([^|]+) \| ([^|]+) \| (\d+ [^|]+) \| (\d+ [^|]+) \|$", re.MULTILINE)
TABLE = {name: cells for name, *cells in LINE.findall(PAGE.read_text(encoding="utf-8"))}
COLUMNS = {"instruction": ("images", "prompt", "completion"), "prompt": ("images", "prompt")}


def turn(role, content):
    return {"role": role, "content": content}


def sharegpt(*words):
    return [{"from": ("human", "gpt")[k % 2], "value": text} for k, text in enumerate(words)]


def png():
    buffer = BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


MESSAGES = [turn("user", "<image>A nodule?"), turn("assistant", "No.")]
BLOCKS = [{"type": "image_url", "image_url": {"url": "a.png"}}, {"type": "text", "text": "A nodule?"}]
SWIFT = {"query": "Why?", "response": "So.", "history": [["<image>A nodule?", "No."]], "images": ["a.png"]}
HELD = {"messages": MESSAGES, "images": [{"bytes": png(), "path": None}]}


def parquet(row):
    return lambda path: pq.write_table(pa.Table.from_pylist([row]), path)


def text(*records, lines=False):
    return lambda path: path.write_text("\n".join(map(json.dumps, records)) if lines else json.dumps(records))


def saved(path):
    path.mkdir()
    table = pa.Table.from_pylist([HELD])
    with pa.ipc.new_stream(str(path / "data.arrow"), table.schema) as stream:
        stream.write_table(table)
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))


FILES = {
    "LLaVA JSON": (
        "a.json",
        text({"image": "a.png", "conversations": sharegpt("<image>\nA nodule?", "No.", "Why?", "So.")}),
    ),
    "ShareGPT JSON Lines": ("a.jsonl", text({"conversations": sharegpt("A nodule?", "A spot.")}, lines=True)),
    "ms-swift JSON Lines": ("a.jsonl", text({"messages": MESSAGES, "images": ["a.png"]}, lines=True)),
    "ms-swift query and history": ("a.json", text(SWIFT)),
    "OpenAI blocks": ("a.jsonl", text({"messages": [turn("user", BLOCKS), MESSAGES[1]]}, lines=True)),
    "TRL prompt and completion": (
        "a.jsonl",
        text({"prompt": "A nodule?", "completion": "No.", "images": ["a.png"]}, lines=True),
    ),
    "TRL Parquet of texts": ("a.parquet", parquet({"prompt": "A nodule?", "completion": "No.", "images": ["a.png"]})),
    "Alpaca JSON": ("a.json", text({"instruction": "A nodule?", "input": "", "output": "No.", "image": "a.png"})),
    "questions in a CSV": (
        "a.csv",
        lambda path: path.write_text("image,question,answer,options\na.png,CT or MRI?,CT,CT;MRI\na.png,Why?,So.,\n"),
    ),
    "Parquet with images in it": ("a.parquet", parquet(HELD)),
    "a folder of `save_to_disk`": ("a", saved),
}


@pytest.mark.parametrize("name", TABLE)
def test_each_file_of_the_table_gives_what_it_says(name, tmp_path):
    file, write = tmp_path / FILES[name][0], FILES[name][1]
    (tmp_path / "a.png").write_bytes(png())
    write(file)
    seen, *counts = TABLE[name]
    for kind, count in zip(COLUMNS, counts, strict=True):
        assert user_file(str(file), COLUMNS[kind]) == file
        made = rows_of_file(file, kind, COLUMNS[kind], tmp_path / "made")
        assert seen in made.sentence
        assert f": {count}" in made.sentence


def test_the_table_names_every_file_that_is_tried():
    assert TABLE.keys() == FILES.keys()


def asked(k, **more):
    return {"question": f"Q{k}?", "answer": "no", **more}


def made(folder, *records, kind="instruction"):
    (folder / "own.json").write_text(json.dumps(records))
    return rows_of_file(folder / "own.json", kind, COLUMNS[kind], folder / "made")


def test_a_file_of_several_splits_is_refused_with_what_to_name(tmp_path):
    with pytest.raises(InputError, match="holds the splits test, train"):
        made(tmp_path, asked(0, split="train"), asked(1, split="test"))
    assert "2 instruction rows" in made(tmp_path, asked(0, split="test"), asked(1, split="test")).sentence
    rows = [{"prompt": "Q?", "completion": "no", "split": split} for split in ("train", "test")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "own.parquet")
    with pytest.raises(InputError, match="holds the splits test, train"):
        rows_of_file(tmp_path / "own.parquet", "instruction", COLUMNS["instruction"], tmp_path / "made")


def test_a_saved_dict_of_splits_names_the_folder_to_name(tmp_path):
    (tmp_path / "own").mkdir()
    for split in ("test", "train"):
        saved(tmp_path / "own" / split)
    (tmp_path / "own" / "dataset_dict.json").write_text(json.dumps({"splits": ["test", "train"]}))
    with pytest.raises(InputError, match=f"Name one .{tmp_path / 'own' / 'train'}"):
        rows_of_file(tmp_path / "own", "instruction", COLUMNS["instruction"], tmp_path / "made")


@pytest.mark.parametrize("change", ["other picture", "picture comes", "other reading"])
def test_rows_are_built_anew_where_a_picture_or_the_reading_changed(tmp_path, change, monkeypatch):
    picture, late = tmp_path / "a.png", tmp_path / "late.png"
    picture.write_bytes(png())
    records = [*(asked(k, image="a.png") for k in range(30)), asked(30, image="late.png")]
    first = made(tmp_path, *records)
    assert made(tmp_path, *records).entry == first.entry
    if change == "other reading":
        monkeypatch.setattr(of_user_file, "READING", of_user_file.READING + 1)
    else:
        Image.new("L", (9, 9), 255).save(picture if change == "other picture" else late)
    again = made(tmp_path, *records)
    assert "built once" in again.sentence
    assert again.entry != first.entry


def test_rows_in_memory_have_the_numbers_of_those_that_are_built(tmp_path):
    records = [asked(0, image="none.png"), *(asked(k) for k in range(1, 40))]
    rows = pq.read_table(f"{made(tmp_path, *records).entry}.parquet").to_pylist()
    assert len(rows) == 39
    inspected = list(rows_in_memory(tmp_path / "own.json", "instruction", ("prompt",)))
    assert [row["id"] for row in inspected] == [row["id"] for row in rows]


def test_a_system_prompt_in_parquet_of_rows_is_kept(tmp_path):
    row = {"system": "Be brief.", "prompt": "Q?", "completion": "no"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "own.parquet")
    (read,) = rows_in_memory(tmp_path / "own.parquet", "instruction", COLUMNS["instruction"])
    assert [message["role"] for message in read["prompt"]] == ["system", "user"]
