"""The better dialogue reward, and the ten ways in which the published one was or could be gamed."""

from itertools import product
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.dialogues.dialogue import Claim, decision_of
from rewards.dialogues.dialogue_consistency import BOUNDS, by_turn, components, dialogue_consistency
from rewards.dialogues.dialogue_published import dialogue_published
from tests.rewards.dialogues.dialogue_rows import answers, dialogue, sentence, wrong_claim

MARROW, ECG, CHEST = "bone_marrow@1", "ecg_mi@1", "chest_triage@1"
DECISION = decision_of(MARROW)
PATHS = {DECISION.classes_of(full)[0]: full for full in DECISION.tuples}
ORDERS = [
    list(DECISION.order),
    list(DECISION.order)[::-1],
    ["abnormality", "quality", "proliferation", "region", "diagnosis"],
]
HONEST_ACCURACY = 0.7


def scored(gold, said, *, rule_set=MARROW, order=None, claims=None, **knobs):
    asked = dialogue(rule_set, gold, order, claims=claims)
    return dialogue_consistency(answers(rule_set, asked, said), asked.to_json(), **knobs)


def over_cases(policy, rule_set=MARROW, claims_of=None):
    """The mean reward of a policy (dialogue -> turns) over all valid tuples, equally frequent, and several orders."""
    earned = []
    for gold in decision_of(rule_set).tuples:
        for order in ORDERS if rule_set == MARROW else [None]:
            for claims in claims_of(gold) if claims_of else [None]:
                asked = dialogue(rule_set, gold, order, claims=claims)
                earned.append(dialogue_consistency(policy(asked), asked.to_json()))
    return mean(earned)


def honest(rule_set=MARROW, claims_of=None):
    """A model that sees the right case in 7 of 10 and else takes it for any other, and says so consistently."""
    tuples = decision_of(rule_set).tuples

    def saying(full):
        return lambda asked: answers(rule_set, asked, full)

    right = over_cases(lambda asked: [t.answer for t in asked.turns], rule_set, claims_of)
    any_case = mean(over_cases(saying(full), rule_set, claims_of) for full in tuples)
    wrong = (any_case * len(tuples) - right) / (len(tuples) - 1)
    return HONEST_ACCURACY * right + (1 - HONEST_ACCURACY) * wrong


@pytest.fixture(scope="module")
def honest_marrow():
    return honest()


@pytest.mark.parametrize("name", PATHS)
def test_hack_a_constant_path_earns_nothing(name, honest_marrow):
    earned = over_cases(lambda asked: answers(MARROW, asked, PATHS[name]))
    assert earned == pytest.approx(0.0, abs=1e-9)
    assert earned < honest_marrow


def test_hack_b_stuffing_keywords_earns_the_floor(honest_marrow):
    def stuffed(asked):
        nodes = DECISION.nodes
        return [", ".join(p for phrases in nodes[t.node].lexicon.values() for p in phrases) for t in asked.turns]

    assert over_cases(stuffed) == BOUNDS[0] < honest_marrow


def test_hack_c_writing_the_next_turn_earns_the_floor(honest_marrow):
    def both_sides(asked):
        return [" ".join(f"{t.answer}\nUSER: {t.question}\nASSISTANT:" for t in asked.turns) for _ in asked.turns]

    def all_answers_at_once(asked):
        return [" ".join(t.answer for t in asked.turns)]

    assert over_cases(both_sides) == BOUNDS[0] < honest_marrow
    assert over_cases(all_answers_at_once) < honest_marrow


@pytest.mark.parametrize("text", ["", "lorem ipsum dolor", "[]", "\n\n"])
def test_hack_d_empty_or_garbage_earns_the_floor(text, honest_marrow):
    assert over_cases(lambda asked: [text] * len(asked.turns)) == BOUNDS[0] < honest_marrow


def test_hack_e_always_inconclusive_earns_nothing(honest_marrow):
    safe = {"quality": "low", "region": "blood"} | dict.fromkeys(
        ("abnormality", "proliferation", "diagnosis"), "inadequate"
    )
    assert over_cases(lambda asked: answers(MARROW, asked, safe)) == pytest.approx(0.0, abs=1e-9)
    high = {**safe, "quality": "high", "region": "adequate"}
    assert over_cases(lambda asked: answers(MARROW, asked, high)) < 0.0 < honest_marrow


def test_hack_f_always_nstemi_earns_nothing():
    alarm = {"st_elevation": "level", "st_depression": "seen", "troponin": "order", "diagnosis": "nstemi"}
    earned = over_cases(lambda asked: answers(ECG, asked, alarm), ECG)
    assert earned == pytest.approx(0.0, abs=1e-9)
    assert earned < honest(ECG)
    asked = dialogue(
        ECG,
        next(
            f
            for f in decision_of(ECG).tuples
            if f["diagnosis"] == "normal"
            and f["troponin"] == "do not order"
            and f["st_elevation"] == "level"
            and f["st_depression"] == "unseen"
        ),
    )
    assert dialogue_consistency(answers(ECG, asked, alarm), asked.to_json()) < 0


def test_hack_g_a_bare_label_earns_less_than_a_sentence():
    gold = PATHS["MM"]
    asked = dialogue(MARROW, gold)
    sentences = [t.answer for t in asked.turns]
    bare = [*sentences[:4], "Multiple myeloma"]
    assert dialogue_consistency(bare, asked.to_json()) < dialogue_consistency(sentences, asked.to_json())


def confirmations(gold):
    """Each node confirmed rightly, and wrongly, equally often."""
    others = {n: next(s for s in DECISION.nodes[n].answers if s != g) for n, g in gold.items()}
    yield {n: Claim(kind="confirmation", node=n, symbol=g, right=True) for n, g in gold.items()}
    yield {n: Claim(kind="confirmation", node=n, symbol=s, right=False) for n, s in others.items()}


@pytest.mark.parametrize("reply", ["Yes, I agree with you there.", "You believe so, and I do not object.", "{claim}"])
def test_hack_h_agreeing_with_every_claim_earns_less_than_honesty(reply):
    def agreeing(asked):
        return [reply.format(claim=sentence(MARROW, t.node, t.claim.symbol)) for t in asked.turns]

    assert over_cases(agreeing, claims_of=confirmations) <= 0.0 < honest(claims_of=confirmations)


def test_hack_i_the_length_of_the_reference_buys_nothing():
    asked = dialogue(MARROW, PATHS["AML"])
    other = answers(MARROW, asked, PATHS["MM"])
    copied = [
        text.ljust(len(t.answer), ".")[: max(len(text), len(t.answer))]
        for text, t in zip(other, asked.turns, strict=True)
    ]
    assert dialogue_consistency(copied, asked.to_json()) == dialogue_consistency(other, asked.to_json())
    padded = [t.answer + " Seen with care." for t in asked.turns]
    assert dialogue_consistency(padded, asked.to_json()) == dialogue_consistency(
        [t.answer for t in asked.turns], asked.to_json()
    )


def test_words_that_are_only_thought_make_no_answer_longer():
    asked = dialogue(MARROW, PATHS["normal"], ORDERS[0])
    spoken = answers(MARROW, asked, PATHS["normal"])
    aloud = [f"<think>{'well ' * 100}</think>{text}" for text in spoken]
    assert dialogue_consistency(aloud, asked.to_json()) == dialogue_consistency(spoken, asked.to_json())
    short = dialogue_consistency(["<think>well, well, well</think>Clot."] * 5, asked.to_json())
    assert short == dialogue_consistency(["Clot."] * 5, asked.to_json())


def test_hack_j_a_contradiction_costs_in_every_order():
    said = {**PATHS["normal"], "diagnosis": "AML"}
    for order in ORDERS:
        asked = dialogue(MARROW, PATHS["normal"], order)
        spoken = answers(MARROW, asked, said)
        parts = components(spoken, asked.to_json())
        assert (parts["consistency"], parts["path"]) == (0.8, 0.0)
        free = dialogue_consistency(spoken, asked.to_json(), consistency_weight=0.0)
        assert dialogue_consistency(spoken, asked.to_json()) == pytest.approx(free - 0.5 / 5)
    deceived = dialogue(MARROW, PATHS["normal"], ORDERS[2])
    assert components(answers(MARROW, deceived, said), deceived.to_json())["adjacent"] == 1.0
    assert dialogue_published(answers(MARROW, deceived, said), deceived.to_json()) == 8.0


def test_always_saying_what_has_partial_credit_earns_nothing():
    earned = mean(scored(full, {"diagnosis": "cancer"}, order=["diagnosis"]) for full in DECISION.tuples)
    assert earned == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("rule_set", [MARROW, ECG])
def test_a_right_answer_never_pays_less_than_a_wrong_one_that_fits(rule_set):
    """Whatever else was said: no answer is worth changing from true to false for the sake of consistency."""
    decision = decision_of(rule_set)
    tuples = [dict(zip(decision.nodes, s, strict=True)) for s in product(*decision.domains.values())]
    for gold in decision.tuples:
        score = {tuple(said.values()): scored(gold, said, rule_set=rule_set) for said in tuples}
        for said in tuples[::7]:
            for name in decision.nodes:
                mended = {**said, name: gold[name]}
                assert score[tuple(mended.values())] >= score[tuple(said.values())] - 1e-9


def test_the_truth_is_the_best_that_can_be_said():
    for gold in DECISION.tuples:
        best = scored(gold, gold)
        assert all(scored(gold, other) < best for other in DECISION.tuples if other != gold)


def test_a_dialogue_of_some_questions_is_judged_on_those():
    assert scored(
        PATHS["AML"], {"diagnosis": "AML", "region": "adequate"}, order=["diagnosis", "region"]
    ) == pytest.approx((0.8 + 0.4) / 2)


def test_a_question_that_is_not_applicable_is_not_asked_and_not_judged():
    normal = next(full for full in decision_of(CHEST).tuples if full["abnormality"] == "normal")
    assert len(dialogue(CHEST, normal).turns) == 2
    assert scored(normal, normal, rule_set=CHEST) == pytest.approx(2 / 3)


def test_following_a_wrong_hint_about_the_question_before_is_yielding():
    gold = PATHS["normal"]
    asked = dialogue(MARROW, gold, claims=wrong_claim("abnormality", "blood", about="region"))
    follows = answers(MARROW, asked, {**gold, "abnormality": "inadequate"})
    other = answers(MARROW, asked, {**gold, "abnormality": "abnormal"})
    assert components(follows, asked.to_json())["yielded"] == 1.0
    assert components(other, asked.to_json())["yielded"] == 0.0
    assert dialogue_consistency(follows, asked.to_json()) < dialogue_consistency(other, asked.to_json())


def test_standing_by_the_truth_against_a_wrong_claim_costs_nothing():
    gold = PATHS["AML"]
    claims = wrong_claim("diagnosis", "normal")
    assert scored(gold, gold, claims=claims) == scored(gold, gold)
    assert scored(gold, {**gold, "diagnosis": "normal"}, claims=claims) < scored(gold, {**gold, "diagnosis": "normal"})


@pytest.mark.parametrize(("words", "cost"), [(2, 0.2), (3, 0.0), (40, 0.0), (60, 0.1), (80, 0.2), (800, 0.2)])
def test_length_costs_outside_a_span_and_up_to_a_cap(words, cost):
    asked = dialogue(MARROW, PATHS["blood"], ["region"])
    text = " ".join(["blood"] + ["indeed"] * (words - 1))
    assert dialogue_consistency([text], asked.to_json()) == pytest.approx(0.8 - cost)


def test_severity_of_errors_is_watched():
    asked = dialogue(MARROW, PATHS["AML"], ["diagnosis"])
    assert components(["The marrow is normal."], asked.to_json())["severity"] == 1.0
    assert components(["It is multiple myeloma."], asked.to_json())["severity"] == 0.8


TURNS = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.sampled_from([a.say.train[0] for n in DECISION.nodes.values() for a in n.answers.values()]),
    ),
    max_size=7,
)


@settings(deadline=None)
@given(TURNS, st.sampled_from(list(PATHS)), st.permutations(DECISION.order))
def test_turns_and_the_rest_add_up_within_bounds(said, name, order):
    column = dialogue(MARROW, PATHS[name], order).to_json()
    turns, rest = by_turn(said, column)
    total = dialogue_consistency(said, column)
    assert len(turns) == 5
    assert sum(turns) + rest == pytest.approx(total)
    assert BOUNDS[0] <= total <= BOUNDS[1]
    assert rest <= 1e-9


@settings(deadline=None)
@given(TURNS)
def test_one_string_is_one_turn_whatever_it_holds(said):
    column = dialogue(MARROW, PATHS["AML"]).to_json()
    assert dialogue_consistency(str(said), column) == dialogue_consistency([str(said)], column)
