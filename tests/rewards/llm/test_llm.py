"""Cache, ledger and caps: over runs, processes and kills."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.llm.budget import Budget, CapReached, Caps, Price, Spent
from rewards.llm.client import Completion, LlmClient, Transient, ask, with_turns
from rewards.llm.reply_cache import AppendLog, ReplyCache
from rewards.llm.spec import LlmSpec, open_llm
from tests.rewards.scripted import Scripted

ROOT = Path(__file__).parents[3]


class Counted:
    """A rule that counts its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, request):
        self.calls.append(request.messages[-1].text)
        return request.messages[-1].text.upper()


def cached_client(folder, rule, **settings):
    return LlmClient(Scripted(rule), cache=ReplyCache(folder / "replies.jsonl"), **settings)


def test_a_second_run_makes_no_call(tmp_path):
    rule = Counted()
    requests = [ask("a"), ask("b"), ask("a")]
    first = cached_client(tmp_path, rule).complete_now(requests)
    second = cached_client(tmp_path, rule).complete_now(requests)
    assert [r.text for r in first] == [r.text for r in second] == ["A", "B", "A"]
    assert sorted(rule.calls) == ["a", "b"]
    assert all(r.cached for r in second)


@pytest.mark.parametrize(
    "other", [ask("a", version="2"), ask("a", max_tokens=9), ask("a", sample=1), ask("a", temperature=0.1),
              ask("a", images=(b"x",)), ask("a", system="s"), ask("a", choices=("A", "B")), ask("b")],
)  # fmt: skip
def test_whatever_changes_the_question_misses_the_cache(tmp_path, other):
    rule = Counted()
    cached_client(tmp_path, rule).complete_now([ask("a")])
    assert cached_client(tmp_path, rule).complete_now([other])[0].cached is False
    assert ask("a", images=(b"x",)).key("m") != ask("a", images=(b"y",)).key("m")


def test_failures_are_not_cached(tmp_path):
    def fails(request):
        raise Transient("server", "down")

    first = cached_client(tmp_path, fails, max_attempts=2, max_wait_s=0.0).complete_now([ask("a")])[0]
    assert (first.kind, first.attempts) == ("server", 2)
    assert cached_client(tmp_path, Counted()).complete_now([ask("a")])[0] == Completion("A", 0, 0)


def test_a_bug_of_a_rule_is_not_swallowed(tmp_path):
    with pytest.raises(ZeroDivisionError):
        cached_client(tmp_path, lambda request: str(1 / 0)).complete_now([ask("a")])


@settings(max_examples=25)
@given(st.lists(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.none()), max_size=4), max_size=6))
def test_a_log_gives_back_what_was_appended(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("log") / "x.jsonl"
    for entry in entries:
        AppendLog(path).append(entry)
    assert list(AppendLog(path).unread()) == entries


@pytest.mark.parametrize("cut", range(2, 60, 7))
def test_a_torn_last_line_is_asked_again_and_hurts_no_other(tmp_path, cut):
    rule = Counted()
    cached_client(tmp_path, rule).complete_now([ask("a")])
    cached_client(tmp_path, rule).complete_now([ask("b")])
    file = tmp_path / "replies.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    assert [r.cached for r in cached_client(tmp_path, rule).complete_now([ask("a"), ask("b")])] == [True, False]
    fresh = cached_client(tmp_path, rule)
    assert [r.cached for r in fresh.complete_now([ask("a"), ask("b")])] == [True, True]
    assert fresh.cache.log.damaged == 1


def test_a_line_with_a_flipped_byte_is_recomputed(tmp_path):
    cached_client(tmp_path, Counted()).complete_now([ask("a")])
    file = tmp_path / "replies.jsonl"
    file.write_text(file.read_text().replace('"text": "A"', '"text": "Z"'))
    again = cached_client(tmp_path, Counted()).complete_now([ask("a")])[0]
    assert (again.text, again.cached) == ("A", False)


WORKER = """
import sys
from pathlib import Path
from rewards.llm.client import LlmClient, ask
from rewards.llm.spec import LlmSpec, open_llm
url, folder, first, last = sys.argv[1:]
spec = LlmSpec(model="m", endpoint=url, cache=folder, concurrency=4)
open_llm(spec).complete_now([ask(str(n)) for n in range(int(first), int(last))])
"""


def worker(server, folder, first, last):
    command = [sys.executable, "-c", WORKER, server.url, str(folder), str(first), str(last)]
    return subprocess.Popen(command, cwd=ROOT)


def asked(server):
    return sorted(int(body["messages"][-1]["content"]) for body in server.requests)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_without_repeating_an_answered_call(server, tmp_path):
    server.delay_s = 0.03
    first = worker(server, tmp_path, 0, 60)
    while len(server.requests) < 20:
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    kept = len(list(AppendLog(tmp_path / "replies.jsonl").unread()))
    assert 10 <= kept < 60
    calls = len(server.requests)
    assert worker(server, tmp_path, 0, 60).wait() == 0
    assert len(server.requests) - calls == 60 - kept
    assert calls - kept <= 4  # only those under way when it was killed are asked twice
    assert len(list(AppendLog(tmp_path / "replies.jsonl").unread())) == 60


@pytest.mark.slow
def test_two_processes_share_one_cache_and_one_ledger(server, tmp_path):
    both = [worker(server, tmp_path, 0, 60), worker(server, tmp_path, 60, 120)]
    assert [process.wait() for process in both] == [0, 0]
    assert asked(server) == list(range(120))
    assert len(list(AppendLog(tmp_path / "replies.jsonl").unread())) == 120
    assert Budget(ledger=tmp_path / "ledger.jsonl").spent == Spent(120, 1200, 0.0)


def test_caps_hold_however_many_calls_run_at_once(server):
    server.delay_s = 0.02
    spec = LlmSpec(model="m", endpoint=server.url, concurrency=16, caps=Caps(calls=10))
    with pytest.raises(CapReached, match="cap of 10 calls"):
        open_llm(spec).complete_now([ask(str(n)) for n in range(40)])
    assert len(server.requests) <= 10


def test_a_cap_holds_over_runs_and_what_was_answered_is_kept(server, tmp_path):
    spec = LlmSpec(model="m", endpoint=server.url, concurrency=1, caps=Caps(calls=3), cache=str(tmp_path))
    for _ in range(2):
        with pytest.raises(CapReached, match="Replies so far are kept"):
            open_llm(spec).complete_now([ask(str(n)) for n in range(5)])
    assert len(server.requests) == 3
    more = spec.model_copy(update={"caps": Caps(calls=5)})
    assert len(open_llm(more).complete_now([ask(str(n)) for n in range(5)])) == 5
    assert len(server.requests) == 5


def test_a_failed_attempt_counts_as_a_call(server):
    server.script = [500, 500]
    spec = LlmSpec(model="m", endpoint=server.url, max_wait_s=0.01, caps=Caps(calls=2))
    with pytest.raises(CapReached):
        open_llm(spec).complete_now([ask("x")])
    assert len(server.requests) == 2


def test_money_is_settled_at_what_the_endpoint_counted():
    budget = Budget(Caps(cost=1.0), Price(prompt=1e6, completion=2e6, image_tokens=0))
    call = budget.reserve(0, 0, 0)
    budget.settle(call, (0, 0))
    with pytest.raises(CapReached, match="cost"):
        budget.reserve(2, 0, 0)
    budget.settle(budget.reserve(1, 0, 0), (0, 0))
    assert budget.spent == Spent(2, 0, 0.0)


def test_a_call_whose_process_died_counts_at_its_most(tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    Budget(Caps(tokens=100), ledger=ledger).reserve(60, 0, 30)
    again = Budget(Caps(tokens=100), ledger=ledger)
    assert again.spent == Spent(1, 90, 0.0)
    with pytest.raises(CapReached, match="tokens"):
        again.reserve(5, 0, 6)
    again.settle(again.reserve(5, 0, 5), (2, 1))
    assert again.spent.tokens == 93


def test_images_count_towards_the_tokens():
    with pytest.raises(CapReached):
        Budget(Caps(tokens=4096)).reserve(0, 1, 1)


def test_time_is_capped(monkeypatch):
    budget = Budget(Caps(seconds=10.0))
    now = time.monotonic()
    budget.reserve(0, 0, 1)
    monkeypatch.setattr(time, "monotonic", lambda: now + 11)
    with pytest.raises(CapReached, match=r"10\.0 seconds"):
        budget.reserve(0, 0, 1)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.booleans()), max_size=30), st.integers(0, 300))
def test_settled_spending_never_passes_the_cap(calls, cap):
    budget = Budget(Caps(tokens=cap))
    for prompt, written, settled in calls:
        try:
            call = budget.reserve(prompt, 0, written)
        except CapReached:
            continue
        if settled:
            budget.settle(call, (prompt // 2, written // 2))
        assert budget.spent.tokens <= cap


def test_uncached_calls_are_counted_before_they_are_made(tmp_path):
    client = cached_client(tmp_path, Counted())
    client.complete_now([ask("a")])
    assert client.num_uncached([ask("a"), ask("b"), ask("b"), ask("c")]) == 2


def test_turns_are_added_at_the_end():
    from rewards.llm.client import Message

    more = with_turns(ask("a"), Message("assistant", "b"), Message("user", "c"))
    assert [m.text for m in more.messages] == ["a", "b", "c"]


def test_the_cache_file_holds_one_checked_line_a_reply(tmp_path):
    cached_client(tmp_path, Counted()).complete_now([ask("a"), ask("b")])
    lines = (tmp_path / "replies.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert sorted(json.loads(line.partition(" ")[2])["entry"]["text"] for line in lines) == ["A", "B"]
