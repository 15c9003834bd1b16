"""Guidelines at work: stages and referral of the retinal rule sets, contradictions, levels read from words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.config.input_error import InputError
from rewards.rules.facts import Facts, Finding
from rewards.rules.guidelines import Contradictory, read_level, together, worked_out
from rewards.rules.rule_set import load_rule_set, read_rule_set, shipped

RETINA = load_rule_set("retina_amd@1")
BUILD, TEST = ("retina_amd@1", "retina_referral@1"), ("retina_amd@1", "retina_referral@2")
STAGES = RETINA.staging.scales["stage"].names
HEALTHY, EARLY, INTERMEDIATE, DRY, INACTIVE, ACTIVE = STAGES
IMPLIED = ("rpe_elevation", "rpe_atrophy", "retinal_fluid", "ped", "drusen", "hypertransmission")
DIRECT = [name for name in RETINA.findings if name not in IMPLIED]


def there(**attributes):
    return Finding(polarity="present", **attributes)


ABSENT = Finding(polarity="absent")


def facts(findings, values=None, *, rest_absent=True):
    """The findings, and all others that nothing implies as absent."""
    worked = worked_out(Facts(rule_set=RETINA.id, findings=findings), BUILD, policy="repair").facts.findings
    rest = {name: ABSENT for name in RETINA.findings if name not in worked} if rest_absent else {}
    return Facts(rule_set=RETINA.id, findings={**findings, **rest}, values=values or {})


def words(findings, guidelines=BUILD, **options):
    scales = worked_out(facts(findings, **options), guidelines).scales
    return scales["stage"].words, scales["referral"].words


NONE, ROUTINE, URGENT = "no referral", "routine referral", "urgent referral"
KNOWN = [
    ({}, HEALTHY, NONE, NONE),
    ({"drusen": there(size="small")}, EARLY, NONE, ROUTINE),
    ({"drusen": there(size="medium")}, EARLY, NONE, ROUTINE),
    ({"drusen": there()}, f"at least {EARLY}", NONE, ROUTINE),
    ({"drusen": there(size="large")}, INTERMEDIATE, NONE, ROUTINE),
    ({"drusen": there(size="medium"), "confluent_drusen": there()}, INTERMEDIATE, NONE, ROUTINE),
    ({"confluent_drusen": there(size="large")}, INTERMEDIATE, NONE, ROUTINE),
    ({"confluent_drusen": there(size="small")}, EARLY, NONE, ROUTINE),
    ({"hyperreflective_foci": there()}, EARLY, NONE, ROUTINE),
    ({"serous_ped": there()}, INTERMEDIATE, NONE, ROUTINE),
    ({"drusenoid_ped": there(size="large")}, INTERMEDIATE, NONE, ROUTINE),
    ({"rpe_degeneration": there()}, INTERMEDIATE, NONE, ROUTINE),
    ({"rpe_atrophy": there()}, INTERMEDIATE, NONE, ROUTINE),
    ({"rpe_elevation": there(size="small")}, HEALTHY, NONE, ROUTINE),
    ({"rpe_elevation": there(size="large")}, INTERMEDIATE, NONE, ROUTINE),
    ({"sire": there()}, INTERMEDIATE, NONE, ROUTINE),
    ({"irora": there()}, INTERMEDIATE, NONE, ROUTINE),
    ({"vitreomacular_traction": there()}, INTERMEDIATE, NONE, ROUTINE),
    ({"crora": there()}, DRY, ROUTINE, ROUTINE),
    ({"irora": there(), "crora": there()}, DRY, ROUTINE, ROUTINE),
    ({"hypertransmission": there(size="significant"), "irora": ABSENT}, DRY, ROUTINE, ROUTINE),
    ({"retinal_thinning": there()}, DRY, ROUTINE, ROUTINE),
    ({"shrm": there()}, INACTIVE, ROUTINE, ROUTINE),
    ({"fibrosis": there()}, INACTIVE, ROUTINE, ROUTINE),
    ({"fibrovascular_ped": there()}, INACTIVE, ROUTINE, ROUTINE),
    ({"double_layer_sign": there()}, INACTIVE, ROUTINE, ROUTINE),
    ({"fibrosis": there(), "crora": there()}, INACTIVE, ROUTINE, ROUTINE),
    ({"subretinal_fluid": there(size="small")}, ACTIVE, URGENT, URGENT),
    ({"intraretinal_fluid": there(size="large")}, ACTIVE, URGENT, URGENT),
    ({"shrm": there(), "subretinal_fluid": there()}, ACTIVE, URGENT, URGENT),
    ({"intraretinal_fluid": there(), "vitreomacular_traction": there()}, ACTIVE, ROUTINE, URGENT),
    ({"intraretinal_fluid": there(), "vitreomacular_traction": there(), "shrm": there()}, ACTIVE, URGENT, URGENT),
    ({"crora": there(), "subretinal_fluid": there()}, ACTIVE, URGENT, URGENT),
    ({"other_pathology": there()}, HEALTHY, NONE, NONE),
]  # fmt: skip
PARTLY_KNOWN = [
    ({}, f"at least {HEALTHY}"),
    ({"drusen": there(size="large")}, f"at least {INTERMEDIATE}"),
    ({"ped": there(), "retinal_fluid": ABSENT}, f"at least {INTERMEDIATE}"),
    ({"hypertransmission": there()}, f"at least {INTERMEDIATE}"),
    ({"fibrosis": there()}, f"at least {INACTIVE}"),
    ({"fibrosis": there(), "retinal_fluid": ABSENT}, INACTIVE),
    ({"subretinal_fluid": there()}, ACTIVE),
    ({"retinal_fluid": there()}, ACTIVE),
]


@pytest.mark.parametrize(("findings", "stage", "build", "test"), KNOWN)
def test_stage_and_both_referral_policies(findings, stage, build, test):
    assert words(findings) == (stage, build)
    assert words(findings, TEST) == (stage, test)


@pytest.mark.parametrize(("findings", "stage"), PARTLY_KNOWN)
def test_what_is_missing_is_not_absent(findings, stage):
    assert words(findings, rest_absent=False)[0] == stage


def test_only_a_progressing_intermediate_disease_is_referred_by_the_first_policy():
    large = {"drusen": there(size="large")}
    assert words(large, values={"course": "progressing"})[1] == ROUTINE
    assert words(large, values={"course": "stable"})[1] == NONE


def test_fluid_whose_cause_is_not_known_is_urgent():
    assert words({"intraretinal_fluid": there()}, rest_absent=False)[1] == URGENT


@given(st.sets(st.sampled_from(DIRECT)), st.sampled_from(DIRECT), st.sampled_from([BUILD, TEST]))
@settings(deadline=None)
def test_one_more_finding_never_lowers_the_stage(names, more, guidelines):
    before, after = (
        worked_out(Facts(rule_set=RETINA.id, findings=dict.fromkeys(found, there())), guidelines).scales["stage"]
        for found in (names, names | {more})
    )
    assert STAGES.index(after.level) >= STAGES.index(before.level)


@given(st.dictionaries(st.sampled_from(DIRECT), st.sampled_from([there(), ABSENT])), st.sampled_from(DIRECT))
@settings(deadline=None)
def test_what_becomes_known_stays_within_what_was_possible(findings, name):
    if name in findings:
        return
    before = worked_out(Facts(rule_set=RETINA.id, findings=findings), BUILD, policy="repair").scales["stage"]
    for told in (there(), ABSENT):
        all_told = Facts(rule_set=RETINA.id, findings={**findings, name: told})
        after = worked_out(all_told, BUILD, policy="repair").scales["stage"]
        assert after.level in (before.level, *before.could_be)


CONTRADICTIONS = [
    ({"shrm": Finding(polarity="absent", side="foveal")}, "absent with a side", ("shrm", "present")),
    ({"subretinal_fluid": Finding(polarity="absent", size="large")}, "with a size", ("subretinal_fluid", "present")),
    ({"drusen": Finding(polarity="absent", side="nasal")}, "absent with a side", ("drusen", "present")),
    ({"drusen": there(), "rpe_elevation": ABSENT}, "drusen without elevation", ("rpe_elevation", "present")),
    ({"serous_ped": there(), "rpe_elevation": ABSENT}, "PED without elevation", ("rpe_elevation", "present")),
    ({"double_layer_sign": there(), "rpe_elevation": ABSENT}, "double layer without", ("rpe_elevation", "present")),
    ({"crora": there(), "rpe_atrophy": ABSENT}, "hypertransmission without atrophy", ("rpe_atrophy", "present")),
    ({"retinal_fluid": ABSENT, "subretinal_fluid": there()}, "fluid denied", ("retinal_fluid", "present")),
]  # fmt: skip


@pytest.mark.parametrize(("findings", "code", "repaired"), CONTRADICTIONS)
def test_a_contradiction_is_named_and_the_policy_decides(findings, code, repaired):
    wrong = Facts(rule_set=RETINA.id, findings=findings)
    with pytest.raises(Contradictory, match=code):
        worked_out(wrong, BUILD)
    with pytest.raises(InputError, match=f"{code}.*contradictions: repair"):
        worked_out(wrong, BUILD, policy="refuse")
    mended = worked_out(wrong, BUILD, policy="repair")
    assert mended.facts.findings[repaired[0]].polarity == repaired[1]
    assert any(code in told for told in mended.repaired)


def test_a_stated_stage_settles_what_the_findings_leave_open():
    drusen = {"drusen": there()}
    worked = worked_out(facts(drusen, {"stage": DRY}, rest_absent=False), TEST)
    assert (worked.scales["stage"].words, worked.scales["referral"].level) == (DRY, ROUTINE)


def test_a_stated_stage_that_the_findings_exclude_is_a_contradiction():
    no_amd_with_drusen = Facts(rule_set=RETINA.id, findings={"drusen": there()}, values={"stage": HEALTHY})
    with pytest.raises(Contradictory, match=f"stage is stated as {HEALTHY}, the findings give at least {EARLY}"):
        worked_out(no_amd_with_drusen, BUILD)
    mended = worked_out(no_amd_with_drusen, BUILD, policy="repair")
    assert (mended.scales["stage"].words, mended.facts.values) == (f"at least {EARLY}", {})


def test_facts_are_closed_and_keep_what_is_doubtful():
    doubtful = Finding(polarity="uncertain", side="nasal")
    found = worked_out(Facts(rule_set=RETINA.id, findings={"drusen": there(), "fibrosis": doubtful}), BUILD)
    assert found.facts.findings == {"drusen": there(), "rpe_elevation": there(), "fibrosis": doubtful}


@pytest.mark.parametrize(
    ("said", "stage"),
    [
        ("This is inactive late wet AMD.", INACTIVE),
        ("late wet AMD, active", ACTIVE),
        ("Not early or intermediate; it is late dry.", DRY),
        ("There are no signs of AMD.", HEALTHY),
        ("Early or intermediate AMD.", None),
        ("late wet AMD", None),
        ("", None),
    ],
)
def test_a_stage_is_read_from_words(said, stage):
    assert read_level(said, "stage", BUILD) == stage


@pytest.mark.parametrize(
    ("said", "level"),
    [
        ("Within the next two weeks, not for routine referral.", URGENT),
        ("No referral needed.", NONE),
        ("The patient needs general attention by a specialist.", ROUTINE),
        ("next 2 weeks", URGENT),
    ],
)
def test_a_referral_is_read_from_words(said, level):
    assert read_level(said, "referral", TEST) == level


def test_versions_of_one_guideline_are_told_apart_and_an_unknown_one_is_named():
    assert {"retina_referral@1", "retina_referral@2"} <= set(shipped())
    assert load_rule_set("retina_referral@2").id == "retina_referral@2"
    with pytest.raises(InputError, match=r"no rule set named 'retina_referral@3'. Did you mean 'retina_referral@"):
        load_rule_set("retina_referral@3")
    with pytest.raises(InputError, match="version 9 was asked for, version 1 is installed"):
        load_rule_set("retina_amd@9")


def test_two_versions_do_not_rule_the_same_scale_at_once():
    with pytest.raises(InputError, match="both have the scale 'referral'"):
        together((*BUILD, "retina_referral@2"))


def test_a_guideline_without_scales_leaves_the_facts_as_they_are():
    nodule = Facts(rule_set="chest_xray@1", findings={"nodule": there(side="left")})
    worked = worked_out(nodule, ["chest_xray@1"])
    assert (worked.facts, worked.scales) == (nodule, {})


def test_a_policy_of_ones_own_must_name_levels_that_the_stages_have(tmp_path):
    own = tmp_path / "own@3.yaml"
    text = """
name: own
version: 3
modality: OCT
staging:
  scales:
    referral: {levels: [{name: none}, {name: soon, any_of: [{stage: activ late wet AMD}]}]}
"""
    own.write_text(text, encoding="utf-8")
    assert read_rule_set(own).id == "own@3"
    with pytest.raises(InputError, match="Did you mean 'active late wet AMD'"):
        together(("retina_amd@1", str(own)))
