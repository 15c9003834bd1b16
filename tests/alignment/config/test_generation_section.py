"""How answers are generated: bounds by kind of task, from a run's recipe and the command line."""

import pytest

from alignment.config.generation_section import MAX_NEW_TOKENS, GenerationSection, generation_of, kind_of
from rewards.config.input_error import InputError


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"task": "presence"}, "closed"),
        ({"task": "open"}, "open"),
        ({"task": "choice"}, "choice"),
        ({"task": "box"}, "box"),
        ({"task": "box", "box_images": [1, 2]}, "report"),
        ({"task": "closed", "capability": "staging"}, "report"),
        ({"task": "dialogue"}, "dialogue"),
    ],
)
def test_each_row_is_of_a_kind(row, kind):
    assert kind_of(row) == kind


def test_bounds_are_one_or_by_kind():
    assert GenerationSection(max_new_tokens=7).bounds() == dict.fromkeys(MAX_NEW_TOKENS, 7)
    assert GenerationSection.model_validate({"max_new_tokens": {"box": 9}}).bounds() == MAX_NEW_TOKENS | {"box": 9}


def test_a_run_generates_as_its_recipe_says_and_the_command_line_changes_it(tmp_path):
    (tmp_path / "recipe.resolved.yaml").write_text("generation: {dtype: bfloat16, max_new_tokens: {report: 400}}\n")
    found = generation_of(str(tmp_path), ["generation.max_new_tokens.box=99"])
    assert (found.dtype, found.bound("report"), found.bound("box"), found.bound("open")) == ("bfloat16", 400, 99, 64)
    assert generation_of("nobody/no-model") == GenerationSection()


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("generation.dtype=float8", "float8"),
        ("generation.max_new_tokens.reprot=9", "reprot"),
        ("trainer.seed=1", "trainer"),
        ("generation.temperature=0", "temperature"),
        ("generation.batch_tokens=-3", "batch_tokens"),
    ],
)
def test_what_cannot_be_is_named(override, fault):
    with pytest.raises(InputError, match=fault):
        generation_of("nobody/no-model", [override])
