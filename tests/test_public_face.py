"""What people use from Python: short lists of names, types, and READMEs whose every example runs."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("rewards", "data_builders", "alignment")
READMES = (*FLOORS, "recipes")
MODEL = '"Qwen/Qwen2.5-VL-3B-Instruct"'
"""In the READMEs; here a tiny model stands for it."""
BLOCK = re.compile(r"(<!-- slow -->\n)?```python\n(.*?)```", re.DOTALL)


def names_for_a_type_checker(floor):
    tree = ast.parse((ROOT / floor / "__init__.py").read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    return sorted(alias.name for node in guarded.body for alias in node.names)


@pytest.mark.parametrize("floor", ["rewards", "data_builders"])
def test_every_exported_name_is_there_and_a_type_checker_sees_it(floor):
    package = import_module(floor)
    assert all(hasattr(package, name) for name in package.__all__)
    assert names_for_a_type_checker(floor) == sorted(package.__all__)
    with pytest.raises(AttributeError, match=f"module '{floor}' has no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.slow
def test_every_exported_name_of_the_top_floor_is_there_and_a_type_checker_sees_it():
    package = import_module("alignment")
    assert all(hasattr(package, name) for name in package.__all__)
    assert names_for_a_type_checker("alignment") == sorted(package.__all__)


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_exports_few_names_and_its_readme_shows_each(floor):
    names, readme = import_module(floor).__all__, (ROOT / floor / "README.md").read_text()
    assert 8 <= len(names) <= 12
    assert names == sorted(names)
    assert [name for name in names if not re.search(rf"\b{name}\b", readme)] == []


def loaded_after(code):
    """Which of the heavy libraries a new process has loaded after this code."""
    heavy = ("torch", "trl", "transformers", "huggingface_hub", "numpy", "pydantic", "yaml", "PIL", "pyarrow")
    end = f"import os, sys; print(*[m for m in {heavy!r} if m in sys.modules], os.environ.get('VLLM_NO_USAGE_STATS'))"
    clean = {name: value for name, value in os.environ.items() if name != "VLLM_NO_USAGE_STATS"}
    command = [sys.executable, "-c", f"{code}\n{end}"]
    return subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_top_floor_loads_nothing_and_turns_pings_off():
    assert loaded_after("import alignment") == ["1"]


def test_all_names_of_the_lower_floors_load_no_torch():
    loaded = loaded_after("from rewards import *\nfrom data_builders import *\nread, build_data, read_rows")
    assert "pydantic" in loaded
    assert not {"torch", "trl", "transformers"} & set(loaded)


def test_the_wheel_has_every_file_of_the_packages_and_says_that_they_are_typed():
    kept = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for floor in FLOORS:
        shipped = {path for pattern in kept[floor] for path in (ROOT / floor).glob(pattern)}
        assert ROOT / floor / "py.typed" in shipped
        lying = {p for p in (ROOT / floor).rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc", ".md")}
        assert lying - shipped == set()


@pytest.mark.parametrize("folder", READMES)
def test_a_readme_is_short_opens_with_a_question_and_lists_the_rooms(folder):
    text = (ROOT / folder / "README.md").read_text()
    assert len(text.encode()) <= 8000
    assert text.split("\n")[0].startswith("# ")
    assert text.split("\n")[0].endswith("?")
    rows = [line.split("|")[1] for line in text.split("\n") if line.startswith("| `")]
    listed = {name for row in rows for cell in re.findall(r"`([^`]+)`", row) for name in re.findall(r"(\w+)/", cell)}
    there = {path.name for path in (ROOT / folder).iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert listed == there


def blocks(floor, *, slow):
    """The examples of a README, those that are marked slow or those that are not."""
    found = BLOCK.findall((ROOT / floor / "README.md").read_text())
    return [code for mark, code in found if bool(mark) == slow]


def test_no_example_of_a_readme_is_missed():
    texts = [(ROOT / folder / "README.md").read_text() for folder in READMES]
    assert [len(BLOCK.findall(text)) for text in texts] == [text.count("```") // 2 for text in texts]
    assert [len(BLOCK.findall(text)) for text in texts] == [4, 3, 3, 0]


@pytest.mark.parametrize("floor", ["rewards", "data_builders"])
def test_the_examples_of_a_readme_run(floor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in blocks(floor, slow=False):
        exec(compile(code, f"{floor}/README.md", "exec"), names)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny model that stands for a large one; being untrained, it is kept from writing placeholders of images."""
    from transformers import GenerationConfig

    from alignment.models.generation import unsampled_tokens
    from alignment.models.processors import load_processor
    from alignment.models.tiny import build_tiny

    texts = ["Is there a nodule? yes no", "Describe the radiograph: there is a small left pleural effusion."] * 3
    folder = build_tiny(texts, tmp_path_factory.mktemp("tiny") / "model", image_size=64)
    settings = GenerationConfig.from_pretrained(folder)
    settings.suppress_tokens = unsampled_tokens(load_processor(str(folder)))
    settings.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("floor", ["rewards", "alignment"])
def test_the_examples_of_a_readme_that_train_run(floor, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    names = {"__name__": "__main__"}
    for code in blocks(floor, slow=True):
        exec(compile(code.replace(MODEL, repr(str(tiny))), f"{floor}/README.md", "exec"), names)
        if "trainer" in names:
            assert names["trainer"].state.global_step == 2
