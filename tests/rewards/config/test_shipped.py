"""Recipes that come with clinalign are found from any folder; a file of the user's own goes first."""

from pathlib import Path

import pytest

from rewards.config import shipped
from rewards.config.input_error import InputError
from rewards.config.shipped import here_or_shipped, shipped_recipes
from rewards.config.strict_yaml import read_text

SFT = Path("recipes/sft/phantom_chest.yaml")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped._tell_once.cache_clear()
    return tmp_path


def test_a_recipe_that_is_not_here_is_the_shipped_one_and_this_is_told_once(caplog):
    assert here_or_shipped(SFT) == shipped_recipes() / "sft" / "phantom_chest.yaml"
    assert read_text(Path("recipes/loops/../sft/phantom_chest.yaml")) == here_or_shipped(SFT).read_text()
    assert [f"read from {shipped_recipes()}" in record.message for record in caplog.records] == [True]


def test_a_process_of_several_leaves_the_telling_to_its_launcher(caplog, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    assert here_or_shipped(SFT).is_absolute()
    assert not caplog.records


def test_a_file_of_ones_own_goes_first_and_each_by_itself(elsewhere):
    own = elsewhere / SFT
    own.parent.mkdir(parents=True)
    own.write_text("method: sft\n")
    assert here_or_shipped(SFT) == SFT
    assert (
        read_text(Path("recipes/loops/../sft/phantom_chest.yaml")) == "method: sft\n"
    )  # there is no recipes/loops here
    assert here_or_shipped(Path("recipes/dpo/phantom_chest.yaml")).is_absolute()


@pytest.mark.parametrize("name", ["sft/phantom_chest.yaml", "../recipes/sft/phantom_chest.yaml", "recipes/sft/no.yaml"])
def test_no_other_path_is_looked_for_among_them(name):
    assert here_or_shipped(Path(name)) == Path(name)


def test_a_name_that_is_nowhere_gets_the_nearest_of_the_shipped_ones(caplog):
    with pytest.raises(InputError, match=r"recipes/sft/phantom_chst.yaml: no such file\. Did you mean 'phantom_chest"):
        read_text(Path("recipes/sft/phantom_chst.yaml"))
    assert not caplog.records  # nothing was read


def test_a_wheel_holds_them_within_one_of_its_packages(elsewhere, monkeypatch):
    monkeypatch.setattr(shipped, "ROOT", elsewhere)
    assert shipped_recipes() == elsewhere / "recipes"
    inside = elsewhere / "alignment" / "shipped_recipes"
    inside.mkdir(parents=True)
    assert shipped_recipes() == inside
