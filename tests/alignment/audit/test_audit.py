import json
import subprocess
import sys

import numpy as np
import pytest
import yaml

from alignment.audit.files import _is_page, beaten_by
from alignment.audit.findings import held_out, spearman
from alignment.audit.perturbations import perturbed
from alignment.audit.run import audit
from alignment.audit.table import print_audit
from alignment.checks.read_recipe import read_recipe
from alignment.config.data_entries import parquet
from alignment.reward_functions.adapter import TrlReward
from alignment.reward_functions.sampled_rows import prompt_row, sampled_rows
from alignment.reward_functions.scorer import Scorer
from rewards.config.input_error import InputError
from rewards.loading import load_reward

SAFE = [{"name": "box_overlap"}, {"name": "factuality"}]
STATEMENTS = [{"name": "finding_f1", "tasks": ["presence", "report"]}]
"""Statements are paid where yes or no was asked: denying everything wins there."""


@pytest.fixture
def rows(data):
    return sampled_rows(parquet(str(data / "prompt/align")), limit=40, seed=0)


def audited(write_recipe, **changes):
    return audit(read_recipe(write_recipe("grpo", **changes)), name="test", limit=40)


def by_name(found):
    return {policy.name: policy for policy in found.policies}


def test_safe_rewards_withstand_every_attack(write_recipe):
    found = audited(write_recipe, rewards=SAFE)
    assert found.successful == []
    assert found.constant == []
    assert by_name(found)["honest"].by_task["report"] == pytest.approx(1)
    assert by_name(found)["honest"].by_task["box"] == pytest.approx(1)


def test_medmos_published_reward_is_caught_and_its_safe_form_is_not(write_recipe):
    published = audited(write_recipe, rewards=[{"name": "medmo_box"}])
    assert "box" in by_name(published)["every class boxed (knows the truth)"].wins
    assert by_name(published)["box spam"].total > 0.75
    assert by_name(published)["truth and box spam"].free == ("box",)
    assert "'truth and box spam' costs nothing on: box." in published.warnings
    safe = audited(write_recipe, rewards=[{"name": "medmo_box_safe"}])
    assert "every class boxed (knows the truth)" not in {p.name for p in safe.successful}
    assert by_name(safe)["truth and box spam"].free == ()


def test_a_reward_of_statements_is_caught_on_questions(write_recipe):
    wins = {p.name: p.wins for p in audited(write_recipe, rewards=STATEMENTS).successful}
    assert "presence" in wins["all findings absent"]


def test_a_reward_for_format_alone_pays_attacks_as_much_as_honesty(write_recipe):
    policies = by_name(audited(write_recipe, rewards=[{"name": "think_format"}]))
    assert policies["judge flattery"].total == policies["honest"].total == 1


def test_length_is_farmed_and_the_audit_tells(write_recipe):
    found = audited(write_recipe, rewards=[{"name": "length", "min_words": 100, "max_words": 1000}])
    assert "length farming" in {p.name for p in found.successful}
    assert "truth and filler" in {p.name for p in found.successful}


def test_a_reward_that_no_response_moves_is_named(rows):
    class Constant(TrlReward):
        def __call__(self, completions, log_metric=None, **columns):
            return [0.5] * len(completions)

    from alignment.audit.findings import audited as run

    found = run(Scorer([Constant(load_reward("length"))], [1.0]), rows, name="x")
    assert found.constant == ["length"]
    assert "teaches nothing" in found.warnings[0]


def test_rewards_fall_with_the_held_out_metrics(write_recipe):
    found = audited(write_recipe, rewards=SAFE).correlations
    assert found["box_overlap"]["box"] > 0.9
    assert found["factuality"]["report"] > 0.7
    assert found["factuality"]["box"] is None


def test_gates_are_part_of_what_is_audited(write_recipe):
    """An honest box is earned behind a gate that the format opens, and not behind one that no honest answer opens."""
    watched = [
        {"name": "think_format", "weight": 0.0},
        {"name": "length", "weight": 0.0, "min_words": 1000, "max_words": 2000},
    ]

    def earned(needs):
        gates = {"gates": [{"reward": "box_overlap", "needs": needs}]}
        found = audited(write_recipe, rewards=[{"name": "box_overlap"}, *watched], combination=gates)
        return by_name(found)["honest"].by_task["box"]

    assert earned("think_format") == pytest.approx(1)
    assert earned("length") == 0


def test_perturbed_answers_are_ever_worse(rows):
    import random

    for row in [r for r in rows if r["task"] in ("box", "report")]:
        steps = list(perturbed(prompt_row(row), random.Random(0)))
        held = [held_out(row, p.answer) for p in steps]
        assert held[0] == 1.0
        assert held[-1] < 0.9


def test_rows_are_spread_over_tasks_without_images(rows, data):
    assert {row["task"] for row in rows} == {"presence", "side", "box", "report"}
    assert "images" not in rows[0]
    assert {row["box_grid"] for row in rows} == {100}


def test_rank_correlation_knows_ties_and_constants():
    assert spearman(np.array([1.0, 2.0, np.nan, 3.0]), np.array([3.0, 2.0, 9.0, 1.0])) == -1
    assert spearman(np.array([1.0, 1.0]), np.array([1.0, 2.0])) is None


def test_a_recipe_without_rewards_is_refused(write_recipe):
    with pytest.raises(InputError, match="names no rewards"):
        audit(read_recipe(write_recipe()), name="x")


def test_the_page_is_self_contained_and_escapes_everything(write_recipe, tmp_path):
    page = tmp_path / "audit.html"
    audit(read_recipe(write_recipe("grpo")), name="<script>alert(1)</script>", limit=20, page=page)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("data:image/png;base64,") >= 5
    assert _is_page(page)  # and so a later audit may replace it


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "alignment", "audit", *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_command_prints_one_json_object_and_fails_where_an_attack_wins(write_recipe, tmp_path):
    recipe = write_recipe("grpo", rewards=STATEMENTS)
    done = command(recipe, "--rows", 20, "--json", "--out", tmp_path / "audit.html")
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert "all findings absent" in found["successful"]
    assert "'all findings absent' beats honesty and is not listed." in found["faults"]
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert page.count('class="wins"><th>') == len(found["successful"])
    assert '<tr class="wins"><th>all findings absent</th>' in page


def listing(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines) + path.read_text())
    return path


def test_attacks_are_listed_in_the_comments_at_the_head(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text(
        "# GRPO.\n# Beaten by: whole image, box spam\n# Beaten by: empty\n# Beaten by (a): says none\nx: 1\n"
    )
    assert beaten_by(file) == ("whole image", "box spam", "empty")
    assert beaten_by(file, "a") == ("says none",)
    file.write_text("x: 1\n# Beaten by: empty\n")
    assert beaten_by(file) == ()


def run_audit(path, *overrides):
    faults = print_audit(path, list(overrides), rows=40, out=path.parent / "audit.html", as_json=False)
    return [fault.removeprefix(f"{path}: ") for fault in faults]


def test_what_wins_must_be_listed_and_what_is_listed_must_win(write_recipe):
    path = write_recipe("grpo", rewards=STATEMENTS)
    told = run_audit(path)
    assert "'all findings absent' beats honesty and is not listed." in told
    won = [fault.split("'")[1] for fault in told]
    assert run_audit(listing(path, f"# Beaten by: {', '.join(won)}")) == []
    assert run_audit(listing(path, "# Beaten by: whole imag, length farming")) == [
        "'whole imag' is listed, but no attack. Did you mean 'whole image'?",
        "'length farming' is listed and beats honesty no longer.",
    ]


def test_a_recipe_without_winning_attacks_passes(write_recipe):
    assert run_audit(write_recipe("grpo", rewards=SAFE)) == []


def test_only_rows_that_are_trained_on_are_tried(write_recipe):
    path = write_recipe("grpo", rewards=STATEMENTS, data={"tasks": ["report"]})
    assert audit(read_recipe(path), name="x").num_rows.keys() == {"report"}
    assert run_audit(path) == []
    assert sum(audit(read_recipe(path, ["data.limit=3"]), name="x").num_rows.values()) == 3


def test_each_stage_of_a_loop_is_tried_with_its_own_list(write_recipe, tmp_path, data):
    recipe, sft = write_recipe("grpo", rewards=SAFE), write_recipe("sft")
    stages = [
        {"name": "sft", "recipe": sft.name},
        {"name": "safe", "recipe": recipe.name, "overrides": ["data.tasks=[report, box]"]},
        {
            "name": "open",
            "recipe": recipe.name,
            "overrides": ["rewards=[{name: length, tasks: [presence]}]", "data.tasks=[presence]"],
        },
    ]
    loop = tmp_path / "loop.yaml"
    loop.write_text(yaml.safe_dump({"chain": {"output": str(tmp_path), "data": str(data), "stages": stages}}))
    told = print_audit(loop, [], rows=40, out=tmp_path / "pages", as_json=False)
    assert told
    assert all(fault.startswith(f"{loop} (open): ") for fault in told)
    won = [fault.removeprefix(f"{loop} (open): ").split("'")[1] for fault in told]
    listing(loop, f"# Beaten by (open): {', '.join(won)}")
    assert print_audit(loop, [], rows=40, out=tmp_path / "pages", as_json=False) == []
    assert {p.parent.name for p in (tmp_path / "pages").glob("*/audit.html")} == {"safe", "open"}


def test_a_falsehood_that_earns_as_much_as_the_truth_beats_honesty(write_recipe):
    found = by_name(audited(write_recipe, rewards=[{"name": "length", "tasks": ["presence"]}]))
    assert found["polarity turned"].by_task == found["honest"].by_task == {"presence": 1.0}
    assert found["polarity turned"].wins == ("presence",)
    assert found["think stuffing"].wins == ()


def test_a_hedge_is_held_against_the_mean_of_what_it_hedges_over(write_recipe):
    """Where missed and false boxes cost nothing, two boxes for one of two places are sure of what one may miss."""
    free = {"name": "box_overlap", "false_box_weight": 0.0}
    hedge = by_name(audited(write_recipe, rewards=[free]))["two boxes for one of two places"]
    assert hedge.against == ("honest", "the other of two")
    assert hedge.by_task["box"] == pytest.approx(1.0)
    assert hedge.wins == ("box",)
    assert by_name(audited(write_recipe, rewards=SAFE))["two boxes for one of two places"].wins == ()


def test_answers_are_tried_in_the_units_that_the_recipe_says(write_recipe, data):
    told = {"train": str(data / "prompt/align"), "box_space": "0-1000"}  # the rows are on a grid of 100
    found = audit(read_recipe(write_recipe("grpo", rewards=SAFE, data=told)), name="x", limit=40)
    assert by_name(found)["honest"].by_task["box"] == pytest.approx(1.0, abs=0.02)
    assert by_name(found)["whole image"].by_task["box"] < 0.5


def test_dialogues_are_attacked_as_whole(write_recipe, marrow):
    changes = {"rewards": [{"name": "dialogue_consistency"}], "dialogue": {"max_answer_tokens": 4}}
    path = write_recipe("grpo", data={"train": str(marrow / "prompt/align")}, **changes)
    found = by_name(audit(read_recipe(path), name="x", limit=40))
    assert found["honest"].total > found["imperfect"].total > found["always normal"].total
    assert found["keyword stuffing"].total == -1.0
    assert run_audit(path) == []


def test_a_row_that_names_its_grid_is_asked_in_its_units(rows):
    row = next(row for row in rows if row["task"] == "box")
    assert prompt_row({**row, "box_grid": 1000, "image_size": [[640, 480]]}).grid == 1000
    assert prompt_row({**row, "box_grid": None, "image_size": [[640, 480]]}).grid == 480
    assert prompt_row({**row, "box_grid": None, "image_size": None}).grid == 100


@pytest.mark.slow
def test_the_command_compares_box_rewards_and_says_what_it_needs():
    done = command("--boxes", "--json")
    assert json.loads(done.stdout)["whole image"]["medmo published"] == pytest.approx(0.459, abs=1e-3)
    nothing = command()
    assert nothing.returncode == 2
    assert "name a recipe" in nothing.stderr


def pooled(data, tmp_path):
    """The align prompts with one counterpart each, which denies everything."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(data / "prompt/align.parquet")
    pool = [[{"model": "weak", "text": "No nodule. No effusion."}]] * len(table)
    out = tmp_path / "pool/align.parquet"
    out.parent.mkdir()
    pq.write_table(table.append_column("counterparts", pa.array(pool)), out)
    return str(out)


def test_a_judged_reward_is_attacked_where_rules_judge(write_recipe, data, tmp_path):
    recipe = write_recipe("grpo", rewards=[{"name": "crpo"}], data={"train": pooled(data, tmp_path)})
    found = by_name(audit(read_recipe(recipe), name="test", limit=40))
    assert found["honest"].by_task["report"] > found["empty"].by_task["report"]
    assert found["honest"].by_task["report"] > found["judge flattery"].by_task["report"]


def test_a_reward_within_groups_and_one_that_costs_are_refused(write_recipe, data, tmp_path):
    with pytest.raises(InputError, match="'round_robin' compares the responses of a group"):
        audited(write_recipe, rewards=[{"name": "round_robin"}])
    judge = {"endpoint": "http://127.0.0.1:9/v1", "model": "x"}
    recipe = write_recipe("grpo", rewards=[{"name": "crpo", "judge": judge}], data={"train": pooled(data, tmp_path)})
    with pytest.raises(InputError, match="'crpo' asks a language model at a cost"):
        audit(read_recipe(recipe), name="test", limit=4)
