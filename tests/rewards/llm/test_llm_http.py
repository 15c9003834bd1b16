"""The client against a real endpoint that misbehaves."""

import asyncio
import json
import logging
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from rewards.config.input_error import InputError
from rewards.config.strict_yaml import validated
from rewards.llm.client import Completion, Failure, LlmStop, Message, Request, ask
from rewards.llm.reply import retry_after_s
from rewards.llm.spec import LlmSpec, open_llm

PIXEL = bytes.fromhex("89504e470d0a1a0a")


def client(server, **settings):
    content = {"model": "judge-1", "endpoint": server.url, "max_wait_s": 0.05, "timeout_s": 5.0, **settings}
    return open_llm(LlmSpec.model_validate(content))


def reply(server, *, text="Is it?", **settings):
    return client(server, **settings).complete_now([ask(text)])[0]


def test_a_reply_comes_back_with_its_tokens(server):
    assert reply(server) == Completion("echo: Is it?", 7, 3)


@pytest.mark.parametrize(
    "act", [(429, {"Retry-After": "0.01"}), 500, 502, 503, 408, 409, "drop", "truncated", "broken json",
            "wrong schema", "null content"],
)  # fmt: skip
def test_a_transient_fault_is_tried_again(server, act):
    server.script = [act, act]
    assert reply(server) == Completion("echo: Is it?", 7, 3)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("act", "kind"),
    [(429, "rate_limit"), (500, "server"), ("broken json", "malformed"), ("truncated", "malformed"), (408, "timeout")],
)
def test_a_fault_that_stays_is_a_named_failure_after_the_attempts_allowed(server, act, kind):
    server.script = [act] * 9
    failure = reply(server, max_attempts=3)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.attempts, len(server.requests)) == (kind, 3, 3)


@pytest.mark.parametrize("act", ["hang", "drip"])
def test_an_endpoint_that_never_ends_its_reply_times_out_as_a_whole(server, act):
    server.script = [act, 200]
    started = time.monotonic()
    assert reply(server, timeout_s=0.3) == Completion("echo: Is it?", 7, 3)
    assert 0.3 <= time.monotonic() - started < 20  # and not the 30 s of the server
    server.script = [act]
    assert reply(server, timeout_s=0.2, max_attempts=1, text="Again?").kind == "timeout"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_permanent_fault_stops_at_once_and_says_what_came(server, status):
    server.script = [status]
    with pytest.raises(LlmStop, match=f"answered {status}: .*scripted"):
        reply(server)
    assert len(server.requests) == 1


def test_a_spent_quota_is_not_a_rate_limit(server):
    server.script = ["no quota", 200]
    with pytest.raises(LlmStop, match="insufficient_quota"):
        reply(server)
    assert len(server.requests) == 1


def test_a_redirect_is_not_followed(server):
    server.script = [(307, {"Location": "http://192.0.2.1/v1/chat/completions"})]
    with pytest.raises(LlmStop, match="answered 307"):
        reply(server)


def test_a_refusal_is_a_failure_without_another_attempt(server):
    server.script = ["refusal", 200]
    failure = reply(server)
    assert failure == Failure("refused", "I cannot help with that.")
    assert len(server.requests) == 1


def test_a_reply_cut_at_its_length_says_so(server):
    server.finish = "length"
    assert reply(server).truncated


def test_retry_after_is_kept_to(server):
    server.script = [(429, {"Retry-After": "0.4"})]
    started = time.monotonic()
    reply(server, max_wait_s=1.0)
    assert time.monotonic() - started >= 0.4


def test_a_server_that_asks_for_more_patience_than_allowed_gets_no_second_call(server):
    server.script = [(429, {"Retry-After": "3600"})]
    failure = reply(server, max_wait_s=1.0)
    assert (failure.kind, failure.attempts, len(server.requests)) == ("rate_limit", 1, 1)


def test_retry_after_may_be_a_date():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=90))
    assert 80 < retry_after_s(soon) <= 90
    assert retry_after_s(format_datetime(datetime.now(UTC) - timedelta(days=1))) == 0.0


def test_a_dead_endpoint_is_one_clear_error():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spec = LlmSpec(model="m", endpoint=f"http://127.0.0.1:{port}/v1", max_attempts=2, max_wait_s=0.01)
    with pytest.raises(LlmStop, match=rf"no connection after 2 attempts .*{port}"):
        open_llm(spec).complete_now([ask(str(n)) for n in range(20)])


def test_what_was_answered_before_a_stop_is_kept(server, tmp_path):
    server.script = [200, 200, 401]
    settings = {"cache": str(tmp_path), "concurrency": 1}
    requests = [ask(str(n)) for n in range(5)]
    with pytest.raises(LlmStop, match="answered 401"):
        client(server, **settings).complete_now(requests)
    replies = client(server, **settings).complete_now(requests)
    assert [r.cached for r in replies] == [True, True, False, False, False]
    assert len(server.requests) == 6


def test_no_more_calls_run_at_once_than_allowed(server):
    server.delay_s = 0.05
    replies = client(server, concurrency=4).complete_now([ask(str(n)) for n in range(24)])
    assert [r.text for r in replies] == [f"echo: {n}" for n in range(24)]
    assert server.most_at_once == 4


def test_images_travel_as_data_urls_before_the_text(server):
    reply_to = client(server)
    server.answer = lambda body: "seen"
    reply_to.complete_now([Request((Message("user", "What is it?", (PIXEL, PIXEL)),))])
    content = server.requests[0]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "image_url", "text"]
    assert content[0]["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo")


def test_bytes_that_are_no_image_are_refused_before_a_call(server):
    with pytest.raises(InputError, match="must be PNG"):
        client(server).complete_now([ask("?", images=(b"BM6",))])
    assert server.requests == []


def test_settings_reach_the_endpoint_and_samples_have_their_seed(server):
    request = Request((Message("user", "x"),), max_tokens=9, temperature=0.5, sample=3)
    client(server, extra={"top_p": 0.9}).complete_now([request])
    sent = server.requests[0]
    assert (sent["model"], sent["max_tokens"], sent["temperature"], sent["seed"], sent["top_p"]) == (
        "judge-1", 9, 0.5, 3, 0.9,
    )  # fmt: skip


def test_the_key_is_sent_and_shows_nowhere_else(server, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TEST_JUDGE_KEY", "sk-secret-1234567890")
    caplog.set_level(logging.DEBUG)
    server.answer = lambda body: "your key is sk-secret-1234567890"
    judge = client(server, key_env="TEST_JUDGE_KEY", cache=str(tmp_path))
    kept = judge.complete_now([ask("x")])[0]
    assert server.headers[0]["Authorization"] == "Bearer sk-secret-1234567890"
    server.script = ["echo key"]
    with pytest.raises(LlmStop, match="Check the key in TEST_JUDGE_KEY") as stopped:
        judge.complete_now([ask("y")])
    everything = [kept.text, str(stopped.value), repr(judge), caplog.text, *(p.read_text() for p in tmp_path.iterdir())]
    assert not any("sk-secret" in text for text in everything)


def test_a_key_that_is_not_set_is_an_error_before_any_call(server, monkeypatch):
    monkeypatch.delenv("TEST_JUDGE_KEY", raising=False)
    with pytest.raises(InputError, match="variable TEST_JUDGE_KEY"):
        reply(server, key_env="TEST_JUDGE_KEY")
    assert server.requests == []


def test_proxies_and_passwords_of_the_environment_are_not_used(server, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:9")
    assert reply(server).text == "echo: Is it?"
    assert "Authorization" not in server.headers[0]


def test_without_an_endpoint_nothing_can_be_sent():
    with pytest.raises(InputError, match="no endpoint"):
        open_llm(LlmSpec(model="gpt-x"))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"endpoint": "127.0.0.1:80"}, "must begin with http"),
        ({"key_env": "sk-123-abc"}, "never the key itself"),
        ({"endpont": "http://x"}, "Did you mean 'endpoint'"),
        ({"caps": {"call": 3}}, "Did you mean 'calls'"),
        ({"concurrency": 0}, "greater than or equal to 1"),
    ],
)
def test_a_fault_of_the_section_is_named_with_its_cure(content, complaint):
    with pytest.raises(InputError, match=complaint):
        validated(LlmSpec, {"model": "m", **content}, where="judge")


def test_a_key_in_the_wrong_place_is_not_shown_in_full():
    with pytest.raises(InputError) as fault:
        validated(LlmSpec, {"model": "m", "key_env": "sk-123-abc"}, where="judge")
    assert "sk-123-abc" not in str(fault.value)


def test_the_client_works_inside_a_running_loop(server):
    async def both():
        judge = client(server)
        return await asyncio.gather(judge.complete([ask("a")]), judge.complete([ask("b")]))

    assert [r[0].text for r in asyncio.run(both())] == ["echo: a", "echo: b"]


def test_the_body_of_a_plain_request_is_golden(server):
    reply(server)
    assert server.requests[0] == json.loads(
        '{"model": "judge-1", "messages": [{"role": "user", "content": "Is it?"}], "max_tokens": 512,'
        ' "temperature": 0.0}'
    )
