import asyncio
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.answers.choice_answer import option_named
from rewards.answers.final_answer import answer_region, final_answer, num_words, visible
from rewards.answers.label_accuracy import labels, polarity
from rewards.answers.measurements import Measurement, is_number, measurements
from rewards.judges.reward_model import RewardModel
from rewards.loading import load_reward

TRUTH = (
    '{"rule_set":"chest_xray@1","findings":{"nodule":{"polarity":"present","side":"left"},'
    '"effusion":{"polarity":"present","side":"right"},"pneumothorax":{"polarity":"absent"}}}'
)
SENTENCES = ["There is a nodule on the left.", "There is an effusion on the right.", "No pneumothorax."]
REPORT = " ".join(SENTENCES)


def factual(response):
    return load_reward("factuality")(response, facts=TRUTH, answer=REPORT, task="report")


def test_truth_hedge_omission_swap_and_denial_rank_in_this_order():
    rest = " ".join(SENTENCES[1:])
    ranked = [
        factual(f"{said} {rest}")
        for said in ("There is a nodule on the left.", "Possible nodule on the left.", "", "A nodule on the right.")
    ]
    assert ranked == sorted(ranked, reverse=True)
    assert len(set(ranked)) == 4
    assert factual(f"No nodule. {rest}") < factual(rest)


@given(st.permutations(SENTENCES))
def test_the_order_of_sentences_does_not_matter(sentences):
    assert factual(" ".join(sentences)) == 1.0


@given(st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=3), st.integers(1, 5))
def test_repeating_a_claim_never_pays(sentences, times):
    assert factual(" ".join(sentences * times)) == factual(" ".join(dict.fromkeys(sentences)))


def test_stuffing_every_finding_earns_less_than_an_honest_omission():
    every = " ".join(
        f"There is a {f} on the {s}." for f in ("nodule", "effusion", "pneumothorax") for s in ("left", "right")
    )
    assert factual(every) == 0.0
    assert factual("Nodule on the left. Effusion on the right. Pneumothorax on the left.") < factual(REPORT)
    assert factual(SENTENCES[0]) > factual(every)


def test_hedging_every_finding_earns_less_than_the_truth():
    assert factual("Possible nodule on the left. Possible effusion on the right. Possible pneumothorax.") < 0.6


def test_thinking_does_not_count_as_a_report():
    assert factual(f"<think>{REPORT}</think>I see nothing.") == 0.0
    assert factual(f"<think>No nodule.</think><answer>{REPORT}</answer>") == 1.0


def test_measurements_are_not_read_from_another_finding_in_the_sentence():
    truth = TRUTH.replace('"effusion":{"polarity":"present","side":"right"},', "")
    reward, reference = load_reward("factuality"), "There is a nodule of 12 mm on the left. No pneumothorax."
    said = "There is a nodule on the left and an effusion of 12 mm. No pneumothorax."
    assert reward(said, facts=truth, answer=reference, task="report") < 1.0


def test_factuality_tells_its_parts():
    parts = load_reward("factuality").components(
        "No nodule. Effusion on the right.", facts=TRUTH, answer=REPORT, task="report"
    )
    assert parts == pytest.approx({"precision": 1 / 1.25, "recall": 1 / 2.25, "contradicted": 1 / 2.25})


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("1.2 cm", [12.0]), ("12mm", [12.0]), ("12 x 8 mm", [8.0]), ("3 lobes", []), ("T12", []), ("1,5 cm", [15.0]),
        ("2 centimetres", [20.0]), ("5 millimeters", [5.0]), ("12 mmHg", []), ("-3 mm", [-3.0]), ("1.2.3 mm", []),
    ],
)  # fmt: skip
def test_measurements(text, want):
    assert [m.value for m in measurements(text)] == want


@given(st.text(max_size=300))
def test_hostile_text_raises_nothing(text):
    measurements(text, bare=True)
    polarity(text)
    labels(text, {})
    is_number(text)
    option_named(text, ["CT", "MRI"])
    answer_region(text)
    final_answer(text)


def test_a_measurement_agrees_within_its_tolerance_and_unit():
    assert Measurement(12, "mm").agrees(Measurement(14, "mm"), tolerance=0.2)
    assert not Measurement(12, "mm").agrees(Measurement(15, "mm"), tolerance=0.2)
    assert not Measurement(12, "mm").agrees(Measurement(12, "ml"), tolerance=0.2)


@pytest.mark.parametrize("options", [["CT", "MRI", "X-ray"], ["left", "right"]])
def test_exactly_one_option_earns_whichever_way_it_is_written(options):
    reward = load_reward("choice_answer")
    for k, option in enumerate(options):
        for form in (
            "{letter}",
            "({letter})",
            "{letter}. {text}",
            "Answer: {letter}",
            "{text}",
            "The answer is {text}.",
        ):
            said = form.format(letter="ABC"[k], text=option)
            assert reward(said, answer=option, options=options) == 1.0, said
            others = [o for o in options if o != option]
            assert all(reward(said, answer=o, options=options) == 0.0 for o in others), said


def test_naming_two_options_never_earns():
    reward, options = load_reward("choice_answer"), ["CT", "MRI", "X-ray"]
    for a, b in itertools.permutations("ABC", 2):
        for joint in ("{} or {}", "{} {}", "{}, {}", "Answer: {}. Answer: {}", "({}) ({})", "{}\n{}"):
            assert reward(joint.format(a, b), answer=a, options=options) == 0.0


def test_abstaining_pays_exactly_below_its_credit():
    reward, rng = load_reward("abstention", credit=0.4), random.Random(0)
    truth = [rng.choice(["yes", "no", "no"]) for _ in range(3000)]
    guess = sum(reward("yes", answer=t) for t in truth) / len(truth)
    abstain = sum(reward("I cannot tell", answer=t) for t in truth) / len(truth)
    assert guess < abstain == pytest.approx(0.4)
    assert sum(reward("no", answer=t) for t in truth) / len(truth) > abstain


def test_thinking_that_never_ends_holds_no_answer():
    assert answer_region("<think>it is [1,2,3,4]") == ""
    assert answer_region("before <think>x") == "before "
    assert answer_region("<think>x</think>between<think>y") == "between"


@pytest.mark.parametrize(
    ("response", "want"),
    [
        ("<THINK>x</THINK>y", "y"), ("<thinking>x</thinking>y", "y"), ("x</think>y", "y"),
        ("<th\u200bink>x</think>y", "y"), ("<answer><think>x</think>y</answer>", "y"),
        ("<answer>y<think>x</answer>", "y"), ("<think><answer>x</answer></think>y", "y"), ("a < b", "a < b"),
    ],
)  # fmt: skip
def test_no_thinking_is_part_of_the_answer(response, want):
    assert answer_region(response) == want


@given(st.text())
def test_what_cannot_be_seen_is_no_part_of_the_answer(text):
    spread = "\u200b".join(text)
    assert visible(spread) == visible(text)
    assert answer_region(spread) == answer_region(text)
    assert num_words(spread) == num_words(text)


@pytest.mark.parametrize(
    "name", ["\u200b", "\u2060", "\ufeff", "\xad", "\u3164", "\u2800", "\U000e0041", "\x00", "\u202e"]
)
def test_these_characters_cannot_be_seen(name):
    assert visible(f"a{name}b") == "ab"


@pytest.mark.parametrize("text", ["\n\t ", "é ü", "\u4e2d\u6587", "\u2264 5 \u00b5m", "\u05d0\u05d1"])
def test_all_other_characters_stay(text):
    assert visible(text) == text


def test_a_reward_model_is_shown_the_answer_alone():
    shown = []

    def local(knobs):
        del knobs
        return lambda rows: [shown.append(row["answers"]) or [0.0] * len(row["answers"]) for row in rows]

    model = RewardModel(local=local)
    responses = ["<think>No.</think>Yes", "<answer>Yes</answer>", "Yes"]
    judged = asyncio.run(model(responses, prompt=["?"] * 3, images=[[]] * 3))
    assert shown == [["Yes"] * 3]
    assert judged.scores == [0.0] * 3


def test_format_tags_cannot_pay_more_by_repetition():
    reward = load_reward("tag_count")
    assert reward("<think>a</think><answer>b</answer>" * 3) == 0
    assert reward("<answer>" * 50) == 0


def test_length_farming_pays_nothing():
    reward = load_reward("length")
    assert reward("effusion " * 5000) == 0
    assert load_reward("length").components("a a a a")["distinct_share"] == 0.25


def test_overlong_falls_with_every_token():
    reward = load_reward("soft_overlong", max_tokens=100, cache_tokens=20)
    scores = [reward("", completion_ids=[0] * n) for n in range(120)]
    assert scores == sorted(scores, reverse=True)
