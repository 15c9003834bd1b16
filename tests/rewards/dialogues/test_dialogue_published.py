from itertools import pairwise, permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.config.input_error import InputError
from rewards.dialogues.dialogue import decision_of
from rewards.dialogues.dialogue_published import by_turn, components, dialogue_published
from tests.rewards.dialogues.dialogue_rows import answers, dialogue, sentence

MARROW, ECG = "bone_marrow@1", "ecg_mi@1"
PATHS = {decision_of(MARROW).classes_of(full)[0]: full for full in decision_of(MARROW).tuples}
CLASSES = list(PATHS)
NORMAL_ECG = {
    "st_elevation": "level",
    "st_depression": "unseen",
    "troponin": "do not order",
    "diagnosis": "normal",
}


def scored(gold, said, *, rule_set=MARROW, order=None, **knobs):
    asked = dialogue(rule_set, gold, order)
    return dialogue_published(answers(rule_set, asked, said), asked.to_json(), **knobs)


G3 = {("blood", "clot"): 8.0, ("AML", "MM"): 7.0, ("normal", "AML"): 6.0, ("normal", "MM"): 6.0}
"""What the wrong path earns, either way round; every other pair of classes earns 4."""


@pytest.mark.parametrize(("gold", "said"), list(product(CLASSES, CLASSES)))
def test_g3_of_a_whole_path(gold, said):
    want = 9.0 if gold == said else G3.get((gold, said), G3.get((said, gold), 4.0))
    assert scored(PATHS[gold], PATHS[said]) == want


@pytest.mark.parametrize("name", CLASSES)
def test_a_constant_path_earns_between_5_8_and_6_of_9(name):
    earned = [scored(PATHS[gold], PATHS[name]) for gold in CLASSES]
    assert 5.8 <= sum(earned) / len(earned) <= 6.0


def test_in_96_of_120_orders_some_invalid_answers_get_full_consistency():
    """Neighbouring pairs do not see the whole: in the mean order 4.7 of 288 tuples deceive them, at worst 15."""
    decision = decision_of(MARROW)
    tuples = [dict(zip(decision.nodes, s, strict=True)) for s in product(*decision.domains.values())]
    pairs = {(a, b): {(full[a], full[b]) for full in decision.tuples} for a in decision.nodes for b in decision.nodes}
    deceived = {}
    for order in permutations(decision.nodes):
        deceived[order] = sum(
            all((t[a], t[b]) in pairs[a, b] for a, b in pairwise(order)) and not decision.is_valid(t) for t in tuples
        )
    assert sum(n > 0 for n in deceived.values()) == 96
    assert max(deceived.values()) == 15
    assert sum(deceived.values()) / 120 == pytest.approx(4.7, abs=0.05)
    assert deceived[tuple(decision.nodes)] == deceived[tuple(decision.nodes)[::-1]] == 0


def test_answers_that_deceive_neighbouring_pairs_get_full_consistency():
    said = {**PATHS["normal"], "diagnosis": "AML"}
    order = ["abnormality", "quality", "proliferation", "region", "diagnosis"]
    asked = dialogue(MARROW, PATHS["normal"], order)
    assert components(answers(MARROW, asked, said), asked.to_json())["consistency"] == 4.0


def test_weight_zero_turns_consistency_off():
    assert scored(PATHS["AML"], PATHS["AML"], consistency_weight=0.0) == 5.0


def test_what_is_not_understood_costs_half_and_fits_nothing():
    said = {**PATHS["AML"], "region": None}
    assert scored(PATHS["AML"], said) == 4 - 0.5 + 2


def test_the_length_of_symbols_never_counts_and_that_of_answers_may():
    asked = dialogue(MARROW, PATHS["AML"], ["diagnosis"])
    long = [asked.turns[0].answer + " " * 0 + " Indeed so, beyond any reasonable wish"]
    excess = len(long[0]) - len(asked.turns[0].answer)
    assert dialogue_published(long, asked.to_json()) == 1.0
    assert dialogue_published(long, asked.to_json(), length_of="answers") == pytest.approx(1 - excess / 10)


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({}, 5.0),
        ({"diagnosis": "cancer"}, 3.0 * 4.5 / 5),
        ({"diagnosis": "normal"}, 3.0 * 4 / 5),
        ({"proliferation": "plasma cells", "diagnosis": "MM"}, 4.0 * 3 / 5),
        ({"quality": None}, 3.0 * 3.5 / 5),
        ({"abnormality": "normal"}, 2.0 * 4 / 5),
        ({"region": "blood"}, 2.0 * 4 / 5),
    ],
)
def test_g1_multiplies_the_mean_credit_by_the_path(change, want):
    """5 for the true path, 4 for another valid one, 3, 2 or 1.5 for a run of 4, 3 or 2 answers on a valid path."""
    assert scored(PATHS["AML"], {**PATHS["AML"], **change}, generation="g1") == pytest.approx(want)


def test_g1_takes_no_abnormality_for_inadequate_on_the_reject_paths():
    said = {**PATHS["blood"], "proliferation": "no abnormality"}
    assert scored(PATHS["blood"], said, generation="g1") == pytest.approx(4.0 * 4.5 / 5)


def test_g1_counts_every_80_characters_of_length():
    asked = dialogue(MARROW, PATHS["AML"])
    said = answers(MARROW, asked, PATHS["AML"])
    said[0] += " " + "x" * 170
    assert dialogue_published(said, asked.to_json(), generation="g1") == pytest.approx(5 - 2 / 5)


@pytest.mark.parametrize(
    ("change", "want"), [({}, 6.0), ({"diagnosis": "MM"}, 5.0), ({"quality": "low"}, 0.0), ({"quality": None}, -0.5)]
)
def test_g2_stops_at_a_first_answer_that_is_not_right(change, want):
    assert scored(PATHS["AML"], {**PATHS["AML"], **change}, generation="g2") == want


def test_g4_pays_false_alarms_on_a_normal_ecg():
    """The true dialogue earns 4; saying NSTEMI instead earns 10.5 before length, 8.6 with 48 characters more."""
    asked = dialogue(ECG, NORMAL_ECG)
    true = answers(ECG, asked, NORMAL_ECG)
    assert dialogue_published(true, asked.to_json(), generation="g4") == 4.0
    false = [*true[:3], "This is an NSTEMI."]
    reference = len(asked.turns[3].answer)
    assert abs(len(false[3]) - reference) <= 10
    assert dialogue_published(false, asked.to_json(), generation="g4") == 10.5
    longer = "This is an NSTEMI.".ljust(reference + 48, ".")
    assert dialogue_published([*true[:3], longer], asked.to_json(), generation="g4") == pytest.approx(8.6, abs=0.05)


@pytest.mark.parametrize(
    ("gold", "said", "want"),
    [
        ({"st_elevation": "elevated", "troponin": "order", "diagnosis": "stemi"}, {}, 4 + 1 + 1 + 7.5),
        ({"st_elevation": "elevated", "troponin": "order", "diagnosis": "stemi"}, {"diagnosis": "normal"}, 3 - 1 + 1),
        ({"st_elevation": "elevated", "troponin": "order", "diagnosis": "stemi"}, {"diagnosis": None}, 3 - 1 + 1),
        ({}, {"troponin": "order"}, 3 - 1),
        ({"st_depression": "seen"}, {"troponin": "order"}, 3),
        ({}, {"troponin": None}, 3 - 1),
    ],
)
def test_g4_by_its_parts(gold, said, want):
    gold = {**NORMAL_ECG, **gold}
    asked = dialogue(ECG, gold)
    spoken = answers(ECG, asked, {**gold, **said})
    parts = components(spoken, asked.to_json(), generation="g4")
    assert parts["correctness"] + parts["consistency"] == want


def test_g4_refuses_another_task():
    asked = dialogue(MARROW, PATHS["AML"])
    with pytest.raises(InputError, match="g4 judges dialogues of st_elevation"):
        dialogue_published([""], asked.to_json(), generation="g4")


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([sentence(MARROW, "diagnosis", "AML"), "", "blood", "The quality is good."]), max_size=6)
)
def test_turns_and_the_rest_add_up_to_the_reward(said):
    column = dialogue(MARROW, PATHS["AML"]).to_json()
    turns, rest = by_turn(said, column)
    assert len(turns) == 5
    assert sum(turns) + rest == pytest.approx(dialogue_published(said, column))
