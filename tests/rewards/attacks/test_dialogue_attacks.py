"""Scripted policies on whole dialogues."""

import random

import pytest

from rewards.attacks.dialogue_attacks import ADDITIONS, ATTACKS, BASELINES, HEDGES, constant_cases, honest, imperfect
from rewards.dialogues.dialogue import Claim, decision_of
from rewards.dialogues.dialogue_consistency import dialogue_consistency
from tests.rewards.dialogues.dialogue_rows import dialogue

DECISION = decision_of("bone_marrow@1")
GOLD = next(full for full in DECISION.tuples if "AML" in DECISION.classes_of(full))
ASKED = dialogue("bone_marrow@1", GOLD)
ALL = {**ATTACKS, **ADDITIONS, **BASELINES, **HEDGES, **constant_cases(DECISION)}
RNG = random.Random


@pytest.mark.parametrize("name", ALL)
def test_each_says_the_same_twice_and_never_more_than_the_truth(name):
    said = ALL[name](ASKED, RNG(0))
    assert said == ALL[name](ASKED, RNG(0))
    assert name == "agreeing with every claim" or all(isinstance(turn, str) for turn in said)
    if said is not None and name != "always AML":
        earned = dialogue_consistency(said, ASKED.to_json())
        assert earned <= dialogue_consistency(honest(ASKED, RNG(0)), ASKED.to_json())


def test_one_answer_of_an_imperfect_reader_is_wrong():
    pairs = zip(honest(ASKED, RNG(0)), imperfect(ASKED, RNG(0)), strict=True)
    assert sum(one != other for one, other in pairs) == 1


def test_there_is_a_constant_case_for_each_class():
    names = set(constant_cases(DECISION))
    assert {"always AML", "always MM", "always normal"} <= names
    assert constant_cases(DECISION)["always AML"](ASKED, RNG(0)) == honest(ASKED, RNG(0))


def test_agreeing_is_tried_where_something_wrong_is_claimed():
    assert ATTACKS["agreeing with every claim"](ASKED, RNG(0)) is None
    wrong = next(symbol for symbol in DECISION.nodes["quality"].answers if symbol != GOLD["quality"])
    claim = Claim(kind="confirmation", node="quality", symbol=wrong, right=False)
    asked = dialogue("bone_marrow@1", GOLD, claims={"quality": claim})
    said = ATTACKS["agreeing with every claim"](asked, RNG(0))
    pairs = zip(said, honest(asked, RNG(0)), strict=True)
    assert [turn.node for turn, (one, other) in zip(asked.turns, pairs, strict=True) if one != other] == ["quality"]
