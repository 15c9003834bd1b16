"""Sets of older formats are read as they were, newer ones refused. ``format_1`` is a set that version e18877d built."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec
from data_builders.cards import FORMAT, card_of_rows, read_card
from data_builders.row_checks import open_parquet
from rewards.config.input_error import InputError

FORMAT_1 = Path(__file__).parent / "format_1"
SPEC = {
    "source": {"name": "phantom_chest", "patients": 10, "images_per_patient": 1, "size": 64, "prevalence": 0.6},
    "seed": 3,
    "splits": {"sft": 0.4, "align": 0.3, "test": 0.3},
    "rows": {"instruction": ["sft"], "preference": ["align"], "prompt": ["align", "test"]},
    "tasks": {"presence": 1, "box": 1, "report": 1},
    "box_grid": 100,
}
"""What ``format_1`` was built from."""
FILES = ("instruction/sft", "preference/align", "prompt/align", "prompt/test")


@pytest.fixture
def newer(tmp_path):
    """A set of a format that is not there yet."""
    return with_format(tmp_path / "newer", FORMAT + 1)


def with_format(folder, value):
    shutil.copytree(FORMAT_1, folder)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"format": value}))
    return folder


def test_the_same_spec_gives_the_rows_of_format_1_and_their_new_columns(tmp_path):
    built = build(BuildSpec.model_validate({**SPEC, "output": str(tmp_path / "new")}))
    assert "format" not in read_card(FORMAT_1)
    assert read_card(built)["format"] == FORMAT == 2
    for name in FILES:
        before, now = (pq.read_table(folder / f"{name}.parquet").to_pylist() for folder in (FORMAT_1, built))
        assert before == [{column: row[column] for column in before[0]} for row in now]
        assert len(now[0]) > len(before[0])


@pytest.mark.parametrize("name", FILES)
def test_rows_of_a_newer_format_are_not_opened(newer, name):
    with pytest.raises(InputError) as fault:
        open_parquet(newer / f"{name}.parquet")
    assert str(fault.value) == (
        f"{newer}/card.json: the set is of format 3, and this version reads up to 2. Update clinalign, or build the "
        "set anew with this version."
    )


def test_a_newer_set_is_not_built_over(newer):
    before = sorted(newer.rglob("*"))
    with pytest.raises(InputError, match="Update clinalign"):
        build(BuildSpec.model_validate({**SPEC, "output": str(newer)}))
    assert sorted(newer.rglob("*")) == before


@pytest.mark.parametrize("value", ["2", None, 1.5, True, 0])
def test_a_format_that_is_no_number_is_told(value, tmp_path):
    card = with_format(tmp_path / "odd", value) / "card.json"
    with pytest.raises(InputError, match=r"card\.json: format: got .*, expected a whole number such as 2\."):
        read_card(card.parent)


def test_a_set_that_is_updated_in_place_is_read_again(newer):
    rows = newer / "prompt/test.parquet"
    with pytest.raises(InputError, match="format 3"):
        open_parquet(rows)
    (newer / "card.json").write_text(json.dumps(read_card(FORMAT_1)))
    assert open_parquet(rows).metadata.num_rows == 6


def test_rows_without_a_card_or_with_a_damaged_one_are_opened(newer):
    with pytest.raises(InputError, match="format 3"):
        card_of_rows(newer / "prompt/test.parquet")
    (newer / "card.json").write_text("{oops")
    open_parquet(newer / "prompt/test.parquet").close()
    (newer / "card.json").unlink()
    assert card_of_rows(newer / "prompt/test.parquet") is None
    open_parquet(newer / "prompt/test.parquet").close()
