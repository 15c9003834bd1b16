"""The table of docs/train/your_data.md: each file that it names is written here, and gives what it says."""

import json
import re
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_builders.build.user_file import rows_of_file, user_file

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
