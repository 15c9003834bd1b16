"""Curricula as data: what ships, and every fault of a file at once."""

import copy

import pytest
import yaml

from data_builders.curriculum.curriculum import load_curriculum, shipped_curricula
from rewards.config.input_error import InputError

PUBLISHED = {
    "advanced_biomarkers": 30, "specific_questions": 15, "general_questions": 15, "staging_introduction": 20,
    "staging_logic": 20, "referral_reasoning": 25, "report_writing": 15, "full_report_writing": 20,
    "staging_accuracy_reasons": 40, "staging_accuracy": 30,
}  # fmt: skip
SOUND = {
    "name": "kidney",
    "version": 1,
    "rule_set": "retina_amd@1",
    "stages": [
        {
            "id": "first",
            "tasks": [
                {
                    "id": "staging",
                    "capability": "staging",
                    "source": "table",
                    "guidelines": ["retina_referral@2"],
                    "count": 4,
                    "asks": {"level": 1.0},
                    "scales": ["referral"],
                    "instructions": "Ask.",
                }
            ],
        }
    ],
    "wording": {
        "scales": {
            "referral": {"ask": ["How soon?"], "check": ["{level}?"], "say": ["{level}."], "deny": ["no {level}."]}
        }
    },
}
TASK = ("stages", 0, "tasks", 0)


def written(tmp_path, *changes):
    content = copy.deepcopy(SOUND)
    for place, value in changes:
        *parents, last = place
        at = content
        for part in parents:
            at = at[part]
        at[last] = value
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", shipped_curricula())
def test_every_shipped_curriculum_is_sound(name):
    assert load_curriculum(name).name == name


def test_the_published_curriculum_has_its_stages_tasks_and_counts():
    curriculum = load_curriculum("retina_vlm")
    assert [len(stage.tasks) for stage in curriculum.stages] == [1, 10]
    assert {name: curriculum.tasks[name].count for name in PUBLISHED} == PUBLISHED
    assert sum(task.count for task in curriculum.tasks.values() if task.source == "report") == 230
    assert [n for n, task in curriculum.tasks.items() if "stage" in task.needs] == [
        "staging_accuracy_reasons",
        "staging_accuracy",
    ]
    without_stage = sum(task.count for task in curriculum.tasks.values() if task.source == "report" and not task.needs)
    assert without_stage == 160


def test_sections_give_items_their_style():
    task = load_curriculum("retina_vlm").tasks["staging_accuracy_reasons"]
    assert [task.style_of(n) for n in (1, 30, 31, 40)] == ["conclusion_first"] * 2 + ["evidence_first"] * 2


def test_a_task_names_the_guidelines_that_its_answers_follow():
    curriculum = load_curriculum("retina_vlm")
    assert curriculum.guidelines_of(curriculum.tasks["referral_reasoning"]) == ("retina_amd@1", "retina_referral@1")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([((*TASK, "guidelines"), ["retina_referral@7"])], "no rule set named 'retina_referral@7'. Did you mean"),
        ([((*TASK, "guidelines"), ["retina_referral"])], "names no version"),
        ([((*TASK, "scales"), ["referal"])], "no scale named 'referal'. Did you mean 'referral'?"),
        ([((*TASK, "after"), ["stagin"])], "no task named 'stagin'. Did you mean 'staging'?"),
        ([((*TASK, "after"), ["staging"])], "comes after 'staging', which is not before it"),
        ([((*TASK, "sections"), [{"first": 1, "last": 3, "style": "short"}])], "each item from 1 to 4 once"),
        ([((*TASK, "asks"), {"presence": 1.0})], "needs wording.absence"),
        ([((*TASK, "asks"), {"segment": 1.0})], "needs segments"),
        ([((*TASK, "asks"), {"measure": 1.0})], "needs measurements"),
        ([((*TASK, "asks"), {"not_more": 1.0})], "needs wording.scales.referral.not_more"),
        ([((*TASK, "findings"), ["drussen"])], "no finding named 'drussen'. Did you mean 'drusen'?"),
        ([(("wording", "scales", "referral", "say"), ["It is {stage}."])], "'It is {stage}.': expected {level}"),
        ([(("wording", "scales", "referral", "say"), ["It is {level"])], "expected {level}"),
        ([(("segments",), {"a": ["fluids"]})], "no finding named 'fluids'"),
        ([(("rule_set",), "retina@1")], "no rule set named 'retina@1'"),
        ([((*TASK, "cout"), 4)], "unknown key. Did you mean 'count'?"),
        ([((*TASK, "count"), 0)], "greater than or equal to 1"),
    ],
)
def test_each_fault_is_named_with_its_cure(tmp_path, changes, told):
    with pytest.raises(InputError) as raised:
        load_curriculum(written(tmp_path, *changes))
    assert told in str(raised.value)


def test_all_faults_are_told_at_once_each_with_its_line(tmp_path):
    path = written(tmp_path, ((*TASK, "after"), ["stagin"]), ((*TASK, "scales"), ["referal"]))
    with pytest.raises(InputError) as raised:
        load_curriculum(path)
    lines = str(raised.value).splitlines()
    assert len(lines) == 2
    assert all(int(line.removeprefix(f"{path}, line ").split(":")[0]) > 5 for line in lines)


def test_two_tasks_have_two_ids(tmp_path):
    twice = [{"id": "first", "tasks": SOUND["stages"][0]["tasks"] * 2}]
    with pytest.raises(InputError, match="two tasks have the id 'staging'"):
        load_curriculum(written(tmp_path, (("stages",), twice)))


def test_a_curriculum_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"no curriculum named 'retina_vml'. Did you mean 'retina_vlm'"):
        load_curriculum("retina_vml")
