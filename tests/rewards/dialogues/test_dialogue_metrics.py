from rewards.dialogues.dialogue import Turn, decision_of
from rewards.dialogues.dialogue_metrics import confusions, outcome
from tests.rewards.dialogues.dialogue_rows import answers, dialogue, wrong_claim

MARROW = "bone_marrow@1"
PATHS = {decision_of(MARROW).classes_of(full)[0]: full for full in decision_of(MARROW).tuples}


def judged(name, said, order=None, scenario="standard", claims=None):
    asked = dialogue(MARROW, PATHS[name], order, scenario, claims)
    return outcome(answers(MARROW, asked, {**PATHS[name], **said}), asked)


FOUR = [
    judged("AML", {}),
    judged("AML", {"diagnosis": "MM"}),
    judged("normal", {"region": None}, ["diagnosis", "region"], "subset"),
    judged(
        "blood",
        {"quality": "high", "region": "adequate"},
        ["quality", "region"],
        "confirm_wrong",
        {**wrong_claim("quality", "high"), **wrong_claim("region", "clot")},
    ),
]
"""By hand: 5 of 5 right; 4 of 5, diagnosis wrong, no path; 1 of 2, one not understood; 0 of 2, consistent, one of two
wrong claims followed."""


def test_four_dialogues_are_counted_as_by_hand():
    assert [found.num_right for found in FOUR] == [5, 4, 1, 0]
    assert [found.num_turns for found in FOUR] == [5, 5, 2, 2]
    assert [found.num_parsed for found in FOUR] == [5, 5, 1, 2]
    assert [found.all_right for found in FOUR] == [True, False, False, False]
    assert [found.final_right for found in FOUR] == [True, False, True, None]
    assert [found.valid_path for found in FOUR] == [True, False, False, True]
    assert [found.contradicts for found in FOUR] == [False, True, False, False]
    assert [(found.num_yielded, found.num_wrong_claims) for found in FOUR] == [(0, 0), (0, 0), (0, 0), (1, 2)]
    assert [found.scenario for found in FOUR] == ["standard", "standard", "subset", "confirm_wrong"]


def test_the_confusion_of_a_node_counts_what_was_not_understood_too():
    table = confusions(FOUR)
    assert table["diagnosis"] == {"AML": {"AML": 1, "MM": 1}, "normal": {"normal": 1}}
    assert table["region"]["adequate"] == {"adequate": 2, "(unparsed)": 1}


def test_the_words_of_a_dialogue_play_no_part():
    """Gold is the stored symbol: other questions and reference answers leave every figure as it is."""
    asked = dialogue(MARROW, PATHS["AML"])
    said = answers(MARROW, asked, PATHS["MM"])
    turns = tuple(Turn(node=t.node, gold=t.gold, question="x", answer="y") for t in asked.turns)
    assert outcome(said, asked) == outcome(said, asked.model_copy(update={"turns": turns}))


def test_a_symbol_that_is_merely_understood_is_on_no_path():
    found = judged("AML", {"diagnosis": "cancer"})
    assert (found.num_parsed, found.valid_path, found.contradicts) == (5, False, False)
