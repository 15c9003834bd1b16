"""A user's file of preference pairs where a recipe names rows: read by the source ``preferences``, built once.

Each file that the second table of docs/train/your_data.md names is written here, and gives what it says.
"""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_builders.build.user_file import rows_in_memory, rows_of_file, user_file
from rewards.config.input_error import InputError

PAGE = Path(__file__).parents[3] / "docs" / "train" / "your_data.md"
LINE = re.compile(r"^\| ([^|]+) \| (shape \w+) \| (\d+ preference rows) \|$", re.MULTILINE)
TABLE = {name: cells for name, *cells in LINE.findall(PAGE.read_text(encoding="utf-8"))}
COLUMNS = ("images", "prompt", "chosen", "rejected")


@pytest.fixture
def folder(tmp_path):
    Image.new("L", (24, 16), 7).save(tmp_path / "a.png")
    return tmp_path


def pair(**more):
    return {"image": "a.png", "prompt": "Is it?", "chosen": "Yes", "rejected": "No", **more}


def side(answer):
    return [spoken("user", "<image>Is it?"), spoken("assistant", answer)]


def spoken(role, text):
    return {"role": role, "content": text}


def parquet(folder, *records):
    pq.write_table(pa.Table.from_pylist(list(records)), folder / "own.parquet")
    return folder / "own.parquet"


def rows(made):
    return pq.read_table(f"{made.entry}.parquet").to_pylist()


def test_lines_of_pairs_are_built_once_and_the_sentence_says_what_was_seen(folder):
    file = folder / "own.jsonl"
    file.write_text("".join(json.dumps(pair(prompt=f"Is it {k}?")) + "\n" for k in range(2)))
    made = rows_of_file(file, "preference", COLUMNS, folder / "data")
    assert len(rows(made)) == 2
    notes = ("2 pairs read in the shape trl", "2 pairs without a weight: they weigh 1", "patients unknown")
    for words in ("preference pairs; built once", "2 preference rows", *notes):
        assert words in made.sentence
    again = rows_of_file(file, "preference", COLUMNS, folder / "data")
    assert (again.entry, "; found as" in again.sentence) == (made.entry, True)


@pytest.mark.parametrize("record", [pair(), {"image": "a.png", "chosen": side("Yes"), "rejected": side("No")}])
def test_parquet_of_pairs_in_trls_columns_keeps_its_image_and_leaves_out_what_teaches_nothing(folder, record):
    equal = {**record, "rejected": record["chosen"]}
    file = parquet(folder, record, equal)
    assert user_file(str(file), COLUMNS) == file
    with pytest.raises(InputError, match="record 1: chosen and rejected are equal"):
        rows_of_file(file, "preference", COLUMNS, folder / "data")  # one of two is more than max_quarantined
    (row,) = rows_in_memory(file, "preference", COLUMNS)
    assert [block["type"] for block in row["prompt"][0]["content"]] == ["image", "text"]
    assert len(row["images"]) == 1


def test_parquet_with_columns_of_the_house_keeps_them(folder):
    file = parquet(folder, pair(kind="llm", image=None, images=[{"bytes": (folder / "a.png").read_bytes()}]))
    (row,) = rows(rows_of_file(file, "preference", COLUMNS, folder / "data"))
    assert row["kind"] == "llm"


def test_a_file_without_pairs_is_refused_by_its_keys(folder):
    file = folder / "own.jsonl"
    file.write_text(json.dumps({"image": "a.png", "question": "Is it?", "answer": "Yes"}))
    with pytest.raises(InputError, match=r"own\.jsonl: holds no preference pairs .* the keys image, question, answer"):
        rows_of_file(file, "preference", COLUMNS, folder / "data")


def llava(answer):
    return [{"from": "human", "value": "<image>\nIs it?"}, {"from": "gpt", "value": answer}]


def records(*several, name="own.jsonl"):
    text = json.dumps(several) if name.endswith(".json") else "\n".join(map(json.dumps, several))
    return lambda folder: (folder / name, (folder / name).write_text(text))[0]


def csv(folder):
    (folder / "own.csv").write_text("image,question,chosen,rejected\na.png,Is it?,Yes,No\n")
    return folder / "own.csv"


def as_rlaif_v(folder):
    held = {"bytes": (folder / "a.png").read_bytes(), "path": "films/a.png"}
    return parquet(folder, {"image": held, "question": "Is it?", "chosen": "Yes", "rejected": "No", "idx": 1})


def saved(folder):
    (folder / "saved").mkdir()
    table = pa.Table.from_pylist([pair(image={"bytes": (folder / "a.png").read_bytes(), "path": None})])
    with pa.ipc.new_stream(str(folder / "saved/data.arrow"), table.schema) as stream:
        stream.write_table(table)
    (folder / "saved/state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    return folder / "saved"


SWIFT = {"messages": side("Yes"), "images": ["a.png"]}
SIDES = {"image": "a.png", "conversations": llava("Yes"), "rejected_conversations": llava("No")}
OF_ASSISTANT = {"chosen": {"from": "gpt", "value": "Yes"}, "rejected": {"from": "gpt", "value": "No"}}
FILES = {
    "a CSV of image, question, chosen, rejected": csv,
    "TRL JSON Lines of texts": records(pair()),
    "TRL messages without a prompt": records({"images": ["a.png"], "chosen": side("Yes"), "rejected": side("No")}),
    "Parquet as RLAIF-V is": as_rlaif_v,
    "LLaMA-Factory JSON": records(
        {"images": ["a.png"], "conversations": llava("Yes")[:1], **OF_ASSISTANT}, name="own.json"
    ),
    "LLaVA JSON with `rejected_conversations`": records(SIDES, name="own.json"),
    "MMedPO JSON": records({**SIDES, "id": 1, "weighted_score": 0.5}, name="own.json"),
    "ms-swift with two of `rejected_response`": records({**SWIFT, "rejected_response": ["No", "Never"]}),
    "ms-swift with `rejected_messages`": records({**SWIFT, "rejected_messages": side("No")}),
    "ms-swift with `rejected_images`": records({**SWIFT, "rejected_images": ["b.png"]}),
    "a saved folder of pairs": saved,
}


@pytest.mark.parametrize("name", TABLE)
def test_each_file_of_the_table_gives_what_it_says(name, folder):
    Image.new("L", (24, 16), 9).save(folder / "b.png")
    file, (seen, count) = FILES[name](folder), TABLE[name]
    assert user_file(str(file), COLUMNS) == file
    made = rows_of_file(file, "preference", COLUMNS, folder / "data")
    assert f"read in the {seen}" in made.sentence
    assert f": {count}" in made.sentence
    assert all(len(row["images"]) == 1 for row in rows(made))


def test_the_table_names_every_file_that_is_tried():
    assert TABLE.keys() == FILES.keys()
