"""Pages of figures are what ``make evidence`` makes of the kept figures; what is kept says where it comes from."""

import json
import re
from datetime import date
from pathlib import Path

import pytest
import yaml

from docs.writers.evidence import IN_README, KEPT, ROOT, effects_page, folders, kept, made_evidence, short_table
from docs.writers.keep import keep
from docs.writers.memory import FILE, RECIPES, memory_page

LOOP = Path("recipes/loops/phantom_chest.yaml")


def test_every_page_of_figures_is_what_its_figures_make():
    stale = [str(file.relative_to(ROOT)) for file, text in made_evidence().items() if file.read_text("utf-8") != text]
    assert stale == [], "run: make evidence"


def test_a_figure_that_changes_changes_its_page_and_the_readme():
    found, made = kept(KEPT / "phantom_chest")
    other = json.loads(json.dumps(found))
    shown = next(e for e in other["effects"] if (e["before_name"], e["after_name"], e["metric"]) == IN_README[0])
    shown["change"] += 0.001
    assert effects_page(other, made) != effects_page(found, made)
    assert short_table(other, made) != short_table(found, made)


def test_beyond_chance_is_an_interval_without_zero():
    made = kept(KEPT / "phantom_chest")[1]
    effect = {
        "before_name": "a",
        "after_name": "b",
        "metric": "m",
        "before": 0.1,
        "after": 0.2,
        "change": 0.1,
        "note": "",
    }
    for low, high, beyond in [
        (0.05, 0.15, "yes"),
        (-0.15, -0.05, "yes"),
        (-0.01, 0.2, "no"),
        (0.0, 0.2, "no"),
        (None, None, ""),
    ]:
        page = effects_page({"seeds": 1, "effects": [{**effect, "low": low, "high": high}]}, made)
        assert page.rstrip().endswith(f"| {beyond} |")


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: folder.name)
def test_what_is_kept_says_by_what_and_on_what_it_was_made(folder):
    found, made = kept(folder)
    assert re.fullmatch(r"[0-9a-f]{40}", made["commit"])
    assert date.fromisoformat(made["day"])
    assert len(made["seeds"]) == found["seeds"]
    assert made["name"] == folder.name
    assert made["command"].startswith(("clinalign run recipes/", "clinalign demo recipes/"))
    assert made["machine"]
    assert {"torch", "transformers", "trl"} <= made["packages"].keys()
    assert found["effects"]
    assert not re.search(r"\"/|/home/|/root/", json.dumps([found, made]))


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: folder.name)
def test_every_page_of_kept_figures_is_in_the_contents(folder):
    assert f"evidence/{folder.name}.md" in (ROOT / "mkdocs.yml").read_text("utf-8")


def test_a_figure_of_memory_that_changes_changes_its_page():
    kept_checks = json.loads((ROOT / FILE).read_text("utf-8"))
    page = memory_page(kept_checks)
    kept_checks["checks"][0]["memory"]["zero3"]["device"] += 0.1
    assert memory_page(kept_checks) != page
    assert {check["command"].split()[2] for check in kept_checks["checks"]} == set(RECIPES)


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A folder in which the demo's loop seems to have run; its runs' provenance may be changed."""
    monkeypatch.chdir(tmp_path)
    Path("recipes").symlink_to(ROOT / "recipes")
    output = Path(yaml.safe_load(LOOP.read_text())["chain"]["output"])
    for stage in ("sft", "dpo"):
        (output / stage).mkdir(parents=True)
        provenance = {"git_commit": "a" * 40, "seed": 11, "packages": {"torch": "1"}}
        (output / stage / "provenance.json").write_text(json.dumps(provenance))
    (output / "effects.json").write_text(json.dumps({"seeds": 1, "effects": [], "output": str(tmp_path)}))
    return output


def test_a_finished_loop_is_kept_without_the_place_where_it_ran(finished, tmp_path):
    folder = keep(tmp_path / LOOP, 1, tmp_path / "kept")
    found, made = kept(folder)
    assert folder.name == "phantom_chest"
    assert found == {"seeds": 1, "effects": []}
    assert (made["commit"], made["seeds"]) == ("a" * 40, [11])
    assert made["command"] == f"clinalign run {LOOP}"
    assert str(tmp_path) not in json.dumps(made)


def test_runs_of_two_commits_are_not_kept(finished, tmp_path):
    file = finished / "dpo" / "provenance.json"
    file.write_text(file.read_text().replace("aaa", "bbb"))
    with pytest.raises(SystemExit, match="name 2 commits"):
        keep(LOOP, 1, tmp_path / "kept")


def test_a_loop_that_is_not_finished_is_not_kept(finished, tmp_path):
    with pytest.raises(
        SystemExit, match=r"effects_3_seeds.json: no such file. Run it first: clinalign run .* --seeds 3"
    ):
        keep(LOOP, 3, tmp_path / "kept")
