"""Phrases that deny many findings at once: what they deny, when they hold, and what outweighs them."""

import re
import time

import pytest
import yaml

from rewards.config.input_error import InputError
from rewards.reading.reading import read
from rewards.rules.rule_set import load_rule_set, read_rule_set, shipped

REPORT, CHEST, ECG = (load_rule_set(name) for name in ("chest_report", "chest_xray", "ecg_intervals"))
ACUTE = {
    "effusion",
    "pneumothorax",
    "consolidation",
    "airspace_disease",
    "infiltrate",
    "edema",
    "congestion",
    "pneumonia",
}


def polarities(text, rules=REPORT):
    return {name: finding.polarity for name, finding in read(text, rules).facts.findings.items()}


@pytest.mark.parametrize("name", [name for name in shipped() if load_rule_set(name).wording.normal])
def test_every_shipped_phrase_denies_what_it_lists_and_nothing_else(name):
    rules = load_rule_set(name)
    for phrase, denied in rules.wording.normal.items():
        for text in (f"{phrase}.", f"{phrase.upper()}", f"There is {phrase}." if phrase.startswith("no") else phrase):
            reading = read(text, rules)
            assert {n: f.polarity for n, f in reading.facts.findings.items()} == dict.fromkeys(denied, "absent"), text
            assert (reading.unread, reading.conflicts) == ((), frozenset())


@pytest.mark.parametrize(
    "text",
    [
        "No acute cardiopulmonary process.",
        "There is no acute cardiopulmonary process.",
        "No  acute\tcardiopulmonary PROCESS",
        "- No acute disease.",
        "IMPRESSION: No acute disease.",
        "CHEST 2 VIEWS: No acute disease.",
        "Heart size is normal and there is no acute process identified on this exam.",
        "Lungs are well aerated, no acute process.",
        "No acute process, however, the heart was not seen well.",
        "Compared to the prior study, no acute process.",
        "No focal abnormality; otherwise no acute disease is seen.",
    ],
)
def test_a_part_of_a_sentence_denies_the_acute_findings(text):
    assert polarities(text) == dict.fromkeys(ACUTE, "absent")


@pytest.mark.parametrize(
    "text",
    [
        "Cannot exclude no acute process.",
        "It is not true that there is no acute process.",
        "Not a normal chest.",
        f"It is not true that{' ' * 60}there is no acute process.",
        "3normal chest.",
        "Normal chests.",
        "This is hardly a normal chest.",
        "No acute process is unlikely.",
        "No acute process, not confirmed.",
        "Normal chest cannot be excluded.",
        "Normal chest?",
        "Possibly normal chest.",
        "If there is no acute process, discharge.",
        "The film does not show no acute process.",
        "Prior study: no acute process.",
        "On the previous study, no acute process.",
        "HISTORY: normal chest.",
        "No acute process in the left lung.",
        "Normal chest tube position.",
        "No acute processes of the bones.",
        "Abnormal chest.",
    ],
)
def test_a_phrase_that_is_denied_doubted_narrowed_or_of_another_time_denies_nothing(text):
    assert polarities(text) == {}


@pytest.mark.parametrize(
    ("text", "finding", "polarity"),
    [
        ("Small left effusion. No acute process otherwise.", "effusion", "present"),
        ("No acute cardiopulmonary process. Stable left effusion.", "effusion", "present"),
        ("No acute process except for a small left effusion.", "effusion", "present"),
        ("No acute process, but pneumonia cannot be excluded.", "pneumonia", "uncertain"),
        ("No acute process. Possible edema.", "edema", "uncertain"),
        ("Evaluate for pneumonia. No acute process.", "pneumonia", "absent"),
    ],
)
def test_what_is_said_of_one_finding_outweighs_what_is_said_of_all(text, finding, polarity):
    reading = read(text, REPORT)
    assert reading.facts.findings[finding].polarity == polarity
    assert reading.facts.findings["pneumothorax"].polarity == "absent"
    assert not reading.conflicts


def test_a_large_heart_or_a_nodule_is_no_acute_process():
    said = polarities("No acute cardiopulmonary process. Cardiomegaly. Nodule.", CHEST)
    assert said["cardiomegaly"] == said["nodule"] == "present"
    assert polarities("No acute cardiopulmonary process.", CHEST).keys() == {
        "consolidation",
        "effusion",
        "pneumothorax",
    }
    assert "sinus_rhythm" not in polarities("Normal ECG.", ECG)


def test_evidence_and_cue_of_a_denial_are_its_sentence_and_the_phrase():
    reading = read("Heart normal, no acute disease. No effusion.", REPORT)
    assert reading.evidence["pneumothorax"] == ["Heart normal, no acute disease."]
    assert reading.cues["pneumothorax"] == ["no acute disease"]
    assert reading.cues["effusion"] == ["no"]


def test_a_counted_finding_that_is_denied_has_the_count_zero(tmp_path):
    rules = load_rule_set("blood_smear")
    wording = rules.wording.model_copy(update={"normal": {"empty field": ["platelets"]}})
    found = read("Empty field.", rules.model_copy(update={"wording": wording})).facts.findings["platelets"]
    assert (found.polarity, found.count) == ("absent", 0)


RULES = {
    "name": "chest",
    "version": 1,
    "modality": "film",
    "findings": {"nodule": {"phrases": ["nodule"]}},
    "wording": {
        "present": ["{What}."],
        "absent": ["No {name}."],
        "uncertain": ["Possible {name}."],
        "ask_presence": ["{what}?"],
        "ask_report": ["Report."],
    },
}


@pytest.mark.parametrize(
    ("normal", "told"),
    [
        ({"all well": ["nodul"]}, "wording.normal.all well: no finding is named 'nodul'. Did you mean 'nodule'?"),
        ({"all well": []}, "'all well' denies nothing. List the findings that it denies."),
        ({" - ": ["nodule"]}, "holds no word. Give the words of the phrase."),
        ({"all well": ["nodule"], "All  Well": ["nodule"]}, "'all well' is read as 'All  Well' is. Keep one of them."),
        ({"all, well": ["nodule"]}, "'all, well' holds a stop"),
    ],
)
def test_a_faulty_phrase_is_named_with_its_line_and_cure(tmp_path, normal, told):
    path = tmp_path / "chest.yaml"
    path.write_text(yaml.safe_dump(RULES | {"wording": RULES["wording"] | {"normal": normal}}), encoding="utf-8")
    with pytest.raises(InputError) as fault:
        read_rule_set(path)
    assert told in str(fault.value)
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if text.strip() == "normal:")
    assert int(re.search(r"chest\.yaml, line (\d+): ", str(fault.value))[1]) > line


def test_a_rule_set_says_what_unsupported_claims_count_as(tmp_path):
    path = tmp_path / "chest.yaml"
    path.write_text(yaml.safe_dump(RULES | {"unsupported": "ignore"}), encoding="utf-8")
    assert (read_rule_set(path).unsupported, REPORT.unsupported) == ("ignore", "wrong")
    path.write_text(yaml.safe_dump(RULES | {"unsupported": "wrnog"}), encoding="utf-8")
    with pytest.raises(InputError, match="unsupported: got the string 'wrnog'"):
        read_rule_set(path)


def test_many_phrases_in_one_sentence_are_read_in_linear_time():
    def seconds(n):
        text = ", ".join(f"no acute disease, word{k} of {n}" for k in range(n))
        started = time.process_time()
        assert read(text, REPORT).facts.findings
        return time.process_time() - started

    seconds(10)
    small = seconds(700)
    assert seconds(5600) < 16 * max(small, 0.01)
