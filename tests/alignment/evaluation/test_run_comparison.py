import json
from dataclasses import replace

import pytest

from alignment.evaluation.answer_files import write_answers
from alignment.evaluation.evaluation_file import Evaluation
from alignment.evaluation.report import write_report
from alignment.evaluation.run_comparison import compared, mcnemar_tables
from alignment.metrics.intervals import summarise
from alignment.metrics.outcomes import score_answers
from rewards.config.input_error import InputError
from tests.alignment.metrics.test_capability_outcomes import STAGE, STAGES, row_of
from tests.alignment.metrics.test_metrics import LEFT_NODULE, row

ROWS = [row_of(stage, n=n) for n, stage in enumerate(STAGES * 4)]


def evaluated(folder, answers: list[str], *, rows=ROWS, data: str = "abc"):
    folder.mkdir(parents=True)
    outcomes = score_answers(rows, answers)
    Evaluation(
        model=folder.name, data="data/oct", data_sha256=data, data_card=None, num_rows=len(rows), num_patients=7,
        seed=0, max_new_tokens={}, versions={}, metrics={"clean": summarise(outcomes, num_resamples=20)},
    ).write(folder)  # fmt: skip
    write_answers({"clean": (rows, answers)}, outcomes, folder, rules=None)
    return folder


def test_two_runs_are_compared_on_the_same_rows(tmp_path):
    before = evaluated(tmp_path / "before", ["Healthy."] * len(ROWS))
    after = evaluated(tmp_path / "after", [f"The stage is {stage}." for stage in STAGES * 4])
    found = compared(before, after, num_resamples=100)
    change = found["differences"][f"micro_f1[{STAGE}]"]
    assert change["value"] == pytest.approx(5 / 6)
    assert change["low"] > 0.4
    assert found["of_one_alone"] == []
    assert found["mcnemar"][STAGE] == {"only_before": 0, "only_after": 20, "p": pytest.approx(2 / 2**20)}


def test_a_metric_that_only_one_run_has_is_named(tmp_path):
    rows = [row("report", "Report?", nodule=LEFT_NODULE) | {"images": []}]
    silent = evaluated(tmp_path / "silent", ["No nodule."], rows=rows)
    claims = evaluated(tmp_path / "claims", ["There is a nodule."], rows=rows)
    found = compared(silent, claims, num_resamples=10)
    of_claims = ["finding_precision", "hallucination_rate", "severe_hallucination_rate"]  # nothing is claimed
    of_claims += ["severity_hallucination_rate", "unsupported_rate"]
    assert found["of_one_alone"] == of_claims
    assert not set(of_claims) & found["differences"].keys()


def test_runs_on_other_rows_are_refused(tmp_path):
    before = evaluated(tmp_path / "before", ["Healthy."] * len(ROWS))
    fewer = evaluated(tmp_path / "fewer", ["Healthy."] * 5, rows=ROWS[:5])
    other = evaluated(tmp_path / "other", ["Healthy."] * len(ROWS), data="xyz")
    for after in (fewer, other):
        with pytest.raises(InputError, match="answered other rows"):
            compared(before, after)
    with pytest.raises(InputError, match="no such file"):
        compared(tmp_path / "none", before)


def test_the_page_shows_the_test_the_confusion_and_the_metrics_by_capability(tmp_path):
    before = evaluated(tmp_path / "before", ["<b>Nothing</b>"] * len(ROWS))
    after = evaluated(tmp_path / "after", [f"{stage}." for stage in STAGES * 4])
    page = write_report({"before": before, "after": after}, tmp_path / "report.html").read_text(encoding="utf-8")
    for shown in (f"weighted_kappa[{STAGE}]", "invalid_rate", "McNemar", "Which answer for which", "<th>invalid</th>"):
        assert shown in page
    assert "lower is better" in page
    assert "<b>Nothing</b>" not in page


def test_models_are_tested_each_against_the_one_before():
    lines = [
        {"id": str(n), "counts": {f"said[{STAGE} | healthy | {said}]": 1.0}}
        for n, said in enumerate(["healthy", "early AMD"])
    ]
    swapped = [replace_counts(lines[0], lines[1]), replace_counts(lines[1], lines[0])]
    tables = mcnemar_tables({"a": lines, "b": swapped, "c": swapped[:1]})
    assert [(t["before"], t["after"], t["only_before"], t["only_after"]) for t in tables] == [
        ("a", "b", 1, 1),
        ("b", "c", 0, 0),
    ]


def replace_counts(line: dict, other: dict) -> dict:
    return {**line, "counts": other["counts"]}


def test_answers_keep_what_the_comparison_reads(tmp_path):
    folder = evaluated(tmp_path / "run", ["Healthy."] * len(ROWS))
    line = json.loads((folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert {"capability", "guidelines", "provenance"} <= line.keys()
    assert replace(Evaluation.read(folder), model="x").data_sha256 == "abc"
