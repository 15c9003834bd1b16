"""A set built under files of the user's own keeps them, lists their SHA-256, and makes its rule sets known."""

import csv
from importlib import resources

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from data_builders.build.build import build
from data_builders.build.build_spec import read_spec
from data_builders.cards import read_card
from data_builders.digest import sha256
from data_builders.own_files import own_files_of_set
from data_builders.row_checks import open_parquet
from data_builders.splits.leakage import audit_splits
from rewards.config.input_error import InputError
from rewards.rules import known_files
from rewards.rules.rule_set import load_rule_set

RULES = """\
name: aldate_larynx
version: 1
modality: laryngoscopy
findings:
  swelling: {phrases: [swelling], severity: 0.6}
wording:
  present: ["There is {what}."]
  absent: ["No {name}."]
  uncertain: ["Possible {name}."]
  ask_presence: ["Any {name}?"]
  ask_report: ["Describe the larynx."]
"""
POLICY = """\
{name: aldate_rest, version: 2, modality: laryngoscopy, staging: {scales: {rest: {levels: [
  {name: none needed}, {name: voice rest, any_of: [{swelling: present}]}]}}}}
"""
CURRICULUM = {
    "name": "aldate_course",
    "version": 1,
    "rule_set": "aldate_larynx@1",
    "stages": [
        {
            "id": "first",
            "tasks": [
                {
                    "id": "rest",
                    "capability": "referral",
                    "source": "table",
                    "guidelines": ["policy.yaml"],
                    "count": 1,
                    "asks": {"level": 1.0},
                    "instructions": "Ask.",
                }
            ],
        }
    ],
    "wording": {
        "scales": {"rest": {"ask": ["How long?"], "check": ["{level}?"], "say": ["{level}."], "deny": ["no {level}."]}}
    },
}
COLUMNS = "{means: {swollen: {Y: {swelling: present}, N: {swelling: absent}}}}"


@pytest.fixture
def clinic(tmp_path, monkeypatch):
    """A working directory with a hospital's files in it."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("rules.yaml", RULES), ("policy.yaml", POLICY), ("columns.yaml", COLUMNS)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "course.yaml").write_text(yaml.safe_dump(CURRICULUM), encoding="utf-8")
    with (tmp_path / "table.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("id", "patient", "image", "swollen"))
        for k in range(6):
            Image.new("RGB", (32, 32), (9 * k, 0, 0)).save(tmp_path / f"{k}.png")
            rows.writerow((f"v{k}", f"p{k}", f"{k}.png", "YN"[k % 2]))
    return tmp_path


def spec(folder, **changes):
    content = {
        "source": {"name": "table", "root": ".", "rule_set": "rules.yaml", "columns": "columns.yaml"},
        "output": "set",
        "splits": {"train": 0.5, "test": 0.5},
        "rows": {"instruction": ["train"], "prompt": ["test"]},
        "tasks": {"presence": 1},
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(content | changes), encoding="utf-8")
    return read_spec(folder / "spec.yaml")


def forget(monkeypatch):
    monkeypatch.setattr(known_files, "_known", {})


def test_a_set_keeps_what_its_spec_names_by_path_and_lists_it(clinic):
    folder = build(spec(clinic, rule_sets=["policy.yaml"], curriculum="course.yaml"))
    kept = {
        "rule_sets/aldate_larynx@1.yaml": "rules.yaml",
        "rule_sets/aldate_rest@2.yaml": "policy.yaml",
        "curricula/aldate_course@1.yaml": "course.yaml",
        "column_maps/columns.yaml": "columns.yaml",
    }
    assert read_card(folder)["rules"] == {name: sha256(clinic / file) for name, file in kept.items()}
    assert all((folder / name).read_bytes() == (clinic / file).read_bytes() for name, file in kept.items())
    rows = pq.read_table(folder / "instruction" / "train.parquet").to_pylist()
    assert {row["rule_set"] for row in rows} == {"aldate_larynx@1"}
    guided = {tuple(row["guidelines"]) for row in rows if row["guidelines"]}
    assert guided == {("aldate_larynx@1", "aldate_rest@2")}


def test_a_guideline_that_a_curriculum_names_by_path_is_kept_too(clinic):
    folder = build(spec(clinic, curriculum="course.yaml"))
    assert (folder / "rule_sets" / "aldate_rest@2.yaml").is_file()


def test_a_set_without_files_of_ones_own_keeps_none(tmp_path):
    source = {"name": "phantom_chest", "patients": 4, "images_per_patient": 1, "size": 64}
    named = {"source": source, "output": str(tmp_path / "set")}
    folder = build(spec(tmp_path, **named))
    assert "rules" not in read_card(folder)
    assert not (folder / "rule_sets").exists()


def test_whoever_opens_the_rows_knows_their_rule_set(clinic, monkeypatch):
    folder = build(spec(clinic))
    (clinic / "rules.yaml").unlink()
    for opened in (
        lambda: open_parquet(folder / "prompt" / "test.parquet"),
        lambda: open_parquet(clinic / "link" / "prompt" / "test.parquet"),
        lambda: audit_splits(folder),
    ):
        forget(monkeypatch)
        with pytest.raises(InputError, match="no rule set named"):
            load_rule_set("aldate_larynx@1")
        if not (clinic / "link").exists():
            (clinic / "link").symlink_to(folder)
        opened()
        assert load_rule_set("aldate_larynx@1").findings["swelling"].severity == 0.6


def test_rows_taken_out_for_leaking_find_the_rules_of_their_set(clinic, monkeypatch):
    folder = build(spec(clinic))
    (folder / "quarantine" / "prompt").mkdir(parents=True)
    (folder / "prompt" / "test.parquet").rename(folder / "quarantine" / "prompt" / "test.parquet")
    forget(monkeypatch)
    open_parquet(folder / "quarantine" / "prompt" / "test.parquet")
    assert load_rule_set("aldate_larynx").id == "aldate_larynx@1"


def test_a_kept_file_that_was_changed_is_refused_by_whoever_opens_the_rows(clinic, monkeypatch):
    folder = build(spec(clinic))
    kept = folder / "rule_sets" / "aldate_larynx@1.yaml"
    kept.write_text(RULES.replace("0.6", "0.9"), encoding="utf-8")
    forget(monkeypatch)
    with pytest.raises(InputError, match=rf"{kept}: has changed since it was kept there"):
        open_parquet(folder / "prompt" / "test.parquet")


def test_the_set_is_rebuilt_over_its_own_files_and_not_over_others(clinic):
    folder = build(spec(clinic))
    assert own_files_of_set(folder)("rule_sets/aldate_larynx@1.yaml")
    build(spec(clinic))
    (folder / "rule_sets" / "mine@1.yaml").write_text(RULES, encoding="utf-8")
    with pytest.raises(InputError, match=r"also holds rule_sets/mine@1\.yaml, which a build did not write"):
        build(spec(clinic))


def test_a_rule_set_inside_the_set_that_it_would_replace_is_refused(clinic):
    build(spec(clinic))
    again = {"name": "table", "root": ".", "rule_set": "set/rule_sets/aldate_larynx@1.yaml", "columns": "columns.yaml"}
    with pytest.raises(InputError, match=r"holds set/rule_sets/aldate_larynx@1\.yaml, which is read"):
        build(spec(clinic, source=again))


def test_a_rule_set_with_faults_is_told_with_the_line_of_the_spec_and_its_own(clinic):
    (clinic / "bad.yaml").write_text(RULES.replace("severity: 0.6", "severity: 6"), encoding="utf-8")
    with pytest.raises(InputError, match=r"spec\.yaml, line \d+: rule_sets\.0: bad\.yaml, line 5: .*severity"):
        spec(clinic, rule_sets=["bad.yaml"])


def test_a_drawn_set_may_follow_a_file_with_its_findings(tmp_path):
    text = (resources.files("rewards.rule_sets") / "chest_xray.yaml").read_text(encoding="utf-8")
    (tmp_path / "ours.yaml").write_text(text.replace("name: chest_xray", "name: ours"), encoding="utf-8")
    named = {"rule_set": str(tmp_path / "ours.yaml"), "patients": 4, "images_per_patient": 1, "size": 64}
    folder = build(spec(tmp_path, source={"name": "phantom_chest", **named}, output=str(tmp_path / "set")))
    assert read_card(folder)["rule_sets"] == ["ours@1"]
    assert (folder / "rule_sets" / "ours@1.yaml").is_file()
    (tmp_path / "few.yaml").write_text(RULES, encoding="utf-8")
    named["rule_set"] = str(tmp_path / "few.yaml")
    with pytest.raises(InputError, match=r"few.yaml' has no finding nodule, .*name one that has all five"):
        build(spec(tmp_path, source={"name": "phantom_chest", **named}, output=str(tmp_path / "set")))
