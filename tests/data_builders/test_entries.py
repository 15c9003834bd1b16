"""Where the rows of a data entry lie, for recipes, commands and Python alike."""

import os
from pathlib import Path

import pytest

from alignment.config.data_entries import parquet
from data_builders import InputError, read_rows
from data_builders.entries import existing_file, file_of_entry


@pytest.mark.parametrize("entry", ["x/prompt/test", "x/prompt/test.parquet", Path("x/prompt/test")])
def test_an_entry_is_named_with_or_without_its_ending(entry):
    assert file_of_entry(entry) == Path("x/prompt/test.parquet")


@pytest.mark.parametrize("read", [existing_file, read_rows, parquet])
def test_a_missing_entry_is_told_with_the_nearest_and_all_that_are_there(tmp_path, monkeypatch, read):
    monkeypatch.chdir(tmp_path)
    for kind, split in (("prompt", "test"), ("instruction", "sft")):
        (Path("set") / kind).mkdir(parents=True)
        (Path("set") / kind / f"{split}.parquet").touch()
    with pytest.raises(InputError) as told:
        read("set/prompt/tset")
    assert str(told.value) == (
        "data: no file set/prompt/tset.parquet. Did you mean 'set/prompt/test'? "
        "There: set/instruction/sft, set/prompt/test."
    )


@pytest.mark.parametrize("read", [existing_file, read_rows, parquet])
def test_where_no_set_is_the_cure_is_to_build_it(read):
    with pytest.raises(InputError, match=r"^data: no file none/x/y\.parquet\. Build it first: clinalign build SPEC"):
        read("none/x/y")


@pytest.mark.parametrize("read", [existing_file, read_rows, parquet])
def test_a_pipe_is_no_entry_and_nothing_waits_for_it(tmp_path, read):
    os.mkfifo(tmp_path / "x.parquet")
    with pytest.raises(InputError, match="not a regular file"):
        read(str(tmp_path / "x"))
