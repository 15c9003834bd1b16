"""Staging and referral, on the guideline of a retinal curriculum (RetinaVLM, arXiv 2407.08410) written as rules."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rewards.rules.stages import Contradiction, Implication, Staging, all_scales, closed, staged

RETINA = Staging.model_validate(
    yaml.safe_load("""
implications:
  - {when: {hypertransmission: true}, then: {rpe: atrophy}}
  - {when: {drusen: true}, then: {rpe_elevation: true}}
  - {when: {drusen: false}, then: {drusen_size: none}}
  - {when: {ped: true}, then: {rpe_elevation: true}}
  - {when: {ped: false}, then: {ped_type: none}}
scales:
  stage:
    levels:
      - {name: healthy}
      - {name: early, any_of: [{drusen: true}]}
      - {name: intermediate, any_of: [{drusen_size: large}, {ped_type: [serous, drusenoid]}]}
      - {name: late dry, any_of: [{hypertransmission: true}, {retinal_thinning: true}]}
      - name: late wet inactive
        any_of: [{shrm: true}, {fibrosis: true}, {ped_type: fibrovascular}]
      - {name: late wet active, any_of: [{subretinal_fluid: true}, {intraretinal_fluid: true}]}
  referral_build:
    levels:
      - {name: none}
      - name: routine
        any_of: [{stage: [late dry, late wet inactive]}, {stage: intermediate, progressing: true}]
      - {name: two weeks, any_of: [{stage: late wet active, traction: false}]}
  referral_southampton:
    levels:
      - {name: none}
      - {name: routine, any_of: [{drusen: true}, {ped_type: drusenoid}, {hypertransmission: true}, {rpe: atrophy}]}
      - {name: two weeks, any_of: [{subretinal_fluid: true}, {intraretinal_fluid: true}]}
""")
)
ORDER = RETINA.scales["stage"].names
NOTHING = {
    name: False
    for name in (
        "drusen", "ped", "hypertransmission", "retinal_thinning", "shrm", "fibrosis", "subretinal_fluid",
        "intraretinal_fluid", "progressing", "traction",
    )
} | {"rpe": "normal"}  # fmt: skip


def scales(**evidence):
    found, _ = all_scales({**NOTHING, **evidence}, RETINA)
    return {name: staged.words for name, staged in found.items()}


@pytest.mark.parametrize(
    ("evidence", "stage"),
    [
        ({}, "healthy"),
        ({"drusen": True, "drusen_size": "small"}, "early"),
        ({"drusen": True, "drusen_size": "large"}, "intermediate"),
        ({"drusen": True, "drusen_size": None}, "at least early"),
        ({"ped": True, "ped_type": "serous"}, "intermediate"),
        ({"ped": True, "ped_type": "fibrovascular"}, "late wet inactive"),
        ({"ped": True, "ped_type": None}, "at least healthy"),
        ({"hypertransmission": True, "rpe": "atrophy"}, "late dry"),
        ({"fibrosis": True}, "late wet inactive"),
        ({"fibrosis": True, "subretinal_fluid": True}, "late wet active"),
        ({"fibrosis": True, "subretinal_fluid": None}, "at least late wet inactive"),
        ({"intraretinal_fluid": True, "drusen": None}, "late wet active"),
    ],
)
def test_the_most_severe_stage_with_evidence_wins(evidence, stage):
    assert scales(**evidence)["stage"] == stage


def test_two_policies_of_one_rule_set_may_differ():
    intermediate = scales(drusen=True, drusen_size="large")
    assert (intermediate["referral_build"], intermediate["referral_southampton"]) == ("none", "routine")
    traction = scales(intraretinal_fluid=True, traction=True)
    assert (traction["referral_build"], traction["referral_southampton"]) == ("none", "two weeks")


def test_a_referral_knows_only_as_much_of_the_stage_as_the_evidence_gives():
    unsure = scales(fibrosis=True, subretinal_fluid=None)
    assert unsure["referral_build"] == "at least routine"
    assert unsure["referral_southampton"] == "at least none"


def test_the_clauses_that_gave_a_stage_are_named():
    found, _ = all_scales({**NOTHING, "fibrosis": True}, RETINA)
    assert found["stage"].because == ({"fibrosis": True},)


def test_what_follows_is_added_and_what_contradicts_it_is_told():
    known, clashes = closed({"hypertransmission": True}, RETINA.implications)
    assert known["rpe"] == "atrophy"
    assert clashes == []
    known, clashes = closed({"hypertransmission": True, "rpe": "normal"}, RETINA.implications)
    assert known["rpe"] == "normal"
    assert clashes == [Contradiction("rpe", "normal", "atrophy")]


def test_what_follows_from_what_followed_is_added_whatever_the_order_of_the_rules():
    rules = [Implication(when={"b": True}, then={"c": True}), Implication(when={"a": True}, then={"b": True})]
    assert closed({"a": True}, rules) == ({"a": True, "b": True, "c": True}, [])


def test_two_rules_that_are_contradicted_alike_are_one_contradiction():
    rules = [Implication(when={name: True}, then={"c": True}, name=name) for name in "ab"]
    _, clashes = closed({"a": True, "b": True, "c": False}, rules)
    assert [clash.rule for clash in clashes] == ["a"]


def staging(**scales):
    return Staging.model_validate({"scales": {n: {"levels": levels} for n, levels in scales.items()}})


def test_a_scale_has_two_levels_and_a_staging_one_scale():
    healthy, early = {"name": "healthy"}, {"name": "early", "any_of": [{"drusen": True}]}
    assert staging(stage=[healthy, early]).scales["stage"].names == ["healthy", "early"]
    with pytest.raises(ValidationError, match="at least 2 items"):
        staging(stage=[healthy])
    with pytest.raises(ValidationError, match="at least 1 item"):
        staging()


def test_unknown_evidence_of_the_lowest_level_cannot_raise_it():
    levels = [{"name": "healthy", "any_of": [{"clear": True}]}, {"name": "early", "any_of": [{"drusen": True}]}]
    scale = staging(stage=levels).scales["stage"]
    assert staged({"clear": None, "drusen": False}, scale).words == "healthy"
    assert staged({"clear": None, "drusen": None}, scale).could_be == ("early",)


VALUES = {name: st.sampled_from([True, False, None]) for name in NOTHING if name != "rpe"}
EVIDENCE = st.fixed_dictionaries(
    {**VALUES, "drusen_size": st.sampled_from(["small", "large", None]), "ped_type": st.sampled_from(["serous", None])}
)


@settings(deadline=None)
@given(EVIDENCE, st.sampled_from(["drusen", "hypertransmission", "fibrosis", "subretinal_fluid"]))
def test_more_evidence_of_disease_never_lowers_the_stage(evidence, added):
    before, _ = all_scales(evidence, RETINA)
    after, _ = all_scales({**evidence, added: True}, RETINA)
    assert ORDER.index(after["stage"].level) >= ORDER.index(before["stage"].level)


@settings(deadline=None)
@given(EVIDENCE, st.data())
def test_deciding_what_was_unknown_stays_within_what_was_said(evidence, data):
    before, _ = all_scales(evidence, RETINA)
    decided = {n: data.draw(st.booleans()) if v is None and n in VALUES else v for n, v in evidence.items()}
    after, _ = all_scales(decided, RETINA)
    assert after["stage"].level in {before["stage"].level, *before["stage"].could_be}
