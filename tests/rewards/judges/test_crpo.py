"""CRPO: the published numbers, the better preset, failures, caps, pools; and the round robin."""

import asyncio
import json
import logging
import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.config.input_error import InputError
from rewards.judges.crpo import Crpo, length_correlation, win_rate
from rewards.judges.judge_spec import JudgeSpec
from rewards.judges.judging import DIMENSIONS, Case, LlmJudge, Pair
from rewards.judges.round_robin import RoundRobin
from rewards.llm.budget import Budget, CapReached, Caps
from rewards.llm.client import LlmClient
from rewards.loading import available_batched, load_reward
from tests.rewards.scripted import Scripted

EQUAL = dict.fromkeys(DIMENSIONS, 0.25)
FIGURE_2 = [[1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 1], [0, 1, 1, 0]]  # columns mean .6 .4 .6 .4
TRUTH = (
    '{"rule_set":"chest_xray@1","findings":{"nodule":{"polarity":"present","side":"left"},'
    '"effusion":{"polarity":"absent"},"consolidation":{"polarity":"absent"}}}'
)
GOOD, FAIR, BAD = (
    "There is a nodule on the left. No effusion.",
    "There is a nodule on the left.",
    "There is an effusion.",
)
POOL = [{"model": "sft", "text": FAIR}, {"model": "old", "text": BAD}]


def answers(request):
    text = request.messages[-1].text
    found = re.findall(r"^ANSWER [AB] \w{12}\n((?:\| .*\n?)+)", text, re.MULTILINE)
    return [re.sub(r"^\| ", "", answer, flags=re.MULTILINE).strip() for answer in found]


def line(request, choices):
    mark = re.search(r"^VERDICT (\w+)", request.messages[-1].text, re.MULTILINE).group(1)
    return f"VERDICT {mark} " + json.dumps(dict(zip(DIMENSIONS, choices, strict=True)))


def with_judge(rule, *, caps=None, **knobs):
    """CRPO whose judge is a rule behind the real client, prompt and parser."""
    budget = Budget(caps) if caps else None
    crpo = Crpo(judge=JudgeSpec(model="scripted", endpoint="http://127.0.0.1:9"), **knobs)
    crpo.__dict__["opened"] = LlmJudge(LlmClient(Scripted(rule), budget=budget))
    return crpo


def scores(reward, responses, pool=POOL, **columns):
    rows = {"prompt": ["Describe."] * len(responses), "counterparts": [pool] * len(responses), **columns}
    rows.setdefault("images", [[]] * len(responses))
    return asyncio.run(reward(responses, **rows))


def scripted_outcomes(table):
    """A judge with fixed outcomes of a response against each counterpart ("win", "loss" or "tie" by dimension)."""

    def rule(request):
        a, b = answers(request)
        ours, theirs, first, second = (a, b, "A", "B") if (a, b) in table else (b, a, "B", "A")
        said = {"win": first, "loss": second, "tie": "tie"}
        return line(request, [said[outcome] for outcome in table[ours, theirs]])

    return rule


def test_the_worked_example_of_the_paper_is_one_half():
    table = {("o", f"cp{c}"): ["win" if r else "loss" for r in row] for c, row in enumerate(FIGURE_2)}
    pool = [{"model": f"cp{c}", "text": f"cp{c}"} for c in range(5)]
    judged = scores(with_judge(scripted_outcomes(table), preset="published"), ["o"], pool)
    assert judged.scores == [pytest.approx(0.5)]
    assert [judged.metrics[name] for name in DIMENSIONS] == pytest.approx([0.6, 0.4, 0.6, 0.4])


@pytest.mark.parametrize(("outcome", "published", "better"), [("win", 1.0, 1.0), ("loss", 0.0, 0.0), ("tie", 0.0, 0.5)])
def test_all_wins_losses_and_ties(outcome, published, better):
    table = {("o", p["text"]): [outcome] * 4 for p in POOL}
    assert scores(with_judge(scripted_outcomes(table), preset="published"), ["o"]).scores == [published]
    assert scores(with_judge(scripted_outcomes(table)), ["o"]).scores == [better]


def test_a_group_has_the_published_advantages():
    pool = [{"model": f"cp{c}", "text": f"cp{c}"} for c in range(5)]
    wins = {"a": 10, "b": 15, "c": 5, "d": 10}
    table = {
        (name, f"cp{c}"): ["win" if 4 * c + d < won else "loss" for d in range(4)]
        for name, won in wins.items()
        for c in range(5)
    }
    rewards = np.array(scores(with_judge(scripted_outcomes(table), preset="published"), list(wins), pool).scores)
    assert rewards.tolist() == pytest.approx([0.5, 0.75, 0.25, 0.5])
    advantages = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)
    assert advantages.tolist() == pytest.approx([0, 1.2241, -1.2241, 0], abs=1e-3)


def test_published_rewards_take_one_of_twenty_one_values():
    values = {win_rate([dict(zip(DIMENSIONS, row, strict=True)) for row in FIGURE_2], EQUAL, tie=0.0)}
    assert {round(20 * value) / 20 for value in values} == values


def test_position_bias_earns_nothing_in_the_better_preset():
    first = with_judge(lambda request: line(request, "AAAA"))
    assert scores(first, ["x", "y"]).scores == [0.5, 0.5]
    published = with_judge(lambda request: line(request, "AAAA"), preset="published")
    assert scores(published, ["x", "y"]).scores == [1.0, 1.0]


def test_dimension_weights_reorder_the_answers():
    table = {("p", t["text"]): ["win", "loss", "loss", "loss"] for t in POOL}
    table |= {("q", t["text"]): ["loss", "win", "win", "win"] for t in POOL}
    judge = scripted_outcomes(table)
    even = scores(with_judge(judge), ["p", "q"]).scores
    weights = {"proactiveness": 0.7, "accuracy": 0.1, "usefulness": 0.1, "language": 0.1}
    skewed = scores(with_judge(judge, weights=weights), ["p", "q"]).scores
    assert even == pytest.approx([0.25, 0.75])
    assert skewed == pytest.approx([0.7, 0.3])


def test_a_failed_comparison_is_left_out_and_never_a_loss():
    def rule(request):
        if BAD in request.messages[-1].text:
            return "I would rather not."
        return line(request, "AAAA" if answers(request)[0] == "x" else "BBBB")

    judged = scores(with_judge(rule), ["x"])
    assert judged.scores == [1.0]
    assert judged.metrics["failure_rate"] == 0.5
    assert scores(with_judge(rule, min_valid=0.6), ["x"]).scores == [None]


def test_by_default_half_of_the_comparisons_must_have_a_verdict():
    def rule(request):
        return line(request, "AAAA" if answers(request)[0] == "x" else "BBBB") if FAIR in answers(request) else "No."

    pool = [{"model": str(n), "text": text} for n, text in enumerate([FAIR, BAD, GOOD])]
    assert scores(with_judge(rule), ["x"], pool[:2]).scores == [1.0]
    assert scores(with_judge(rule), ["x"], pool).scores == [None]


def test_one_comparison_that_fails_is_a_failure_rate_of_one():
    assert scores(with_judge(lambda request: "???"), ["x"], POOL[:1]).metrics["failure_rate"] == 1.0


def test_a_judge_that_always_fails_makes_no_score_and_no_nan():
    judged = scores(with_judge(lambda request: "???"), ["x", "y"])
    assert judged.scores == [None, None]
    assert judged.metrics == {"failure_rate": 1.0}


def test_a_row_without_counterparts_cannot_be_judged():
    assert scores(Crpo(), ["x"], [], facts=[TRUTH]).scores == [None]
    assert scores(Crpo(), ["x"], None, facts=[TRUTH]).scores == [None]


def test_the_rules_pay_the_true_report_most():
    judged = scores(Crpo(), [GOOD, FAIR, BAD, ""], facts=[TRUTH] * 4)
    assert judged.scores[0] > judged.scores[1] > judged.scores[2] >= judged.scores[3]
    assert judged.metrics["failure_rate"] == 0.0


def test_held_out_models_never_enter_the_pool():
    reward = Crpo(held_out=["old"])
    alone = scores(Crpo(), [FAIR], POOL[:1], facts=[TRUTH]).scores
    assert scores(reward, [FAIR], facts=[TRUTH]).scores == alone == [0.5]
    with pytest.raises(InputError, match="old is held out for evaluation and also an opponent"):
        Crpo(opponents=["old"], held_out=["old"])


def test_a_named_opponent_must_be_there():
    assert scores(Crpo(opponents=["old"]), [FAIR], facts=[TRUTH]).scores[0] > 0.5
    with pytest.raises(InputError, match=r"no answer of opponent 'stf'.*Did you mean 'sft'"):
        scores(Crpo(opponents=["stf"]), [FAIR], facts=[TRUTH])


def test_a_beaten_pool_is_an_alarm(caplog):
    with caplog.at_level(logging.WARNING):
        judged = scores(Crpo(), [GOOD], POOL[1:], facts=[TRUTH])
    assert judged.metrics["saturated"] == 1.0
    assert "the pool is beaten" in caplog.text
    assert scores(Crpo(), [FAIR], POOL[:1], facts=[TRUTH]).metrics["saturated"] == 0.0
    half = scores(Crpo(saturation=0.5), [FAIR], POOL[:1], facts=[TRUTH]).metrics
    assert (half["win_rate"], half["saturated"]) == (0.5, 0.0)


@pytest.mark.parametrize(("allowed", "calls"), [(8, 8), (7, 4), (4, 4), (3, 2), (2, 2)])
def test_with_fewer_calls_first_the_swap_goes_then_opponents_for_all_alike(allowed, calls):
    made = []

    def rule(request):
        made.append(answers(request))
        return line(request, "AAAA")

    judged = scores(with_judge(rule, max_calls=allowed), ["x", "y"])
    assert len(made) == calls
    assert None not in judged.scores
    assert sum("x" in pair for pair in made) == sum("y" in pair for pair in made) == calls / 2


def test_when_not_one_opponent_can_be_paid_the_run_stops():
    with pytest.raises(CapReached, match="1 judge calls"):
        scores(with_judge(lambda request: line(request, "AAAA"), max_calls=1), ["x", "y"])
    with pytest.raises(CapReached, match="1 judge calls"):
        scores(with_judge(lambda request: line(request, "AAAA"), caps=Caps(calls=1)), ["x", "y"])


def test_a_second_run_asks_the_judge_nothing(server, tmp_path):
    server.answer = lambda body: "Hm." if "no one" in body["model"] else _verdict(body)

    def run():
        judge = JudgeSpec(model="j", endpoint=server.url, cache=str(tmp_path))
        return scores(Crpo(judge=judge), ["x", "y", "x"]).scores

    first = run()
    calls = len(server.requests)
    assert calls == 8  # two different responses, two opponents, two orders
    assert run() == first == [0.5, 0.5, 0.5]
    assert len(server.requests) == calls


def _verdict(body):
    mark = re.search(r"^VERDICT (\w+)", body["messages"][-1]["content"], re.MULTILINE).group(1)
    return f"VERDICT {mark} " + json.dumps(dict.fromkeys(DIMENSIONS, "A"))


def test_any_number_of_calls_at_once_gives_the_same_scores(server):
    server.answer = _verdict
    found = [
        scores(Crpo(judge=JudgeSpec(model="j", endpoint=server.url, concurrency=n), swap=False), ["x", "y"]).scores
        for n in (1, 7)
    ]
    assert found[0] == found[1] == [1.0, 1.0]


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=4, max_size=4), st.floats(0, 1))
def test_a_win_rate_is_within_bounds_and_monotone(values, tie):
    verdict = dict(zip(DIMENSIONS, values, strict=True))
    rate = win_rate([verdict], EQUAL, tie=tie)
    assert 0.0 <= rate <= 1.0
    for name in DIMENSIONS:
        assert win_rate([{**verdict, name: 1.0}], EQUAL, tie=tie) >= rate - 1e-12


def test_a_judge_that_loves_length_is_seen():
    def longer(request):
        a, b = map(len, answers(request))
        return line(request, ("A" if a > b else "B") * 4)

    judged = scores(with_judge(longer), ["word " * 40, "no", "w " * 20, "a"])
    assert judged.metrics["length_correlation"] > 0.8
    assert length_correlation([Pair(Case(""), "a", "b")] * 3, [EQUAL] * 3) is None


def test_length_correlation_by_hand():
    # leads of log(10 / 2) and log(2 / 10): the longer one loses; then log(8 / 4) against 0, in score .5 against 0
    long, short = "x" * 9, "x"
    two = [Pair(Case(""), long, short), Pair(Case(""), short, long)]
    assert length_correlation(two, [{"accuracy": 0.0}, {"accuracy": 1.0}]) == pytest.approx(-1)
    near = [Pair(Case(""), "x" * 7, "xxx"), Pair(Case(""), "xxx", "xxx")]
    assert length_correlation(near, [{"accuracy": 0.5}, {"accuracy": 0.0}]) == pytest.approx(1)
    assert length_correlation(two, [{"accuracy": 1.0}] * 2) is None
    assert length_correlation([two[0]] * 2, [{"accuracy": 0.0}, {"accuracy": 1.0}]) is None
    assert length_correlation(two[:1], [{"accuracy": 1.0}]) is None
    # leads log 5, 0 and 0 with scores 1, 1 and 0: by the formula of Pearson .5
    three = [two[0], Pair(Case(""), "x", "x"), Pair(Case(""), "xx", "xx")]
    assert length_correlation(three, [{"accuracy": 1.0}, {"accuracy": 1.0}, {"accuracy": 0.0}]) == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["crpo", "round_robin"])
def test_batch_rewards_load_by_name_with_checked_knobs(name):
    assert name in available_batched()
    reward = load_reward(name)
    assert reward.bounds == (0.0, 1.0)
    assert pickle.loads(pickle.dumps(reward)) == reward
    with pytest.raises(InputError, match="Did you mean 'judge'"):
        load_reward(name, juge="facts")
    with pytest.raises(InputError, match="knob 'min_valid': got 'x'"):
        load_reward(name, min_valid="x")
    with pytest.raises(InputError, match=r"knob 'judge\.concurrency': got 0"):
        load_reward(name, judge={"model": "m", "endpoint": "http://x", "concurrency": 0})
    with pytest.raises(InputError, match=f"'{name}' has no knob 'local'"):
        load_reward(name, local=None)


def test_what_is_read_of_a_row_follows_the_judge():
    model = {"model": "m", "endpoint": "http://127.0.0.1:9/v1"}
    assert load_reward("crpo").columns == ("prompt", "counterparts", "facts")
    assert load_reward("crpo", judge=model, reference="answer").columns == (
        "prompt", "counterparts", "images", "answer",
    )  # fmt: skip
    assert load_reward("round_robin", judge=model).columns == ("prompt", "images")


@pytest.mark.parametrize(
    "knobs",
    [
        {"weights": {"accuracy": 0.5}}, {"weights": {"acuracy": 1.0}}, {"weights": {"accuracy": 1.5, "language": -0.5}},
        {"tie": 1.5}, {"tie": -0.5},
    ],
)  # fmt: skip
def test_knobs_out_of_range_are_refused(knobs):
    with pytest.raises(InputError, match="'crpo', knob"):
        load_reward("crpo", **knobs)


def test_a_tie_may_pay_all_or_nothing_and_a_dimension_may_count_nothing():
    ties = [scores(with_judge(lambda r: line(r, ["tie"] * 4), tie=tie), ["x"]).scores for tie in (0.0, 1.0)]
    assert ties == [[0.0], [1.0]]
    assert Crpo(weights={"accuracy": 1.0, "language": 0.0}).dimension_weights == {"accuracy": 1.0, "language": 0.0}


def test_a_local_model_is_no_knob():
    with pytest.raises(InputError, match="local"):
        load_reward("crpo", local="smollm2")


def robin(responses, prompts=None, facts=TRUTH, **knobs):
    columns = {"prompt": prompts or ["Describe."] * len(responses), "facts": [facts] * len(responses)}
    return asyncio.run(RoundRobin(**knobs)(responses, **columns)).scores


@given(st.permutations([GOOD, FAIR, BAD, "", "No nodule."]))
def test_a_round_robin_is_zero_sum_and_blind_to_the_order(responses):
    found = dict(zip(responses, robin(responses), strict=True))
    assert sum(found.values()) == pytest.approx(2.5)
    in_order = sorted(responses)
    assert found == pytest.approx(dict(zip(in_order, robin(in_order), strict=True)))
    assert max(found, key=found.__getitem__) == GOOD


def test_a_round_robin_stays_within_its_prompt():
    assert robin([GOOD, BAD, GOOD], prompts=["p", "p", "q"])[2] is None
    mixed = robin([GOOD, GOOD, BAD, FAIR], prompts=["p", "q", "p", "q"])
    assert mixed == [
        *robin([GOOD, BAD])[:1],
        *robin([GOOD, FAIR])[:1],
        *robin([GOOD, BAD])[1:],
        *robin([GOOD, FAIR])[1:],
    ]


def test_a_group_of_eight_makes_twenty_eight_comparisons():
    made = []
    reward = RoundRobin(swap=False)

    class Counting:
        calls_left = None

        async def compare(self, pairs):
            made.extend(pairs)
            return [dict.fromkeys(DIMENSIONS, 0.5)] * len(pairs)

        def num_calls(self, pairs):
            return len(pairs)

    reward.__dict__["opened"] = Counting()
    columns = {"prompt": ["p"] * 8, "facts": [TRUTH] * 8}
    assert asyncio.run(reward([str(n) for n in range(8)], **columns)).scores == [0.5] * 8
    assert len(made) == 28
