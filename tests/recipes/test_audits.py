"""What beats the rewards of shipped recipes is what their headers list: tried on a small drawing of its rows."""

from pathlib import Path

import pytest

from alignment.audit.files import audits, beaten_by
from data_builders.build.build import build
from data_builders.build.build_spec import read_spec

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = {"source.patients": 60, "source.size": 64}
AUDITED = {
    "grpo/phantom_chest.yaml": ("phantom_chest", "data.train={data}/prompt/align"),
    "grpo/phantom_marrow.yaml": ("phantom_marrow", "data.train={data}/prompt/align"),
    "grpo/phantom_marrow_no_consistency.yaml": ("phantom_marrow", "data.train={data}/prompt/align"),
    "grpo/phantom_marrow_published.yaml": ("phantom_marrow", "data.train={data}/prompt/align"),
    "loops/rewards.yaml": ("phantom_rewards", "chain.data={data}"),
    "loops/rewards_boxes.yaml": ("phantom_rewards", "chain.data={data}"),
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A function that builds a recipe's data once, small, and gives its folder."""
    folders = {}

    def draw(name):
        if name not in folders:
            out = tmp_path_factory.mktemp("data") / name
            changes = [f"{key}={value}" for key, value in {**SMALL, "output": out}.items()]
            folders[name] = build(read_spec(RECIPES / f"data/{name}.yaml", changes))
        return folders[name]

    return draw


@pytest.mark.slow
@pytest.mark.parametrize("name", AUDITED)
def test_a_shipped_recipe_is_beaten_by_what_its_header_lists(name, drawn, tmp_path):
    data, override = AUDITED[name]
    found = list(audits(RECIPES / name, [override.format(data=drawn(data))], limit=200, out=tmp_path / "audit.html"))
    assert found
    assert {audit.recipe: audit.faults for audit, _ in found if audit.faults} == {}


def test_published_forms_that_are_gamed_say_so():
    assert "two boxes for one of two places" in beaten_by(RECIPES / "loops/rewards_boxes.yaml", "box_published")
