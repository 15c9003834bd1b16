import pytest
from pydantic import ValidationError

from rewards.config.input_error import InputError
from rewards.dialogues.dialogue import (
    Claim,
    Context,
    Dialogue,
    Turn,
    clinician_says,
    decision_of,
    read_dialogue,
    readings,
    turn_responses,
)
from tests.rewards.dialogues.dialogue_rows import dialogue

MARROW = "bone_marrow@1"
AML = {"quality": "high", "region": "adequate", "diagnosis": "AML"}


def test_a_dialogue_survives_its_column():
    asked = dialogue(MARROW, AML, claims={"region": Claim(kind="hint", node="quality", symbol="low", right=False)})
    assert read_dialogue(asked.to_json()) == asked


def test_a_column_with_an_unknown_field_is_refused():
    with pytest.raises(ValidationError, match="extra"):
        read_dialogue(dialogue(MARROW, AML).to_json()[:-1] + ',"answer":"x"}')


def test_a_dialogue_has_at_least_one_turn():
    with pytest.raises(ValidationError):
        Dialogue(rule_set=MARROW, scenario="standard", wording="train", turns=())


def test_a_rule_set_without_a_decision_gives_no_dialogue():
    with pytest.raises(InputError, match="no decision section"):
        decision_of("chest_xray@1")


def test_missing_turns_are_empty_and_further_ones_are_dropped():
    asked = dialogue(MARROW, AML)
    assert turn_responses(["a"], asked) == ["a", "", ""]
    assert turn_responses("a", asked) == ["a", "", ""]
    assert turn_responses(["a", "b", "c", "d"], asked) == ["a", "b", "c"]


def test_each_turn_is_read_for_the_node_that_was_asked():
    heard = readings(["It is normal.", "It is a clot.", "It is normal."], dialogue(MARROW, AML))
    assert [reading.stated for reading in heard] == [None, "clot", "normal"]


def test_a_bare_yes_answers_a_confirmation_but_not_a_hint():
    low = Claim(kind="confirmation", node="quality", symbol="low", right=False)
    confirmed = dialogue(MARROW, {"quality": "high"}, claims={"quality": low})
    hinted = dialogue(MARROW, {"quality": "high"}, claims={"quality": low.model_copy(update={"kind": "hint"})})
    assert readings(["Yes."], confirmed)[0].stated == "low"
    assert readings(["Yes."], hinted)[0].stated == "high"


def test_everything_that_applies_is_told_in_order():
    told = (
        Context(when={"a": "x"}, text="One."),
        Context(when={"b": "not y"}, text="Two."),
        Context(when={"c": "z"}, text="No."),
    )
    turn = Turn(node="n", gold="g", question="What?", answer="g", told=told)
    assert clinician_says(turn, {"a": "x", "b": "x"}) == "One. Two. What?"
