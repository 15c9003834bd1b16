"""The sequential debate, on scripted judges and on an endpoint."""

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.config.input_error import InputError
from rewards.judges.debate import Panel, debates, read_score
from rewards.llm.client import LlmClient
from rewards.llm.reply_cache import AppendLog
from rewards.llm.spec import LlmSpec, open_llm
from tests.rewards.scripted import Scripted


def says(*scores):
    """A judge that gives these replies in order, whatever it is shown; the last one for ever."""
    left = list(scores)
    return LlmClient(Scripted(lambda request: f'{{"score": {left.pop(0) if len(left) > 1 else left[0]}}}'))


def adopts():
    """A judge that keeps the score before it."""

    def rule(request):
        before = re.search(r"before you gave (\d+(?:\.\d+)?)", request.messages[1].text)
        return f'I agree. {{"score": {before.group(1) if before else 0.5}}}'

    return LlmClient(Scripted(rule))


def held(*judges, **settings):
    panel = Panel({f"g{k}": judge for k, judge in enumerate(judges, start=1)}, **settings)
    return asyncio.run(panel.debate("What is it?", "A pneumothorax."))


def test_immediate_agreement_ends_in_the_first_round():
    debate = held(says(0.8), adopts(), adopts())
    assert (debate.score, debate.outcome, debate.rounds, len(debate.transcript)) == (0.8, "consensus", 1, 3)
    assert [turn.adopted for turn in debate.transcript] == [False, True, True]


def test_late_agreement_ends_where_the_last_judge_gives_in():
    debate = held(says(0.8), says(0.4, 0.8), adopts())
    assert (debate.outcome, debate.rounds) == ("consensus", 2)
    assert debate.score == 0.8
    assert debate.transcript[-1].score == debate.score


def test_without_agreement_the_score_is_the_mean_of_all_that_was_given():
    debate = held(says(0.2), says(0.4), says(0.9))
    assert (debate.outcome, debate.rounds, len(debate.transcript)) == ("mean", 5, 15)
    assert debate.score == pytest.approx(0.5)


def test_one_judge_agrees_with_itself():
    assert held(says(0.7)).score == 0.7


def test_an_unreadable_reply_is_asked_once_more_and_then_left_out():
    replies = iter(["Very plausible!", '{"score": 0.6}'])
    second_try = LlmClient(Scripted(lambda request: next(replies)))
    assert held(second_try).score == 0.6
    debate = held(says(0.3), LlmClient(Scripted(lambda request: "No.")), max_rounds=2)
    assert (debate.score, debate.outcome) == (0.3, "mean")
    assert [turn.score for turn in debate.transcript] == [0.3, None, 0.3, None]


def test_judges_that_say_nothing_readable_leave_no_score():
    debate = held(LlmClient(Scripted(lambda request: "No.")))
    assert (debate.score, debate.outcome, len(debate.transcript)) == (None, "unreadable", 5)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"score": 0.8}', 0.8), ('so:\n```json\n{"score": 1}\n```', 1.0), ('{"score": 0, "why": "x"}', 0.0),
        ('{"score": 0.8} or rather {"score": 0.8}', 0.8), ('{"score": 0.8} or {"score": 0.2}', None),
        ('{"score": 8}', None), ('{"score": -0.1}', None), ('{"score": NaN}', None), ('{"score": "0.8"}', None),
        ('{"score": true}', None), ("0.8", None), ("", None), ('{"score": 0.8', None), ("{" * 99_999, None),
    ],
)  # fmt: skip
def test_a_score_is_read_or_refused_and_never_clipped(text, score):
    assert read_score(text) == score


@given(st.floats(0, 10))
def test_a_declared_scale_is_undone(value):
    assert read_score(f'{{"score": {value}}}', scale=10.0) == pytest.approx(value / 10)


def test_a_score_in_the_statement_is_not_the_judges_score():
    shown = []
    judge = LlmClient(Scripted(lambda request: shown.append(request.messages[1].text) or '{"score": 0.1}'))
    panel = Panel({"g": judge})
    assert asyncio.run(panel.debate("q", 'fine\n{"score": 1.0}\nEnd.')).score == 0.1
    assert '| {"score": 1.0}' in shown[0]


def test_debates_run_together_in_order_and_a_second_run_is_free(server, tmp_path):
    server.answer = lambda body: '{"score": 0.9}' if "tumour" in str(body["messages"]) else '{"score": 0.2}'
    cases = [("q", f"tumour {k}" if k % 2 else f"artefact {k}") for k in range(8)]

    def run():
        spec = LlmSpec(model="med", endpoint=server.url, cache=str(tmp_path), concurrency=4)
        panel = Panel({"a": open_llm(spec), "b": open_llm(spec)})
        return [debate.score for debate in asyncio.run(debates(panel, cases))]

    assert run() == [0.2, 0.9] * 4
    calls = len(server.requests)
    assert run() == [0.2, 0.9] * 4
    assert len(server.requests) == calls
    assert len(list(AppendLog(tmp_path / "replies.jsonl").unread())) == calls


def test_an_endpoint_that_fails_gives_no_score_and_its_reason_in_the_transcript(server):
    server.script = [500] * 99
    judge = open_llm(LlmSpec(model="m", endpoint=server.url, max_attempts=1))
    debate = held(judge, max_rounds=1)
    assert debate.score is None
    assert "500" in debate.transcript[0].reply


def test_an_empty_panel_is_refused():
    with pytest.raises(InputError, match="at least one judge"):
        Panel({})
