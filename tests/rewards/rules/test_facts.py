"""Facts: what is not known leaves no trace in their JSON, and what cannot be is refused by name."""

import json

import pytest
from pydantic import ValidationError

from rewards.row_types import row_faults
from rewards.rules.facts import Change, Facts, Finding, Measurement

ALL = {
    "rule_set": "chest_xray@1",
    "findings": {
        "effusion": {
            "polarity": "present",
            "sides": {"left": "present", "right": "absent"},
            "places": ["left costophrenic angle"],
            "attributes": {"loculated": True},
        }
    },
    "changes": [{"finding": "effusion", "place": "left costophrenic angle", "to": "worsened"}],
    "measurements": {"cardiothoracic_ratio": {"value": 0.48, "unit": "1", "tolerance": 0.02, "place": "heart"}},
}


def with_part(path, value):
    """The facts with another value under a path such as ``measurements.X.value``."""
    told = json.loads(json.dumps(ALL))
    at = told
    *parents, last = path.split(".")
    for key in parents:
        at = at[int(key) if isinstance(at, list) else key]
    at[last] = value
    return told


def test_facts_without_the_new_parts_are_written_as_ever():
    finding = Finding(polarity="present", side="left", size="small", count=2, boxes=((1, 2, 3, 4),))
    facts = Facts(rule_set="chest_xray@1", findings={"nodule": finding}, values={"age": 60})
    assert facts.to_json() == (
        '{"rule_set":"chest_xray@1","findings":{"nodule":{"polarity":"present","side":"left","size":"small","count":2,'
        '"boxes":[[1.0,2.0,3.0,4.0]]}},"values":{"age":60}}'
    )


def test_every_part_is_read_and_written():
    facts = Facts.told(json.dumps(ALL))
    assert facts.findings["effusion"].sides == {"left": "present", "right": "absent"}
    assert facts.findings["effusion"].places == ("left costophrenic angle",)
    assert facts.changes == (Change(finding="effusion", place="left costophrenic angle", to="worsened"),)
    ratio = Measurement(value=0.48, unit="1", tolerance=0.02, place="heart")
    assert facts.measurements == {"cardiothoracic_ratio": ratio}
    assert json.loads(facts.to_json()) == ALL
    assert Facts.told(facts.to_json()) == facts


@pytest.mark.parametrize("part", ["changes", "measurements", "findings.effusion.sides", "findings.effusion.places"])
def test_null_says_that_nothing_is_known_and_is_not_written(part):
    facts = Facts.told(json.dumps(with_part(part, None)))
    assert part.rpartition(".")[2] not in facts.to_json()


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("findings.effusion.sides.left", "yes", "findings.effusion.sides.left: Input should be 'present'"),
        ("findings.effusion.sides.both", "present", "findings.effusion.sides.both.[key]: Input should be 'left'"),
        ("findings.effusion.places", "heart", "findings.effusion.places: Input should be a valid"),
        ("changes.0.to", "better", "changes.0.to: Input should be 'appeared', 'resolved'"),
        ("changes.0.from", "new", "changes.0.from: Extra inputs are not permitted"),
        ("measurements.cardiothoracic_ratio.tolerance", -0.1, "tolerance: Input should be greater than or equal to 0"),
        ("measurements.cardiothoracic_ratio.value", "0.48", "value: Input should be a valid number"),
        ("measurements.cardiothoracic_ratio.value", float("nan"), "value: Input should be a finite number"),
        ("changes.0.finding", "effusoin", "has no finding 'effusoin'. Did you mean 'effusion'?"),
    ],
)
def test_what_cannot_be_is_one_fault_of_its_row(path, value, told):
    [fault] = row_faults({"facts": json.dumps(with_part(path, value))})
    assert fault.startswith("'facts': ")
    assert told in fault


def test_an_unknown_direction_is_refused_in_python_too():
    with pytest.raises(ValidationError, match="appeared"):
        Change(finding="effusion", to="better")
