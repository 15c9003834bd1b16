"""A user's file of preference pairs where a recipe names rows: read by the source ``preferences``, built once."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_builders.build.user_file import rows_in_memory, rows_of_file, user_file
from rewards.config.input_error import InputError

COLUMNS = ("images", "prompt", "chosen", "rejected")


@pytest.fixture
def folder(tmp_path):
    Image.new("L", (24, 16), 7).save(tmp_path / "a.png")
    return tmp_path


def pair(**more):
    return {"image": "a.png", "prompt": "Is it?", "chosen": "Yes", "rejected": "No", **more}


def side(answer):
    return [{"role": "user", "content": "<image>Is it?"}, {"role": "assistant", "content": answer}]


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
    (row, _) = rows_in_memory(file, "preference", COLUMNS)
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
