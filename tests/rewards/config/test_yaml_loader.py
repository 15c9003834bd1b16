"""YAML without its traps: keys said twice, numbers that are strings, files in another encoding."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rewards.config.input_error import InputError
from rewards.config.strict_yaml import number_trap, read_yaml
from rewards.config.yaml_loader import ReadingError, loaded


def fault_of(path):
    with pytest.raises(InputError) as fault:
        read_yaml(path)
    assert len(str(fault.value).splitlines()) == 1
    assert str(fault.value).startswith(str(path))
    return str(fault.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seed: 1\nname: x\nseed: 2\n", "key 'seed' stands twice, in lines 1 and 3."),
        ("a:\n- {b: 1}\n- b: 1\n  c: 2\n  b: 3\n", "key 'b' stands twice, in lines 3 and 5."),
        ("a: {b: 1, 'b': 2}\n", "key 'b' stands twice, in line 1."),
        ("a: !!python/object:os.system x\n", "tags such as 'tag:yaml.org,2002:python/object:os.system' are not read"),
        ("a: !!bool x\n", "tags such as 'tag:yaml.org,2002:bool' are not read"),
        ("a: " + "[" * 3000, "nested more than 50 deep"),
        ("a: " + "9" * 5000, "a number or date that cannot be"),
        ("- a\n", "expected keys and values, got list."),
        ("", "expected keys and values, got NoneType."),
    ],
)
def test_yaml_that_cannot_be_meant_is_told(tmp_path, text, told):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert told in fault_of(path)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("a: 1\nb: {a: 1}\n", {"a": 1, "b": {"a": 1}}),
        ("a: &x {k: 1}\nb: {<<: *x, c: 2}\n", {"a": {"k": 1}, "b": {"k": 1, "c": 2}}),
        ("a: !!str 5\n1: x\n'1': y\n", {"a": "5", 1: "x", "1": "y"}),
        ("day: 2001-01-01\n", yaml.safe_load("day: 2001-01-01")),
    ],
)
def test_other_yaml_is_read_as_pyyaml_reads_it(text, content):
    assert loaded(text) == content


@given(st.text())
def test_any_text_gives_a_value_or_a_yaml_error(text):
    try:
        loaded(text)
    except yaml.YAMLError:
        return


def test_a_twice_said_key_below_an_alias_is_found():
    with pytest.raises(ReadingError, match="key 'k' stands twice"):
        loaded("a: &x {k: 1, k: 2}\nb: *x\n")


@given(
    st.from_regex(r"[-+]?([0-9]{1,3}(\.[0-9]{0,3})?|\.[0-9]{1,3})[eE][-+]?[0-9]{1,2}", fullmatch=True).filter(
        lambda text: isinstance(yaml.safe_load(text), str)
    )
)
def test_the_hint_for_a_number_that_is_a_string_is_that_number_to_yaml(text):
    hint = number_trap(text).removeprefix(" (YAML needs a dot and a sign: ").removesuffix(")")
    assert isinstance(yaml.safe_load(hint), float)
    assert yaml.safe_load(hint) == float(text)


@pytest.mark.parametrize("text", ["run-7e", "e5", ".e5", "abc", "1e", "٣e٣"])
def test_no_hint_is_given_for_other_words(text):
    assert number_trap(text) == ""


def test_a_byte_order_mark_is_read_over(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfseed: 1\n")
    assert read_yaml(path) == {"seed": 1}


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-32"])
def test_another_encoding_is_told(tmp_path, encoding):
    path = tmp_path / "x.yaml"
    path.write_bytes("größe: 1\n".encode(encoding))
    assert "Save it as UTF-8" in fault_of(path)


def test_what_is_no_file_is_told_with_its_cure(tmp_path):
    (tmp_path / "link.yaml").symlink_to(tmp_path / "gone.yaml")
    (tmp_path / "recipe.yaml").write_text("a: 1")
    assert "Did you mean 'recipe.yaml'?" in fault_of(tmp_path / "recipes.yaml")
    assert "it is a link to" in fault_of(tmp_path / "link.yaml")
    assert "it is a folder" in fault_of(tmp_path)
    assert "not a directory" in fault_of(tmp_path / "recipe.yaml" / "x.yaml")
    assert "file name too long" in fault_of(tmp_path / ("x" * 300))
    assert "null" in fault_of(tmp_path / "a\0b")


def test_a_file_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    def refused(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refused)  # tests may run as root, who may read everything
    assert "may not be read" in fault_of(tmp_path / "x.yaml")
