"""CSV files whose cells would shift, or whose columns hide each other, are told; and no reader waits on a pipe."""

import csv
import io
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.config.csv_rows import Misfit, csv_rows
from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json_list
from rewards.config.strict_yaml import read_text
from rewards.judges.consultation import Consultation, Unread, read_meddiagnose


def rows_of(tmp_path, content, **settings):
    file = tmp_path / "t.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(csv_rows(file, **settings))


def refused(tmp_path, content, **settings):
    with pytest.raises(InputError) as told:
        rows_of(tmp_path, content, **settings)
    return str(told.value).removeprefix(f"{tmp_path / 't.csv'}: ")


def test_a_column_that_stands_twice_is_refused_by_its_name(tmp_path):
    told = refused(tmp_path, "id,nodule,side,nodule\na,present,left,absent\n")
    assert told == "the column 'nodule' stands there twice. Rename or remove one of the two."
    assert refused(tmp_path, "\ufeffid,id\n").startswith("the column 'id'")


def test_columns_without_a_name_are_not_one_column(tmp_path):
    assert rows_of(tmp_path, "id,,\na,,\n") == [{"id": "a", "": ""}]


def test_a_row_of_another_number_of_cells_says_which_and_shifts_nothing(tmp_path):
    long, short, sound = rows_of(tmp_path, 'id,report,n\na,no nodule, no effusion,1\n\n"b\nc",x\nd,"y, z",2\n')
    assert isinstance(long, Misfit)
    assert isinstance(short, Misfit)
    assert long == (
        "row 1 (line 2) has 4 cells, the header 3; put a cell that holds ',' in quotes, and close every quote"
    )
    assert short == "row 2 (line 4) has 2 cells, the header 3; write empty cells too, and close every quote"
    assert sound == {"id": "d", "report": "y, z", "n": "2"}


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_quote_that_is_never_closed_is_told_with_its_line(tmp_path, end):
    told = refused(tmp_path, f'id,report\na,none\nb,"no nodule\nc,none{end}')
    assert told == "line 3: a quote is opened that is never closed. Close it, or remove it."


def test_an_open_quote_that_swallows_more_than_a_cell_may_hold_is_told_with_its_line(tmp_path):
    told = refused(tmp_path, 'id,report\na,"no nodule\n' + "b,none\n" * 30_000)
    assert told.startswith("line 2: not readable as CSV (field larger than field limit")
    assert "one may be left open" in told


@pytest.mark.parametrize("content", ["", "\n\n", ",,\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_called_empty(tmp_path, content):
    assert refused(tmp_path, content).startswith("it is empty")


def test_a_file_in_another_encoding_is_told_by_its_line(tmp_path):
    content = "id,reader\na,Mueller\nb,Müller\n".encode("cp1252")
    assert refused(tmp_path, content).startswith("line 3: not UTF-8 (byte 23 of the file is 0xfc). Save it as UTF-8.")
    assert "or set encoding" in refused(tmp_path, content, encoding="utf-8")
    assert rows_of(tmp_path, content, encoding="cp1252")[1] == {"id": "b", "reader": "Müller"}
    assert refused(tmp_path, content, encoding="utf-9").startswith("not utf-9 (unknown encoding)")


@given(st.lists(st.lists(st.text("ab,\"' \n;"), min_size=3, max_size=3), min_size=1))
def test_what_a_writer_of_csv_wrote_is_read_as_it_was(tmp_path_factory, cells):
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([["x", "y", "z"], *cells])
    file = tmp_path_factory.mktemp("csv") / "t.csv"
    file.write_text(stream.getvalue(), encoding="utf-8", newline="")
    assert list(csv_rows(file)) == [dict(zip("xyz", row, strict=True)) for row in cells]


def test_a_consultation_whose_row_does_not_fit_is_not_read(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("Id,Response\n1,Patient: It hurts, here.\n2,Patient: It hurts.\n", encoding="utf-8")
    unread, sound = read_meddiagnose(file)
    assert isinstance(unread, Unread)
    assert isinstance(sound, Consultation)
    assert unread.reason.startswith("row 1 (line 2) has 3 cells, the header 2")


@pytest.mark.parametrize(
    "reader", [lambda path: list(csv_rows(path)), read_text, lambda path: read_json_list(path, "Mend it.")]
)
@pytest.mark.parametrize("device", [None, "/dev/zero"])
def test_a_pipe_or_a_device_is_refused_and_never_waited_for(tmp_path, reader, device):
    path = tmp_path / "data"
    path.symlink_to(device) if device else os.mkfifo(path)
    with pytest.raises(InputError, match=re.escape(f"{path}: not a regular file but a pipe, a device or a socket.")):
        reader(path)


def test_texts_in_another_encoding_are_told_by_their_line(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_bytes(b"a: 1\nb: 2\nc: \xfc\n")
    with pytest.raises(InputError, match=r"x.yaml: line 3: not a text in UTF-8 \(byte 13 is 0xfc\)"):
        read_text(file)
    with pytest.raises(InputError, match=r"x.yaml: not UTF-8 \(line 3, byte 14\)"):
        read_json_list(file, "")
