"""Win rates between the reports of stages, from files of answers as evaluations leave them."""

import json

import pytest

from alignment.evaluation.contests import contests
from alignment.loop.effects import effects_of
from alignment.loop.loop_file import StageComparison
from alignment.metrics.intervals import summarise

FACTS = {"rule_set": "chest_xray@1", "findings": {"nodule": {"polarity": "present", "side": "left"}}}
RIGHT, WRONG = "There is a nodule on the left.", "No nodule."


def stage(folder, said, task="report"):
    """A stage's evaluation folder: one row a text, one patient a row."""
    folder.mkdir()
    lines = [
        {"id": f"r{k}", "patient": f"p{k}", "task": task, "finding": None, "question": "Report?", "answer": RIGHT,
         "true_boxes": None, "facts": FACTS, "responses": {"clean": text}}
        for k, text in enumerate(said)
    ]  # fmt: skip
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "evaluation.json").write_text(json.dumps({"metrics": {"clean": {}}}))
    return folder


def rate(own, *others):
    found = summarise(contests((own, "clean"), [(other, "clean") for other in others]), num_resamples=20)
    return found["win_rate"].value


def test_a_stage_ties_with_itself_and_what_one_wins_the_other_loses(tmp_path):
    mixed, right = stage(tmp_path / "a", [RIGHT, WRONG]), stage(tmp_path / "b", [RIGHT, RIGHT])
    assert rate(right, right) == 0.5
    assert rate(right, mixed) > 0.5
    assert rate(right, mixed) + rate(mixed, right) == pytest.approx(1.0)


def test_the_rate_is_a_mean_over_opponents(tmp_path):
    right, wrong = stage(tmp_path / "a", [RIGHT]), stage(tmp_path / "b", [WRONG])
    assert rate(right, right, wrong) == pytest.approx((0.5 + rate(right, wrong)) / 2)


def test_only_reports_that_all_wrote_are_judged(tmp_path):
    both, one = stage(tmp_path / "a", [RIGHT, RIGHT]), stage(tmp_path / "b", [RIGHT])
    assert len(contests((both, "clean"), [(one, "clean")])) == 1
    boxes = stage(tmp_path / "c", [RIGHT], task="presence")
    assert contests((boxes, "clean"), [(one, "clean")]) == []
    assert contests((both, "clean"), []) == []


def test_a_comparison_with_opponents_reports_a_paired_win_rate(tmp_path):
    folders = {
        "before": stage(tmp_path / "a", [WRONG] * 4),
        "after": stage(tmp_path / "b", [RIGHT] * 4),
        "held": stage(tmp_path / "c", [WRONG, RIGHT] * 2),
    }
    comparison = StageComparison(before="before", after="after", metrics=["win_rate"], opponents=["held"])
    [effect] = effects_of(comparison, folders)
    assert effect.metric == "win_rate"
    assert effect.change == pytest.approx(effect.after - effect.before)
    assert effect.change > 0
    assert effect.low > 0
