import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_builders.formats.records import Record, Unreadable, records
from rewards.config.input_error import InputError

ROW = {"question": "Is there a nodule?", "answer": "no"}


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(folder, name, content):
    return list(records(write(folder, name, content)))


def refusal(folder, name, content):
    with pytest.raises(InputError) as fault:
        read(folder, name, content)
    return str(fault.value)


def saved(folder, rows, **state):
    """A folder as ``datasets.Dataset.save_to_disk`` leaves it: Arrow streams, and their names in state.json."""
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), table.schema) as stream:
        stream.write_table(table)
    content = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], **state}
    (folder / "state.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("name", "content", "locations"),
    [
        ("a.json", json.dumps([ROW, ROW], indent=2), ["record 0", "record 1"]),
        ("a.json", json.dumps(ROW) + "\r\n\r\n" + json.dumps(ROW), ["line 1", "line 3"]),
        ("a.jsonl", "\ufeff" + json.dumps(ROW) + "\n", ["line 1"]),
        ("a.csv", "\ufeffquestion,answer\nIs there a nodule?,no\n", ["line 2"]),
        ("a.tsv", "question\tanswer\nIs there a nodule?\tno\n", ["line 2"]),
    ],
)
def test_each_kind_of_text_file_gives_its_records_where_they_stand(tmp_path, name, content, locations):
    assert read(tmp_path, name, content) == [Record(location, ROW) for location in locations]


def test_parquet_and_saved_folders_give_theirs_with_splits(tmp_path):
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([ROW]), tmp_path / "a.parquet")
    assert list(records(tmp_path / "a.parquet")) == [Record("record 0", ROW)]
    assert list(records(saved(tmp_path / "one", [ROW, ROW])))[1] == Record("record 1", ROW)
    saved(tmp_path / "both" / "test", [ROW])
    (tmp_path / "both" / "dataset_dict.json").write_text('{"splits": ["test"]}')
    assert list(records(tmp_path / "both")) == [Record("test record 0", ROW, "test")]


def test_separators_of_unicode_do_not_part_a_line(tmp_path):
    words = "one\u2028two\u0085three"
    (record,) = read(tmp_path, "a.jsonl", json.dumps({"answer": words}, ensure_ascii=False))
    assert record == Record("line 1", {"answer": words})


def test_a_line_that_cannot_be_read_stands_alone(tmp_path):
    good = json.dumps(ROW).encode()
    found = read(tmp_path, "a.jsonl", b"\n".join([good, '{"a": "结节"}'.encode("gbk"), b"[1]", good, good[:-4]]))
    assert [type(one) for one in found] == [Record, Unreadable, Unreadable, Record, Unreadable]
    assert "It looks like GBK; convert it: iconv -f GBK" in found[1].reason
    assert [one.location for one in found if isinstance(one, Unreadable)] == ["line 2", "line 3", "line 5"]


def test_cells_hold_lists_and_an_empty_one_is_null(tmp_path):
    text = 'images,options,boxes,answer\na.png;b.png,"[""x"", ""y""]",,no\na.png,x; y,"[[1,[",no\n'
    first, second = read(tmp_path, "a.csv", text)
    assert first.values == {"images": ["a.png", "b.png"], "options": ["x", "y"], "boxes": None, "answer": "no"}
    assert second.location == "line 3"
    assert "column 'boxes'" in second.reason


def test_a_header_of_excel_in_quotes_and_with_blanks_gives_its_names(tmp_path):
    content = '\ufeff"patient", question ,answer\np1,Q?,no\n'
    (record,) = read(tmp_path, "a.csv", content)
    assert record.values == {"patient": "p1", "question": "Q?", "answer": "no"}
    assert "stands there twice" in refusal(tmp_path, "b.csv", "answer, answer\nyes,no\n")


@pytest.mark.parametrize(
    ("name", "cell", "value"),
    [
        ("rejected", '["yes", "maybe"]', ["yes", "maybe"]),
        ("completion", "[12, 30, 40, 60]", "[12, 30, 40, 60]"),
        ("completion", '[{"bbox_2d": [1, 2, 3, 4]}]', '[{"bbox_2d": [1, 2, 3, 4]}]'),
        ("chosen", '["yes"]', '["yes"]'),
        ("prompt", '[{"role": "user", "content": "Q?"}]', [{"role": "user", "content": "Q?"}]),
    ],
)
def test_a_list_in_a_cell_is_one_only_where_it_is_of_turns_or_of_rejected_texts(tmp_path, name, cell, value):
    doubled = cell.replace('"', '""')
    (record,) = read(tmp_path, "a.csv", f'{name}\n"{doubled}"\n')
    assert record.values[name] == value


def test_turns_that_are_not_json_are_no_text(tmp_path):
    (fault,) = read(tmp_path, "a.csv", "prompt\n\"[{'role': 'user'}]\"\n")
    assert "column 'prompt'" in fault.reason


@pytest.mark.parametrize("is_saved", [True, False])
def test_classes_are_read_by_their_names(tmp_path, is_saved):
    features = {"answer": {"_type": "ClassLabel", "names": ["no", "yes"]}}
    note = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"question": ["Q?", "R?", "S?"], "answer": [1, 0, -1]}).replace_schema_metadata(note)
    if is_saved:
        path = tmp_path
        with pa.ipc.new_stream(str(path / "data.arrow"), table.schema) as stream:
            stream.write_table(table)
        (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    else:
        path = tmp_path / "a.parquet"
        pq.write_table(table, path)
    assert [one.values["answer"] for one in records(path)] == ["yes", "no", -1]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", "", "holds no records"),
        ("a.txt", "", "it is empty"),
        ("a.json", '\ufeff{\n "a": 1\n}', "line 1 opens an object"),
        ("a.json", '[{"a": "结节"}]'.encode("gbk"), "GBK"),
        ("a.csv", "a\n结节".encode("gbk"), "GBK"),
        ("a.json", '[{"a": 1}]'.encode("utf-16"), "UTF-16"),
        ("a.gz", b"\x1f\x8b0", "none of the known kinds"),
        ("a.parquet", b"PAR1", "not a whole Parquet file"),
    ],
)
def test_what_is_no_file_of_records_is_refused(tmp_path, name, content, reason):
    assert reason in refusal(tmp_path, name, content)


def test_a_folder_that_datasets_did_not_save_or_that_leads_out_is_refused(tmp_path):
    (tmp_path / "plain").mkdir()
    with pytest.raises(InputError, match=r"without state\.json"):
        list(records(tmp_path / "plain"))
    folder = saved(tmp_path / "out", [ROW], _data_files=[{"filename": "../secret.arrow"}])
    with pytest.raises(InputError, match="names no files of rows"):
        list(records(folder))
