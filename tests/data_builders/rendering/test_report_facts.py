"""Reports as clinicians write them, read as facts: negation, doubt, synonyms, regions, and the stage."""

import pytest

from data_builders.rendering.report_facts import report_facts, stated_level
from rewards.rules.rule_set import load_rule_set

RETINA = load_rule_set("retina_amd")
CASES = [
    ("Several large drusen temporally. No retinal fluid.",
     {"drusen": "present large temporal", "retinal_fluid": "absent"}),
    ("No obvious hyper-reflective foci are seen.", {"hyperreflective_foci": "absent"}),
    ("Changes suggestive of subretinal fibrosis.", {"fibrosis": "uncertain"}),
    ("No subretinal or intraretinal fluid.", {"retinal_fluid": "absent"}),
    ("SHRM with small pockets of SRF, but no IRF.",
     {"shrm": "present", "subretinal_fluid": "present small", "intraretinal_fluid": "absent"}),
    ("A large drusenoid PED at the fovea. The drusen are confluent.",
     {"drusenoid_ped": "present large foveal", "confluent_drusen": "present"}),
    ("Fibrovascular pigment epithelial detachment cannot be excluded.", {"fibrovascular_ped": "uncertain"}),
    ("Geographic atrophy with significant hypertransmission subfoveally.",
     {"crora": "present", "hypertransmission": "present significant foveal"}),
    ("The RPE is atrophic. There is a double layer sign nasally.",
     {"rpe_atrophy": "present", "double_layer_sign": "present nasal"}),
    ("The scan is of good quality.", {}),
]  # fmt: skip


def told(finding):
    return " ".join(filter(None, [finding.polarity, finding.size, finding.side]))


@pytest.mark.parametrize(("report", "wanted"), CASES)
def test_findings_are_read_from_free_text(report, wanted):
    found = report_facts(report, RETINA).findings
    assert {name: told(finding) for name, finding in found.items()} == wanted


@pytest.mark.parametrize(
    ("eye", "region"), [("left", "nasal"), ("right", "temporal"), (None, None)]
)  # fmt: skip
def test_a_side_of_the_image_is_a_region_of_the_eye_where_the_eye_is_known(eye, region):
    facts = report_facts("Small drusen on the left side of the image.", RETINA, eye=eye)
    assert facts.findings["drusen"].side == region
    assert facts.values == ({"eye": eye} if eye else {})


def test_a_report_of_the_left_eye_puts_nothing_on_the_left():
    assert report_facts("Drusen in the left eye.", RETINA, eye="right").findings["drusen"].side is None


@pytest.mark.parametrize(
    ("report", "stage"),
    [
        ("Large drusen. In keeping with intermediate AMD.", "intermediate AMD"),
        ("Late wet AMD, active.", "active late wet AMD"),
        ("A healthy retina.", "healthy"),
        ("Early atrophy of the RPE.", None),
        ("This may be early AMD.", None),
        ("Early AMD. Intermediate AMD.", None),
        ("Drusen.", None),
    ],
)
def test_the_stage_is_read_where_one_is_stated(report, stage):
    assert report_facts(report, RETINA).values.get("stage") == stage


def test_a_rule_set_without_stages_has_none_to_read():
    assert stated_level("Early disease.", "stage", load_rule_set("chest_xray")) is None
