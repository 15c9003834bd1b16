"""How rewards reach TRL in dialogues: a list of turns, or the words of the model alone; none where it stopped."""

from alignment.reward_functions.adapter import TrlReward, responses_to
from rewards.dialogues.dialogue import Dialogue, Turn
from rewards.dialogues.dialogue_consistency import dialogue_consistency
from rewards.loading import load_reward

TURNS = (
    Turn(node="region", gold="clot", question="Which region?", answer="A clot."),
    Turn(node="diagnosis", gold="inadequate", question="What is it?", answer="Inconclusive."),
)
ROW = Dialogue(rule_set="bone_marrow@1", scenario="subset", wording="train", turns=TURNS).to_json()
SAID = ["It is a clot.", "It is inconclusive."]
WHOLE = [{"role": "assistant", "content": "It is a clot.\nuser\nWhat is it?\nassistant\nIt is inconclusive."}]


def test_a_reward_of_dialogues_is_given_the_models_turns():
    function = TrlReward(load_reward("dialogue_consistency"))
    (score,) = function([WHOLE], dialogue=[ROW], model_turns=[SAID], overlong=[False])
    assert score == dialogue_consistency(SAID, ROW)
    assert score > 0.5


def test_another_reward_is_given_what_the_model_said_without_the_clinician():
    assert responses_to([WHOLE], {"model_turns": [SAID]}, by_turn=False) == ["It is a clot.\nIt is inconclusive."]
    assert responses_to([WHOLE], {}, by_turn=True) == [WHOLE[0]["content"]]


def test_a_dialogue_that_stopped_has_no_reward_and_no_components():
    logged = {}
    function = TrlReward(load_reward("dialogue_consistency"))
    columns = {"dialogue": [ROW, ROW], "model_turns": [SAID, SAID[:1]], "overlong": [False, True]}
    scores = function([WHOLE, WHOLE], log_metric=logged.__setitem__, **columns)
    assert scores == [dialogue_consistency(SAID, ROW), None]
    assert logged["dialogue_consistency/correct"] == 1.0


def test_only_rewards_of_dialogues_judge_turns():
    assert load_reward("dialogue_published").judges_turns
    assert not load_reward("length").judges_turns
