"""A source is one file, found by its name, with its licence."""

import json

import pytest
import yaml

from data_builders.build.build import build
from data_builders.build.build_spec import read_spec
from data_builders.sources import drawn
from data_builders.sources.source import sources
from rewards.config.input_error import InputError

FILE = '''
"""Grey squares."""
from PIL import Image
from data_builders.schema import Sample
from rewards.rules.facts import Facts, Finding

LICENCE = "ours"


def squares(*, patients: int = 3, grey: int = 128):
    for n in range(patients):
        facts = Facts(rule_set="chest_xray@1", findings={"effusion": Finding(polarity="absent")})
        yield Sample(id=f"s{n}", patient=f"p{n}", study=f"t{n}", image=Image.new("L", (64, 64), grey + n), facts=facts)
'''
SPEC = {
    "source": {"name": "squares", "patients": 4}, "output": "", "splits": {"test": 1.0},
    "rows": {"prompt": ["test"]}, "tasks": {"presence": 1},
}  # fmt: skip


@pytest.fixture
def one_file(tmp_path, monkeypatch):
    (tmp_path / "more").mkdir()
    (tmp_path / "more/squares.py").write_text(FILE)
    monkeypatch.setattr(drawn, "__path__", [*drawn.__path__, str(tmp_path / "more")])
    sources.cache_clear()
    yield
    sources.cache_clear()


def spec_of(tmp_path, **source):
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(SPEC | {"output": str(tmp_path / "set"), "source": SPEC["source"] | source}))
    return path


@pytest.mark.usefixtures("one_file")
def test_a_file_with_a_licence_is_a_source(tmp_path):
    card = json.loads((build(read_spec(spec_of(tmp_path), [])) / "card.json").read_text())
    assert card["licence"] == "ours"
    assert card["counts"] == {"prompt": {"test": {"presence": 4}}}


@pytest.mark.usefixtures("one_file")
def test_its_parameters_are_keys_of_the_spec(tmp_path):
    with pytest.raises(InputError, match=r"'squares': patient: unknown key. Did you mean 'patients'"):
        read_spec(spec_of(tmp_path, patient=3), [])


def test_every_source_says_its_licence():
    assert len(sources()) == 13
    assert all(len(module.LICENCE) > 5 and callable(getattr(module, name)) for name, module in sources().items())


def test_a_name_that_is_none_gets_the_nearest(tmp_path):
    with pytest.raises(InputError, match=r"no source named 'phantom_chst'\. Did you mean 'phantom_chest'"):
        read_spec(spec_of(tmp_path, name="phantom_chst"), [])
