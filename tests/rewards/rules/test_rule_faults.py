"""One broken file for each fault that the validator knows: it names the fault, its line, and nothing else."""

import copy
import re
from pathlib import Path

import pytest
import yaml

from rewards.config.input_error import InputError
from rewards.config.yaml_lines import line_of
from rewards.rules.decision import Decision
from rewards.rules.faults import label_faults
from rewards.rules.rule_set import faults_of, load_rule_set, read_rule_set, shipped

FILE = yaml.safe_load(Path(__file__).with_name("broken_rules.yaml").read_text(encoding="utf-8"))
SOUND, BROKEN = FILE["sound"], FILE["broken"]


def changed(place, value):
    content = copy.deepcopy(SOUND)
    *parents, last = place
    at = content
    for part in parents:
        at = at[part] if isinstance(at, list) else at.setdefault(part, {})
    at[last] = value
    return content


def written(tmp_path, content):
    path = tmp_path / "kidney.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def test_the_sound_file_has_no_fault(tmp_path):
    assert len(read_rule_set(written(tmp_path, SOUND)).decision.tuples) == 3


@pytest.mark.parametrize("case", BROKEN, ids=[case["why"] for case in BROKEN])
def test_each_fault_is_named_with_its_line(tmp_path, case):
    path = written(tmp_path, changed(case["at"], case["becomes"]))
    with pytest.raises(InputError) as told:
        read_rule_set(path)
    lines = str(told.value).splitlines()
    assert len(lines) == case.get("faults", 1), lines
    assert any(case["want"] in line for line in lines)
    for line in lines:
        number = int(re.match(rf"{re.escape(str(path))}, line (\d+): {case['at'][0]}\.", line).group(1))
        assert number > 1
        key = line.split(": ")[1].split(".")[-1]
        if not key.isdigit():
            assert re.match(rf"\s*(- )?'?{re.escape(key)}'?:", path.read_text().splitlines()[number - 1])


def test_all_faults_are_told_at_once(tmp_path):
    content = changed(("decision", "paths", "sick", "label"), "sik")
    content["decision"]["final"] = "lable"
    content["decision"]["hint"]["test"] = ["Earlier: {ask}"]
    content["decision"]["nodes"]["label"]["answers"]["sick"]["say"]["test"] = ["They are ill."]
    with pytest.raises(InputError) as told:
        read_rule_set(written(tmp_path, content))
    assert len(str(told.value).splitlines()) == 4


def test_faults_of_shape_are_told_with_their_lines_too(tmp_path):
    path = written(tmp_path, changed(("name",), [1]) | {"versoin": 2})
    lines = path.read_text(encoding="utf-8").splitlines()
    with pytest.raises(InputError) as told:
        read_rule_set(path)
    misspelt = 1 + lines.index("versoin: 2")
    assert f"{path}, line {1 + lines.index('name:')}: name: got list [1]; input should be a valid string." in str(
        told.value
    )
    assert f"{path}, line {misspelt}: versoin: unknown key. Did you mean 'version'?" in str(told.value)


def test_a_condition_in_a_circle_is_named():
    content = changed(("decision", "nodes", "seen", "ask_if"), {"side": "left"})
    content["decision"]["paths"] = {}
    faults = [str(f) for f in faults_of_decision(content)]
    assert any("ask_if runs in a circle: seen -> side -> seen" in fault for fault in faults)


def faults_of_decision(content):
    from rewards.rules.rule_set import RuleSet

    return faults_of(RuleSet.model_validate(content))


def test_a_node_whose_condition_never_holds_is_named():
    content = changed(("decision", "nodes", "side", "ask_if"), {"seen": "stone", "label": "well"})
    content["decision"]["order"] = ["seen", "label", "side"]
    assert any("its condition never holds" in str(fault) for fault in faults_of_decision(content))


@pytest.mark.parametrize("name", shipped())
def test_shipped_rule_sets_have_no_fault(name):
    assert faults_of(load_rule_set(name)) == []


def test_labels_that_the_rules_do_not_allow_are_counted_and_named():
    marrow = load_rule_set("bone_marrow").decision
    records = [(f"r{k}", {"field": "unknown"}) for k in range(7)]
    records += [("good", {"field": "clot"}), ("odd", {"field": "clot", "blast_fraction": 0.9})]
    lines = label_faults(marrow, records)
    assert lines == [
        "7 records: node 'quality' has no answer (from field: 'unknown'). Records: r0, r1, r2, r3, r4, ..."
    ]
    crossed = Decision.model_validate(marrow.model_dump() | {"derive": {}})
    stated = {
        "quality": "low",
        "region": "blood",
        "abnormality": "normal",
        "proliferation": "myeloblasts",
        "diagnosis": "MM",
    }
    assert "1 records: no valid path: low, blood, normal, myeloblasts, MM" in label_faults(crossed, [("x", stated)])[0]


def test_a_line_is_that_of_the_key_or_of_what_stands_above_it(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: 1\nb:\n  c: [1, 2]\n  d:\n    - e: 5\n    - f: 6\n", encoding="utf-8")
    assert line_of(path, ("b", "c")) == 3
    assert line_of(path, ("b", "d", 1, "f")) == 6
    assert line_of(path, ("b", "d", 9)) == 4
    assert line_of(path, ("x",)) == 1
