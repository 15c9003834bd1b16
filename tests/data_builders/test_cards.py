import re
from pathlib import Path

import pytest

from data_builders.cards import card_grid, card_of_rows, read_card, write_card
from rewards.config.input_error import InputError

ROOT = Path(__file__).parents[2]


def rows_in(folder):
    (folder / "prompt").mkdir(parents=True)
    file = folder / "prompt" / "test.parquet"
    file.write_bytes(b"")
    return file


def test_a_card_is_found_beside_the_rows_one_folder_up_and_where_a_link_leads(tmp_path):
    file = rows_in(tmp_path / "set")
    write_card(tmp_path / "set", {"spec": {"box_grid": 640}})
    (tmp_path / "linked").symlink_to(file.parent)
    for rows in (file, tmp_path / "linked" / "test.parquet"):
        assert card_of_rows(rows) == read_card(str(tmp_path / "set")) == {"spec": {"box_grid": 640}, "format": 2}
        assert card_grid(rows) == 640
    write_card(file.parent, {"spec": {"box_grid": 7}})
    assert card_grid(file) == 7


@pytest.mark.parametrize("card", [{}, {"spec": {}}, {"spec": {"box_grid": None}}, {"spec": ["box_grid"]}])
def test_units_that_no_card_says_are_not_known(tmp_path, card):
    file = rows_in(tmp_path)
    assert (card_of_rows(file), card_grid(file)) == (None, None)
    write_card(tmp_path, card)
    assert card_grid(file) is None


@pytest.mark.parametrize("grid", ["100", 99.5, True, [100]])
def test_units_that_are_no_whole_number_are_refused_with_their_place(tmp_path, grid):
    file = rows_in(tmp_path)
    write_card(tmp_path, {"spec": {"box_grid": grid}})
    with pytest.raises(InputError, match=r"card\.json: spec\.box_grid: got .*, expected a whole number. Build the set"):
        card_grid(file)


def test_no_other_module_names_the_file():
    """One reader and one writer: what a card may hold changes in one place."""
    sources = [path for folder in ("alignment", "data_builders") for path in (ROOT / folder).rglob("*.py")]
    assert [path.name for path in sources if re.search(r"\"card\.json\"", path.read_text("utf-8"))] == ["cards.py"]
