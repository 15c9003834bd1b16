import json

import pytest

from data_builders.pairs.llm_hallucinations import Request, hallucinated, written
from rewards.llm.client import Failure
from rewards.rules.facts import Facts, Finding

FACTS = Facts(
    rule_set="chest_xray@1",
    findings={
        "nodule": Finding(polarity="present", side="left", size="small"),
        "effusion": Finding(polarity="absent"),
    },
)
TRUTH = "There is a small nodule on the left. No effusion."
WRONG = "There is a small nodule on the right. No effusion."
WORSE = "There is a large effusion on the left. No nodule."


class Endpoint:
    """An LLM that replies what it was told to, prompt by prompt, and remembers what it was asked."""

    def __init__(self, *rounds):
        self.rounds, self.asked = list(rounds), []

    def __call__(self, prompts):
        self.asked.append(prompts)
        replies = self.rounds.pop(0)
        assert len(replies) == len(prompts)
        return replies


def request(*candidates, name="a", facts=FACTS):
    return Request(id=name, question="Write the report.", truth=TRUTH, candidates=candidates, facts=facts)


def number(n):
    return json.dumps({"number": n})


def answer(text):
    return json.dumps({"answer": text})


def test_the_sample_that_the_llm_names_is_taken():
    made = hallucinated([request(WRONG, WORSE)], Endpoint([number(2)]))
    assert made.answers == {"a": WORSE}
    assert made.from_samples == {"a"}
    assert made.dropped == {}


def test_where_no_sample_is_clearly_false_one_is_written():
    endpoint = Endpoint([number(None)], [answer(WORSE)])
    made = hallucinated([request(WRONG)], endpoint)
    assert made.answers == {"a": WORSE}
    assert made.from_samples == frozenset()
    assert TRUTH in endpoint.asked[1][0]


def test_an_invention_that_the_report_does_not_mention_is_offered_and_written():
    invented = f"{TRUTH[: -len(' No effusion.')]} There is cardiomegaly."
    assert hallucinated([request(invented)], Endpoint([number(1)])).answers == {"a": invented}
    assert hallucinated([request()], Endpoint([answer(invented)])).answers == {"a": invented}


def test_samples_that_are_true_equal_or_about_themselves_are_never_offered():
    true = "A small nodule is seen on the left."
    endpoint = Endpoint([number(1)])
    made = hallucinated([request(TRUTH, true, f"The wrong answer: {WORSE}", WRONG, WRONG)], endpoint)
    assert made.answers == {"a": WRONG}
    (prompt,) = endpoint.asked[0]
    assert f"1. {WRONG}" in prompt
    assert "2. " not in prompt


def test_without_samples_the_llm_is_asked_to_write_at_once():
    endpoint = Endpoint([answer(WORSE)])
    assert hallucinated([request()], endpoint).answers == {"a": WORSE}
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize("n", ["3", 3, 0, -1, True and "x", 1.5])
def test_a_number_of_no_candidate_is_no_choice(n):
    made = hallucinated([request(WRONG, WORSE)], Endpoint([number(n)], [answer(WORSE)]))
    assert made.from_samples == frozenset()


def test_a_refused_answer_is_asked_for_again_with_the_reason():
    endpoint = Endpoint([answer(TRUTH)], [answer(WORSE)])
    assert hallucinated([request()], endpoint).answers == {"a": WORSE}
    assert "refused: equal to the truth" in endpoint.asked[1][0]
    assert "refused" not in endpoint.asked[0][0]


def test_what_is_refused_to_the_last_is_dropped_with_its_reason_and_hurts_no_other():
    endpoint = Endpoint([answer(TRUTH), answer(WORSE)], ["no"])
    made = hallucinated([request(name="a"), request(name="b")], endpoint)
    assert made.answers == {"b": WORSE}
    assert made.dropped == {"a": "no JSON with an answer"}
    assert [len(prompts) for prompts in endpoint.asked] == [2, 1]


def test_an_llm_is_not_asked_for_nothing():
    assert hallucinated([], Endpoint()).answers == {}


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (answer(WRONG), None),
        (f"Sure! ```json\n{answer(WRONG)}\n```", None),
        ("", "no JSON with an answer"),
        (Failure("server", "http://h/v1 answered 503: busy", brief="HTTP 503"), "no reply: HTTP 503"),
        (Failure("refused", "I cannot help with that."), "no reply: refused"),
        ('{"answer": 3}', "no JSON with an answer"),
        ('{"answer": "', "no JSON with an answer"),
        ("[1]", "no JSON with an answer"),
        (answer(""), "empty"),
        (answer("A small nodule is seen on the left."), "true by accident"),
        (answer(f"{TRUTH} And a fracture."), "contains the truth"),
        (answer(f"As an AI, {WRONG}"), "speaks of its own making"),
        (answer(f"{WRONG} {'It is so. ' * 40}"), "of a far other length"),
    ],
)
def test_every_reply_is_read_and_checked(reply, fault):
    assert written(request(), reply)[1] == fault


def test_braces_in_the_data_do_no_harm():
    odd = Request(id="a", question="{what}?", truth="{x} is 5 {y}", candidates=("it is {7}",))
    endpoint = Endpoint([number(1)])
    assert hallucinated([odd], endpoint).answers == {"a": "it is {7}"}
    assert "{what}?" in endpoint.asked[0][0]
