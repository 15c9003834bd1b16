"""Credit of single turns, worked out by hand."""

import pytest
import torch

from alignment.dialogues.credit import over_tokens, turn_advantages, turn_returns
from rewards.dialogues.dialogue import Dialogue, Turn
from rewards.dialogues.dialogue_consistency import dialogue_consistency
from rewards.loading import load_reward

NAN = float("nan")
TURNS = (
    Turn(node="region", gold="clot", question="Which region?", answer="A clot."),
    Turn(node="diagnosis", gold="inadequate", question="What is it?", answer="Inconclusive."),
)
ROW = {
    "dialogue": Dialogue(rule_set="bone_marrow@1", scenario="subset", wording="train", turns=TURNS).to_json(),
    "overlong": False,
}


def test_each_turn_is_compared_with_the_same_turn_of_the_group():
    returns = torch.tensor([[1.0, 0.0], [3.0, 0.5], [0.0, 5.0], [0.0, 1.0]])
    # group 1: turn 1 is -1, +1 about 2, turn 2 is -.25, +.25 about .25; group 2: turn 1 has no spread, turn 2 -2, +2
    assert turn_advantages(returns, 2, scale=False).tolist() == [[-1.0, -0.25], [1.0, 0.25], [0.0, 2.0], [0.0, -2.0]]


def test_scaled_by_the_sample_deviation_of_that_turn_as_trl_scales():
    found = turn_advantages(torch.tensor([[1.0, 0.0], [3.0, 0.0]]), 2, scale=True)
    assert found.tolist() == [[pytest.approx(-1 / (2**0.5 + 1e-4)), 0.0], [pytest.approx(1 / (2**0.5 + 1e-4)), 0.0]]


def test_a_dialogue_that_stopped_takes_no_part_in_its_group():
    found = turn_advantages(torch.tensor([[1.0], [NAN], [3.0]]), 3, scale=False)
    assert found.tolist() == [[-1.0], [0.0], [1.0]]
    assert turn_advantages(torch.tensor([[NAN], [NAN]]), 2, scale=True).tolist() == [[0.0], [0.0]]


def test_tokens_get_the_advantage_of_their_turn_and_the_clinicians_none():
    found = over_tokens(torch.tensor([[5.0, 7.0], [1.0, 2.0]]), [[0, -1, -1, 1], [0, 0]], 6)
    assert found.tolist() == [[5.0, 0.0, 0.0, 7.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]]


def test_two_turns_by_hand_under_the_better_reward():
    # bone marrow, five equally frequent classes. "clot" is true of 1 in 5: centred credit 1 - .2 = .8; "inadequate" of
    # 2 in 5: .6. Each turn is half of the dialogue: .4 and .3. Both fit together, so nothing is left beyond them.
    rows = [{**ROW, "model_turns": ["It is a clot.", "It is inconclusive."]}]
    rewards = [(load_reward("dialogue_consistency", min_words=1), 1.0)]
    assert turn_returns(rewards, rows, num_turns=3)[0, :2].tolist() == pytest.approx([0.4, 0.3])
    assert turn_returns(rewards, rows, num_turns=3)[0, 2].isnan()


def test_inconsistency_is_credited_to_every_answer_of_the_dialogue():
    # "clot" + "normal": .8 and -.2 (normal is true of 1 in 5), halved; one answer to take back: -.5 / 2 on each turn
    rows = [{**ROW, "model_turns": ["It is a clot.", "This is normal."]}]
    reward = load_reward("dialogue_consistency", min_words=1)
    found = turn_returns([(reward, 1.0)], rows, num_turns=2)[0].tolist()
    assert found == pytest.approx([0.4 - 0.25, -0.1 - 0.25])
    whole = dialogue_consistency(rows[0]["model_turns"], ROW["dialogue"], min_words=1)
    assert sum(found) == pytest.approx(whole - 0.25)  # what lies beyond the answers counts once a turn


def test_weights_add_up_and_a_stopped_dialogue_has_no_returns():
    rows = [
        {**ROW, "model_turns": ["It is a clot.", "It is inconclusive."]},
        {**ROW, "model_turns": ["A clot."], "overlong": True},
    ]
    reward = load_reward("dialogue_consistency", min_words=1)
    found = turn_returns([(reward, 1.0), (reward, 2.0)], rows, num_turns=2)
    assert found[0].tolist() == pytest.approx([1.2, 0.9])
    assert found[1].isnan().all()
