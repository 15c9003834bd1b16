"""Rows without a copy are the rows of the copy; a copy and a cache lie where they are told."""

import pytest
from datasets import Dataset, Image, List
from hypothesis import example, given
from hypothesis import strategies as st

from alignment.config.data_entries import parquet
from alignment.data.row_cache import borrowed_rows, few_rows, read_once, stored_rows
from alignment.shared_prefix.reference_cache import cache_folder
from rewards.config.input_error import InputError


@pytest.fixture(scope="module", autouse=True)
def short_batches():
    """Batches of seven rows, so that the few rows of the tests stand in several and across their borders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alignment.data.row_cache.AT_ONCE", 7)
        yield


@pytest.fixture(scope="session")
def file(data):
    return parquet(str(data / "preference/align"))


@pytest.fixture(scope="session")
def rows(file, tmp_path_factory):
    return stored_rows(file, tmp_path_factory.mktemp("rows"))


@example(start=5, count=12)  # the end of one batch, a whole one, the beginning of a third
@example(start=7, count=7)
@example(start=1000, count=1)
@given(start=st.integers(0, 70), count=st.integers(1, 70))
def test_a_few_rows_are_those_of_the_whole(file, rows, start, count):
    few = few_rows(file, start, count)
    places = range(min(start, len(rows)), min(start + count, len(rows)))
    assert few.features == rows.features
    assert few["id"][:] == [rows["id"][place] for place in places]


def test_their_pictures_and_texts_are_too(file, rows):
    assert len(rows) > 21
    few, whole = few_rows(file, 9, 1)[0], rows[9]
    assert [image.tobytes() for image in few.pop("images")] == [image.tobytes() for image in whole.pop("images")]
    assert few == whole


def test_rows_read_once_are_those_of_the_whole_with_images_as_files(file, rows):
    columns = ["images", "prompt", "chosen"]
    undecoded = rows.select_columns(columns).cast_column("images", List(Image(decode=False)))
    assert list(read_once(file, columns)) == list(undecoded)


def test_borrowed_rows_are_gone_afterwards_even_after_a_fault(file, tmp_path):
    folder = tmp_path / "pool.rows"

    def use():
        with borrowed_rows(file, folder) as rows:
            assert isinstance(rows, Dataset)
            assert any(folder.rglob("*.arrow"))
            raise InputError("no such model")

    with pytest.raises(InputError):
        use()
    assert not folder.exists()


def test_a_run_keeps_its_own_cache_unless_one_is_named_for_all(monkeypatch, tmp_path):
    shared = tmp_path / "shared"
    monkeypatch.setenv("CLINALIGN_CACHE", str(shared))
    assert cache_folder(tmp_path / "run") == cache_folder() == shared
    monkeypatch.delenv("CLINALIGN_CACHE")
    assert cache_folder(tmp_path / "run") == tmp_path / "run" / ".cache"
    with pytest.raises(InputError, match="name its folder"):
        cache_folder()
