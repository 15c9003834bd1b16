import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.config.input_error import InputError
from rewards.config.json_lines import json_lines


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text())))
def test_what_was_written_a_line_each_is_read_back(rows):
    assert list(json_lines(json.dumps(row) for row in rows)) == list(enumerate(rows, start=1))


def test_blank_lines_are_passed_over_and_counted():
    assert list(json_lines(["\n", "{}\n", "  \n", '{"a": 1}'])) == [(2, {}), (4, {"a": 1})]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{oops", r"^line 2: not JSON \(Expecting property name.*one object a line\.$"),
        ("[1]", "^line 2: expected an object, got list"),
        ("null", "^line 2: expected an object, got NoneType"),
    ],
)
def test_a_fault_is_told_with_its_line(line, told):
    with pytest.raises(InputError, match=told):
        list(json_lines(["{}", line]))


def test_a_file_can_be_named_as_the_place():
    with pytest.raises(InputError, match=r"^t\.jsonl:1: not JSON"):
        list(json_lines(["x"], location="t.jsonl:"))


def test_lines_before_a_fault_are_read_already():
    lines = json_lines(["{}", "x"])
    assert next(lines) == (1, {})


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[" * 100_000, "line 1: not JSON that can be read .nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "line 1: not JSON .Exceeds the limit"),
        ('{"a": "\\ud800"}', "line 1: holds half a character"),
        ('{"\\uDFFF": 1}', "line 1: holds half a character"),
    ],
)
def test_what_cannot_be_read_or_written_again_is_told_with_its_line(line, why):
    with pytest.raises(InputError, match=why):
        list(json_lines([line]))


def test_a_whole_character_written_as_two_halves_is_read():
    assert list(json_lines(['{"a": "\\ud83d\\ude00"}'])) == [(1, {"a": "\U0001f600"})]


@pytest.mark.parametrize("line", ['{"a": 1, "a": 2}', '{"b": {"a": 1, "a": 1}}', '{"b": [{"a": 1, "c": 2, "a": 3}]}'])
def test_a_key_that_stands_twice_is_no_guess(line):
    with pytest.raises(InputError, match="line 1: not JSON \\(the key 'a' stands there twice\\)"):
        list(json_lines([line]))
