"""The rule sets of the user's own that rule a run: kept in its folder, and the run stands only for these."""

import json
import shutil
from importlib import resources

import pytest

from alignment.checks.read_recipe import read_recipe
from alignment.config.own_files import is_of_run
from alignment.config.recipe import Recipe
from alignment.loop.effects import effects_of
from alignment.loop.loop_file import StageComparison
from alignment.loop.steps import is_built
from alignment.pairs.write_pairs import write_pairs
from alignment.provenance.kept_rules import know_rules_of_model, rules_of_run
from alignment.reward_functions.counterparts import pool_tournament, write_counterparts
from alignment.training.provenance import is_finished, write_provenance
from data_builders.build.build_spec import BuildSpec
from data_builders.cards import read_card
from data_builders.digest import sha256
from data_builders.row_checks import open_parquet
from rewards.config.input_error import InputError
from rewards.rules import known_files
from rewards.rules.rule_set import load_rule_set, register

KEPT = "rule_sets/aldate_larynx@1.yaml"


@pytest.fixture
def rules(larynx):
    """The SHA-256 of what the set keeps, by file."""
    return {KEPT: sha256(larynx / KEPT)}


def forget(monkeypatch):
    monkeypatch.setattr(known_files, "_known", {})


def recipe(train, output, **more):
    output.mkdir(exist_ok=True)
    content = {"method": "sft", "output": str(output), "model": {"path": "tiny"}, "data": {"train": str(train)}}
    return Recipe.model_validate(content | more)


def changed(file, folder):
    """The rule set with another severity under the same id."""
    text = file.read_text(encoding="utf-8")
    assert "severity: 0.6" in text
    (folder / "changed.yaml").write_text(text.replace("severity: 0.6", "severity: 0.1"), encoding="utf-8")
    return folder / "changed.yaml"


def test_a_run_keeps_the_rule_sets_of_its_rows(larynx, rules, tmp_path):
    one = recipe(larynx / "prompt" / "train", tmp_path / "run")
    write_provenance(one, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["rules"] == rules
    assert {KEPT: sha256(tmp_path / "run" / KEPT)} == rules


def test_rows_that_no_build_wrote_name_a_rule_set_of_the_recipe(larynx, rules, tmp_path, write_recipe, monkeypatch):
    rows = shutil.copy(larynx / "prompt" / "train.parquet", tmp_path / "own.parquet")
    file = shutil.copy(larynx / KEPT, tmp_path / "ours.yaml")
    path = write_recipe("grpo", data={"train": str(rows)}, rewards=[{"name": "finding_f1"}])
    with pytest.raises(InputError, match=r"no rule set named 'aldate_larynx@1'"):
        read_recipe(path)
    one = read_recipe(path, [f"rule_sets=[{file}]"])
    forget(monkeypatch)
    assert {name: kept.sha256 for name, kept in rules_of_run(one).items()} == rules


def test_a_run_keeps_the_curriculum_in_a_file_that_it_trains_along(tmp_path):
    text = (resources.files("data_builders") / "curricula" / "ecg_measured.yaml").read_text(encoding="utf-8")
    file = tmp_path / "course.yaml"
    file.write_text(text.replace("name: ecg_measured", "name: ours"), encoding="utf-8")
    along = {"stages": [{"of": ["one"], "steps": 1}], "file": str(file)}
    one = recipe(tmp_path / "gone", tmp_path / "run", data={"train": str(tmp_path / "gone"), "curriculum": along})
    assert {name: kept.content for name, kept in rules_of_run(one).items()} == {
        "curricula/ours@1.yaml": file.read_bytes()
    }
    shipped = {**along, "file": "ecg_measured"}
    one = recipe(tmp_path / "gone", tmp_path / "run", data={"train": str(tmp_path / "gone"), "curriculum": shipped})
    assert rules_of_run(one) == {}


def test_a_run_stands_only_for_the_rules_that_it_began_with(larynx, tmp_path, monkeypatch):
    rows = shutil.copy(larynx / "prompt" / "train.parquet", tmp_path / "own.parquet")
    file, run = tmp_path / "ours.yaml", tmp_path / "run"
    shutil.copy(larynx / KEPT, file)
    one = recipe(rows, run, rule_sets=[str(file)])
    write_provenance(one, run)
    assert not is_finished(one, run)
    shutil.move(changed(file, tmp_path), file)
    for finished in (False, True):
        forget(monkeypatch)
        if finished:
            (run / "model").mkdir()
            (run / "model" / "config.json").write_text("{}")
        with pytest.raises(InputError, match=rf"{run / KEPT}: differs from {file}.* add --fresh"):
            is_finished(one, run) or write_provenance(one, run)


def test_a_set_and_a_recipe_that_differ_in_one_id_are_told_before_training(larynx, tmp_path, write_recipe):
    other = changed(larynx / KEPT, tmp_path)
    with pytest.raises(InputError, match=rf"aldate_larynx@1 is in two files that differ, {other} and {larynx / KEPT}"):
        read_recipe(write_recipe("sft", data={"train": str(larynx / "prompt" / "train")}, rule_sets=[str(other)]))


def test_pairs_of_a_run_have_their_rules_beside_them(larynx, rules, tmp_path, monkeypatch):
    sampling = {"kinds": ["look_alike"], "relevance": {"missing": "one"}}
    one = recipe(larynx / "prompt" / "train", tmp_path / "run", method="pairs", sampling=sampling)
    pairs = write_pairs(one)
    assert read_card(pairs.parent)["rules"] == rules
    forget(monkeypatch)
    open_parquet(pairs)
    assert load_rule_set("aldate_larynx").name == "aldate_larynx"


def test_a_pool_of_answers_elsewhere_has_its_rules_beside_it(larynx, tmp_path, server, monkeypatch):
    endpoint = tmp_path / "big.yaml"
    endpoint.write_text(json.dumps({"model": "big", "endpoint": server.url}))
    server.answer = lambda body: f"There is no swelling. {server.requests.index(body) % 2 * 'There is no air leak.'}"
    out = tmp_path / "elsewhere" / "pool"
    two = {"one": str(endpoint), "two": str(endpoint)}
    write_counterparts(str(larynx / "prompt" / "train"), str(out), two, tasks=["report"])
    forget(monkeypatch)
    assert pool_tournament(str(out))["rows"] == 6
    assert load_rule_set("aldate_larynx@1")


def test_a_model_brings_its_rules_where_the_rows_have_none(larynx, rules, tmp_path):
    for name, record in (("run", "provenance.json"), ("released", "evaluation.json")):
        (tmp_path / name / "rule_sets").mkdir(parents=True)
        shutil.copy(larynx / KEPT, tmp_path / name / KEPT)
        (tmp_path / name / record).write_text(json.dumps({"rules": rules}))
    know_rules_of_model(str(tmp_path / "released"))
    assert known_files.known_file("aldate_larynx@1").path == tmp_path / "released" / KEPT
    know_rules_of_model(str(tmp_path / "run"))
    know_rules_of_model("some/model")
    assert known_files.known_ids() == ["aldate_larynx@1"]


def test_a_models_rules_give_way_to_those_of_the_rows(larynx, rules, tmp_path):
    (tmp_path / "rule_sets").mkdir()
    shutil.copy(larynx / KEPT, tmp_path / KEPT)
    (tmp_path / "provenance.json").write_text(json.dumps({"rules": rules}))
    own = register(changed(larynx / KEPT, tmp_path))
    know_rules_of_model(str(tmp_path))
    assert load_rule_set("aldate_larynx@1") is own


def test_effects_know_the_rule_sets_of_evaluations_whose_data_are_gone(larynx, rules, tmp_path):
    shutil.copytree(larynx / "rule_sets", tmp_path / "rule_sets")
    (tmp_path / "evaluation.json").write_text(json.dumps({"rules": rules}))
    row = {"id": "a", "patient": "p", "task": "report", "facts": {"rule_set": "aldate_larynx@1"}, "counts": {}}
    row |= {"finding": None, "question": "", "answer": None, "boxes": [], "true_boxes": None, "unjudged": None}
    (tmp_path / "answers.jsonl").write_text(json.dumps(row | {"responses": {"clean": ""}}) + "\n")
    with pytest.raises(InputError, match=r"no metric 'sensitivity\[swellin\]' on these rows. Did you mean"):
        effects_of(
            StageComparison(before="a", after="b", metrics=["sensitivity[swellin]"]), {"a": tmp_path, "b": tmp_path}
        )


def test_a_loop_builds_anew_where_a_file_of_rules_has_changed(larynx, tmp_path, monkeypatch):
    table = tmp_path / "set"
    shutil.copytree(larynx, table)
    card, file = json.loads((table / "card.json").read_text()), tmp_path / "ours.yaml"
    shutil.copy(larynx / KEPT, file)
    card["spec"] |= {"output": str(table), "source": card["spec"]["source"] | {"rule_set": str(file)}}
    (table / "card.json").write_text(json.dumps(card))
    spec = BuildSpec.model_validate(card["spec"])
    assert is_built(spec)
    del card["spec"]["rule_sets"]  # as a version before it wrote it
    (table / "card.json").write_text(json.dumps(card))
    assert is_built(spec)
    shutil.move(changed(file, tmp_path), file)
    forget(monkeypatch)
    assert not is_built(spec)


@pytest.mark.parametrize("path", [KEPT, f"evaluation/{KEPT}", f"preference/{KEPT}", "curricula/course@1.yaml"])
def test_what_a_run_keeps_is_its_own(path):
    assert is_of_run(path)
    assert not is_of_run("rule_sets/deep/er.yaml")
    assert not is_of_run(f"mine/{KEPT}")
