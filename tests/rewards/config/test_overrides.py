"""``key=value``: whatever a shell hands over is a value or one sentence that names the override."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.config.input_error import InputError
from rewards.config.overrides import key_and_value, knob_values, with_overrides, written

TRAPS = [
    "{", "[", "'", "!!bool x", "!!int x", "!!timestamp x", "!!float ''", "!!binary %", "&a [*a]", "&a {<<: *a}", "*a",
    "2001-13-45", "9" * 5000, "[" * 1000, "{a: " * 400, "0b_", "0x_", "=", "<<: 1", "{[a]: 1}", "? a", "a: b: c",
    "--- a\n--- b", "%YAML 9.9\n---\na", "\ud800", "\x00", "1:99", "2001-01-01 00:00:00 +99:99", "!!set {a}", "!<x> y",
]  # fmt: skip
SIGNS = st.text(alphabet=st.sampled_from(list("{}[]:,#&*!|>'\"%@`-?=. \n\t0123456789eE_axbo+~<\u2028\x00\x85é\ud800")))
VALUES = st.one_of(st.text(), SIGNS, st.sampled_from(TRAPS), st.builds(str.__add__, st.sampled_from(TRAPS), SIGNS))


def fault_of(override, content=None):
    with pytest.raises(InputError) as fault:
        with_overrides(content if content is not None else {}, [override])
    return str(fault.value)


@given(key=st.one_of(SIGNS, st.sampled_from(["a", "a.b", "list.0.b", "null.b", "text.b"])), value=VALUES)
def test_any_override_gives_a_value_or_one_sentence_that_names_it(key, value):
    for override in (f"{key}={value}", key, value):
        content = {"a": {"b": 1}, "list": [{"b": 1}], "null": None, "text": "x"}
        told = ""
        try:
            with_overrides(content, [override])
        except InputError as fault:
            told = str(fault)
        assert told == "" or (told.startswith("override '") and len(told.splitlines()) == 1 and len(told) < 600)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seed", "override 'seed': expected key=value, such as seed=1."),
        ("=1", "override '=1': expected a key before '=', such as seed=1."),
        ("a..b=1", "override 'a..b=1': expected a key before '='"),
        ("seed={", "override 'seed={': '{' is not readable as a YAML value"),
        ("rewards.0.weight=1", "'rewards' holds a list, which is written whole, and no further keys."),
        ("seed.x=1", "'seed' holds '3', and no further keys."),
        ("output=runs/a #1", "YAML takes '#1' for a comment. Quote the value"),
        ("x={a: 1, a: 2}", "key 'a' stands twice, in line 1"),
        ("x=" + "9" * 5000, "a number or date that cannot be"),
    ],
)
def test_what_cannot_be_is_told_with_its_cure(override, told):
    assert told in fault_of(override, {"seed": 3, "rewards": [{"name": "length"}]})


def test_a_section_that_is_null_takes_keys():
    assert with_overrides({"trainer": None}, ["trainer.seed=2"]) == {"trainer": {"seed": 2}}


def test_a_quoted_value_keeps_its_hash_and_a_value_its_equals_signs():
    assert key_and_value("output='runs/a #1'") == ("output", "runs/a #1")
    assert key_and_value("output=a=b#c") == ("output", "a=b#c")


def test_a_knob_that_is_given_twice_is_told():
    with pytest.raises(InputError, match="override 'space=grid': 'space' is given twice"):
        knob_values(["space=pixels", "space=grid"])


@given(text=VALUES)
def test_a_text_given_as_a_value_or_written_for_another_process_is_read_as_it_is(text):
    assert with_overrides({"a": {"b": 1}}, [("a.b", text)]) == {"a": {"b": text}}
    assert key_and_value(written("a.b", text)) == ("a.b", text)
    assert "\n" not in written("a.b", text)


def test_a_value_that_has_no_place_is_named():
    with pytest.raises(InputError, match=r"override 'a.b=\['x'\]': 'a' holds 'text', and no further keys"):
        with_overrides({"a": "text"}, [("a.b", ["x"])])


@pytest.mark.parametrize("broken", ["\n", "\r", "\x85", "\u2028", "\r\n"])
@pytest.mark.parametrize("value", ["own/a{}b", "own/ab{}", "'own/a{}b'", '"own/a{}b"'])
def test_a_line_break_or_control_character_in_a_text_is_told_as_yaml_would_change_it(value, broken):
    told = fault_of(f"output={value.format(broken)}")
    assert f"the value holds {broken[0]!r}, a line break or control character" in told


def test_a_line_break_that_is_written_for_yaml_stays():
    assert key_and_value('x="a\\nb"')[1] == "a\nb"
    assert key_and_value("x=|-\n  a\n  b")[1] == "a\nb"
    assert key_and_value("x=- a\n- b")[1] == ["a", "b"]
