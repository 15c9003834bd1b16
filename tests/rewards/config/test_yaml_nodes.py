"""YAML that would hang or crash what reads it is one sentence, and all other YAML reads as before."""

import time
from itertools import pairwise

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rewards.config.input_error import InputError
from rewards.config.strict_yaml import read_yaml
from rewards.config.yaml_nodes import MAX_ALIASED, MAX_DEPTH, bounded_yaml
from rewards.llm.item_lists import parse_items

NAMES = "abcdefghijk"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise(NAMES)
)
MERGES = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n" for before, name in pairwise(NAMES)
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (LAUGHS, "stand for more than 10,000 values"),
        (MERGES, "stand for more than 10,000 values"),
        ("a: &a [*a]", "stands within what it names"),
        ("a: &a {b: *a}", "stands within what it names"),
        ("a: " + "[" * 100_000, "line 1 is nested more than 50 deep"),
        ("a: " + "{a: " * 100_000, "nested more than 50 deep"),
        ("- " * 3000, "nested more than 50 deep"),
        ("a: 0x" + "f" * 5000, "a number of thousands of digits"),
        ("a: " + "9" * 5000, "a number or date that cannot be"),
        ("a: 2001-99-99", "a number or date that cannot be"),
        ("a: !!int ''", "tags such as .* are not read"),
        ("a: !!timestamp x", "tags such as .* are not read"),
        ("a: !!bool x", "tags such as .* are not read"),
        ("a: !!python/object/apply:os.system [ls]", "tags such as .* are not read"),
    ],
)
def test_yaml_that_hangs_or_crashes_a_reader_is_one_sentence(tmp_path, text, why):
    file = tmp_path / "spec.yaml"
    file.write_text(text)
    started = time.process_time()
    with pytest.raises(InputError, match=why) as fault:
        read_yaml(file)
    assert "\n" not in str(fault.value)
    assert str(file) in str(fault.value)
    assert time.process_time() - started < 2


def test_aliases_in_number_are_read_as_before():
    text = "a: &a [1, 2]\nb: [" + ", ".join(["*a"] * (MAX_ALIASED // 3)) + "]"
    assert bounded_yaml(text)["b"] == [[1, 2]] * (MAX_ALIASED // 3)
    assert bounded_yaml("[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)) == yaml.safe_load("[" * 49 + "]" * 49)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


@given(VALUES)
def test_all_other_yaml_reads_as_before(value):
    text = yaml.safe_dump(value)
    assert bounded_yaml(text) == yaml.safe_load(text) == value


@pytest.mark.parametrize(
    "reply",
    [
        "{" + LAUGHS.replace("\n", ", ") + "question: *k, answer: x,}",
        "{q: [" + "[" * 10_000 + "}",
        "{'question': 0x" + "f" * 9000 + ", 'answer': 'no',}",
        '{"question": ' + "9" * 9000 + ', "answer": "no"}',
        "{'question': 2001-99-99, 'answer': !!timestamp x,}",
        '{"a": ' * 900 + '{"question": "Is it?", "answer": "No."}' + "}" * 900,
    ],
)
def test_a_reply_that_is_such_yaml_is_rejected_and_never_raises(reply):
    started = time.process_time()
    parsed = parse_items(reply)
    assert parsed.items or parsed.rejects
    assert time.process_time() - started < 3
