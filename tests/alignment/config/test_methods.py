"""The table of methods: each entry is whole, and a new entry is all that a new method takes beside its file."""

from pathlib import Path

import pytest

from alignment.checks.read_recipe import read_recipe
from alignment.config.methods import METHODS, Method, config_class, readers_of
from alignment.planning.check import num_steps
from alignment.training.run import run
from rewards.config.input_error import InputError


@pytest.mark.parametrize("name", METHODS)
def test_an_entry_names_a_maker_and_a_config_that_are_there(name):
    method = METHODS[name]
    assert callable(method.maker)
    assert set(method.answers) <= set(method.columns)
    if method.trains:
        assert config_class(name).__name__ == method.config


def count_rows(recipe):
    """What a method of this file does."""
    Path(recipe.output, "rows.txt").write_text(str(recipe.sampling.num_samples))


def test_an_entry_is_all_that_a_new_method_takes(write_recipe, data, monkeypatch):
    path = write_recipe("pairs", sampling={"num_samples": 7})
    path.write_text(path.read_text().replace("method: pairs", "method: count"))
    with pytest.raises(InputError, match=rf"method: no method 'count'. There are: {', '.join(METHODS)}."):
        read_recipe(path)
    entry = Method(make=f"{__name__}:count_rows", columns=("id", "colour"), sections=("sampling",))
    monkeypatch.setitem(METHODS, "count", entry)
    with pytest.raises(InputError, match=r"data\.train: count reads colour, but "):
        read_recipe(path)
    monkeypatch.setitem(METHODS, "count", Method(**{**vars(entry), "columns": ("id", "facts")}))
    assert readers_of("sampling") == ["pairs", "count"]
    with pytest.raises(InputError, match=r"canaries: count reads no such section; it is for grpo\. Leave it out\."):
        read_recipe(path, ["canaries={every: 2}"])
    folder = run(read_recipe(path))
    assert (folder / "rows.txt").read_text() == "7"


def test_a_method_that_generates_is_planned_by_its_copies(write_recipe, monkeypatch):
    recipe = read_recipe(write_recipe("grpo", trainer={"max_steps": -1, "num_generations": 2}))
    steps, _ = num_steps(recipe, 80)
    monkeypatch.setitem(METHODS, "grpo", Method(**{**vars(METHODS["grpo"]), "generates": False}))
    assert num_steps(recipe, 80)[0] == steps / 2
