import pytest

from rewards.reading.reading import read
from rewards.rules.rule_set import load_rule_set

RULES = load_rule_set("chest_xray")


@pytest.mark.parametrize(
    ("text", "finding", "polarity"),
    [
        ("No evidence of effusion.", "effusion", "absent"),
        ("Without nodule.", "nodule", "absent"),
        ("No nodule, effusion, or consolidation.", "consolidation", "absent"),
        ("No nodule or pleural effusion.", "effusion", "absent"),
        ("The pneumothorax has resolved.", "pneumothorax", "absent"),
        ("Pleural effusion is absent.", "effusion", "absent"),
        ("Effusions are not seen.", "effusion", "absent"),
        ("Pneumothorax cannot be excluded.", "pneumothorax", "uncertain"),
        ("Possible nodule on the left.", "nodule", "uncertain"),
        ("Nodule?", "nodule", "uncertain"),
        ("No effusion but a nodule.", "nodule", "present"),
        ("No effusion; small nodule.", "nodule", "present"),
        ("Scarring rather than consolidation.", "consolidation", "absent"),
        ("Left pleural effusion.", "effusion", "present"),
        ("PLEURAL EFFUSION ON THE LEFT", "effusion", "present"),
    ],
)
def test_polarity(text, finding, polarity):
    assert read(text, RULES).facts.findings[finding].polarity == polarity


def test_a_negation_ends_with_its_sentence():
    facts = read("No effusion. Nodule on the left.", RULES).facts
    assert facts.findings["effusion"].polarity == "absent"
    assert facts.findings["nodule"].side == "left"


def test_words_inside_other_words_are_not_read():
    assert read("nodules? micronodules, effusional", RULES).facts.findings.keys() == {"nodule"}


def test_two_sides_and_two_polarities_are_conflicts():
    assert read("Nodule on the left. Nodule on the right.", RULES).conflicts == {"nodule"}
    assert read("Nodule. No nodule.", RULES).conflicts == {"nodule"}


def test_unread_sentences_and_evidence_are_kept():
    reading = read("Nodule on the left. The sky is blue.", RULES)
    assert reading.unread == ("The sky is blue.",)
    assert reading.evidence["nodule"] == ["Nodule on the left."]


def test_a_box_belongs_to_the_finding_named_before_it():
    facts = read("nodule [[12,34,56,78]] effusion [[1,2,3,4],[5,6,7,8]]", RULES).facts
    assert facts.findings["nodule"].boxes == ((12, 34, 56, 78),)
    assert len(facts.findings["effusion"].boxes) == 2


def test_counts_are_read():
    smear = load_rule_set("blood_smear")
    facts = read("12 red cells. No platelets. One white cell.", smear).facts
    assert facts.findings["red_cells"].count == 12
    assert facts.findings["platelets"].polarity == "absent"
    assert facts.findings["white_cells"].count == 1


def test_a_rule_set_without_findings_reads_none():
    reading = read("A nodule. Blasts.", load_rule_set("bone_marrow"))
    assert (reading.facts.findings, reading.unread) == ({}, ("A nodule.", "Blasts."))
