"""Whatever an endpoint sends: one named failure or a reply that can be kept, never a key, never a lower count."""

import asyncio
import gzip
import json
import logging
import os
from dataclasses import asdict

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.config.input_error import InputError
from rewards.config.strict_yaml import validated
from rewards.llm.budget import Budget, CapReached, Caps, Price, Spent
from rewards.llm.client import Completion, Declined, Failure, LlmStop, Message, Request, Transient, ask
from rewards.llm.endpoint import MAX_REPLY_BYTES, Endpoint, _unpacked
from rewards.llm.keys import without_key
from rewards.llm.reply import MAX_TOKENS, completion_from, retry_after_s
from rewards.llm.spec import LlmSpec, open_llm

KEY = "sk-proj-4f9Zq1LmN8tRw2Xy"


class Sends:
    """What the fixture's server sends: the reply of a request, and the headers beside it."""

    def __init__(self, server, body, *, status=200, headers=()):
        self.body, self.status, self.headers = body, status, dict(headers)
        handler = server.http.RequestHandlerClass
        handler.perform = lambda connection, act, body: connection.send(self.status, self.body, self.headers)


def outcome(server, body, *, status=200, headers=(), **spec):
    Sends(server, body, status=status, headers=headers)
    content = {"model": "m", "endpoint": server.url, "max_attempts": 1, "timeout_s": 20.0, **spec}
    return open_llm(LlmSpec.model_validate(content)).complete_now([ask("Is it?")])[0]


def chat(content="yes", usage=None, **choice):
    body = {"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop", **choice}]}
    return json.dumps(body | ({} if usage is None else {"usage": usage})).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"7", b'"x"', b"true", b"\xff\xfe", b"{", b"[" * 100_000, b'{"a":' * 100_000,
        b'{"choices": []}', b'{"choices": {}}', b'{"choices": null}', b'{"choices": "abc"}', b'{"choices": [[]]}',
        b'{"choices": [{"message": []}]}', b'{"choices": [{"message": "yes"}]}', b"<html>busy</html>",
        b'{"choices": [' + b"9" * 5000 + b"]}", chat(None), chat([{"type": "text", "text": "yes"}]), chat(7),
        chat({"a": 1}), chat(None, finish_reason="tool_calls"), chat(True), b"NaN", b'{"choices": [NaN]}',
        chat().replace(b'"yes"', b"Infinity"),
    ],
)  # fmt: skip
def test_what_is_no_chat_completion_is_a_named_failure(server, body):
    failure = outcome(server, body)
    assert isinstance(failure, Failure)
    assert failure.kind == "malformed"
    assert failure.reason.isprintable()
    assert len(failure.reason) <= 600


@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream", "image/png; charset=utf-99", "\xe9"])
def test_the_type_that_a_reply_calls_itself_decides_nothing(server, kind):
    assert outcome(server, chat(), headers={"Content-Type": kind}).text == "yes"


@pytest.mark.parametrize(
    ("packing", "body", "why"),
    [
        ("gzip", gzip.compress(b" " * (MAX_REPLY_BYTES + 1)), "more than 20000000 bytes"),
        ("gzip", b"no gzip at all", "header check"),
        ("gzip", gzip.compress(chat())[:-20], "not a chat completion"),
        ("gzip, gzip", gzip.compress(gzip.compress(chat())), "packed as 'gzip, gzip'"),
        ("br", b"x", "packed as 'br'"),
        ("identity", b" " * (MAX_REPLY_BYTES + 1), "more than 20000000 bytes"),
    ],
    ids=["too large", "not packed", "cut", "packed twice", "unknown", "too large unpacked"],
)
def test_a_reply_is_unpacked_within_bounds(server, packing, body, why):
    failure = outcome(server, body, headers={"Content-Encoding": packing})
    assert failure.kind == "malformed"
    assert why in failure.reason


def test_no_piece_of_a_reply_is_unpacked_beyond_what_is_allowed():
    async def sizes():
        async def sent():
            yield gzip.compress(bytes(3 * MAX_REPLY_BYTES))

        response = httpx2.Response(200, headers={"Content-Encoding": "gzip"}, content=sent())
        return [len(piece) async for piece in _unpacked(response)]

    assert asyncio.run(sizes()) == [MAX_REPLY_BYTES + 1]


def test_a_packed_reply_is_read(server):
    assert outcome(server, gzip.compress(chat()), headers={"Content-Encoding": "gzip"}).text == "yes"


NO_COUNTS = [-1, -(10**30), MAX_TOKENS + 1, 10**400, 1.5, True, "7", None, [], {}, float("nan"), float("inf")]


@pytest.mark.parametrize("count", NO_COUNTS)
def test_a_count_that_can_be_none_leaves_the_call_at_its_most(count):
    kept = completion_from(chat(usage={"prompt_tokens": count, "completion_tokens": 3}))
    assert (kept.text, kept.prompt_tokens, kept.completion_tokens) == ("yes", None, 3)


@pytest.mark.parametrize("usage", [[], "x", 7, True, {"prompt_tokens": -500, "completion_tokens": -500}, {}])
def test_no_usage_lowers_what_is_spent(server, usage, tmp_path):
    spec = {"cache": str(tmp_path), "caps": Caps(calls=9, tokens=10_000)}
    outcome(server, chat(usage=usage), **spec)
    # 6 bytes of "Is it?" and 512 of the reply stay booked.
    assert Budget(ledger=tmp_path / "ledger.jsonl").spent == Spent(1, 518, 0.0)


def test_no_count_is_below_the_words_that_were_sent_and_came(server, tmp_path):
    outcome(server, chat("one two three", {"prompt_tokens": 0, "completion_tokens": 0}), cache=str(tmp_path))
    assert Budget(ledger=tmp_path / "ledger.jsonl").spent.tokens == 2 + 3


def test_negative_counts_never_open_a_cap(server, tmp_path):
    Sends(server, chat(usage={"prompt_tokens": -(10**6), "completion_tokens": -(10**6)}))
    spec = LlmSpec(model="m", endpoint=server.url, caps=Caps(tokens=1100), cache=str(tmp_path), concurrency=1)
    client = open_llm(spec)
    with pytest.raises(CapReached):
        client.complete_now([ask(f"Is it {n}?") for n in range(9)])
    assert len(server.requests) == 2


def test_an_entry_of_an_older_ledger_gives_nothing_back(tmp_path):
    budget = Budget(Caps(tokens=100), Price(prompt=1.0), ledger=tmp_path / "ledger.jsonl")
    call = budget.reserve(60, 0, 30)
    for tokens, cost in ((-(10**9), 0.0), (5, float("nan")), (5, float("-inf")), (5, -1.0)):
        budget._log.append({"call": call, "tokens": tokens, "cost": cost})
    assert budget.spent.tokens == 90
    budget.settle(call, (-5, 3))
    assert Budget(ledger=tmp_path / "ledger.jsonl").spent.tokens == 90


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "usage", "refusal", "prompt_tokens", "finish_reason"]),
            inner,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300)
@given(ANYTHING, st.sampled_from(["body", "choice", "message", "content", "usage"]))
def test_any_json_is_a_completion_or_a_named_fault(value, place):
    body = {"choices": [{"message": {"content": "yes"}}]}
    if place == "body":
        body = value
    elif place == "choice":
        body["choices"] = [value]
    elif place == "message":
        body["choices"][0]["message"] = value
    elif place == "content":
        body["choices"][0]["message"]["content"] = value
    else:
        body["usage"] = value
    told = ""
    try:
        kept = completion_from(json.dumps(body).encode())
    except (Transient, Declined) as fault:
        kept, told = Completion(""), str(fault)
    assert told.isprintable()
    kept.text.encode()
    assert all(count is None or 0 <= count <= MAX_TOKENS for count in (kept.prompt_tokens, kept.completion_tokens))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_named_fault(body):
    with pytest.raises(Transient) as fault:
        completion_from(body)
    assert str(fault.value).isprintable()


def test_half_a_character_is_replaced_and_the_reply_can_be_kept(server, tmp_path):
    body = chat().replace(b'"yes"', rb'"a\ud800b \ud83d\ude00"')
    first = outcome(server, body, cache=str(tmp_path))
    again = outcome(server, body, cache=str(tmp_path))
    assert (first.text, again.text, again.cached) == ("a\ufffdb \U0001f600", first.text, True)
    (tmp_path / "transcript.txt").write_text(first.text, encoding="utf-8")


def test_half_a_character_in_a_prompt_is_sent_and_paid():
    assert ask("a\ud800").prompt_bytes == 4
    assert ask("a\ud800").key("m")


@pytest.mark.parametrize("status", [400, 401, 500, 307])
def test_nothing_that_steers_a_terminal_is_told_as_it_came(server, status):
    said = "red \x1b[31m \x9b2J \u202eback \u2066 \x07\r\nend".encode()
    try:
        told = outcome(server, said, status=status).reason
    except LlmStop as stopped:
        told = str(stopped)
    assert told.isprintable()
    assert r"red \x1b[31m \x9b2J \u202eback \u2066 \x07 end" in told


def test_a_refusal_is_told_without_what_steers_a_terminal(server):
    body = {"choices": [{"message": {"content": None, "refusal": "no \x1b[2J" + "x" * 9000}}]}
    failure = outcome(server, json.dumps(body).encode())
    assert failure.kind == "refused"
    assert failure.reason.isprintable()
    assert len(failure.reason) <= 300


def parts_of(key, size):
    return [key[k : k + size] for k in range(len(key) - size + 1)]


@pytest.mark.parametrize("status", [200, 400, 401, 500])
@pytest.mark.parametrize("echo", [KEY, f"{KEY[:10]}****{KEY[-4:]}", KEY * 9, "x" * 290 + KEY])
def test_no_part_of_a_key_is_shown_whatever_the_server_echoes(server, tmp_path, monkeypatch, caplog, status, echo):
    monkeypatch.setenv("TEST_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    body = f"wrong key: {echo}".encode() if status != 200 else chat(f"your key is {KEY}. {KEY[:-1]}")
    told = ""
    try:
        got = outcome(server, body, status=status, key_env="TEST_KEY", cache=str(tmp_path))
        told = str(asdict(got))
    except LlmStop as stopped:
        told = str(stopped)
    files = "".join(path.read_text() for path in tmp_path.iterdir())
    size = 4 if status != 200 else 12
    assert not any(part in told + files for part in parts_of(KEY, size))
    assert KEY not in caplog.text


@pytest.mark.parametrize("around", ["{}\n", "{}\r\nX-Evil: 1", "{} ", "{}\u00e9", "{}\x00", "\t{}"])
def test_a_key_that_no_header_can_hold_is_one_sentence_without_it(server, monkeypatch, around):
    bad = around.format(KEY)
    if "\x00" in bad:
        monkeypatch.setattr(os, "environ", {**os.environ, "TEST_KEY": bad})
    else:
        monkeypatch.setenv("TEST_KEY", bad)
    with pytest.raises(InputError, match="the key in TEST_KEY holds a blank, a line break") as fault:
        outcome(server, chat(), key_env="TEST_KEY")
    assert not any(part in str(fault.value) for part in parts_of(KEY, 4))
    assert server.requests == []


@pytest.mark.parametrize("value", [KEY, "hf_aBcDeFgHiJkL", ["sk-proj-12"], {"sk-proj-12": 1}, 12345678])
def test_a_key_in_the_place_of_its_variable_is_not_shown(value):
    with pytest.raises(InputError, match="never the key itself") as fault:
        validated(LlmSpec, {"model": "m", "key_env": value}, where="judge")
    assert not any(part in str(fault.value) for part in ("sk-proj", "hf_", "1234"))


@pytest.mark.parametrize(
    "url",
    [
        "http://host:99999/v1", "http://host:0/v1", "http://host:abc/v1", "http://host:-1/v1", "http://", "http:///v1",
        "https://:80/v1", "http://a b/v1", "http://a\n/v1", "http://h\u00f6st/v1", "http://host/v1\u202e", "host:80",
        "ftp://host", "file:///etc/passwd", "http://[::1/v1", "http://a..b/v1", f"http://{'a' * 64}/v1", "",
        "http://host/v1\x1b[2J", "http://host/v1?key=hunter2", "http://me:hunter2@host/v1", "http://host/v1#hunter2",
    ],
)  # fmt: skip
def test_a_url_that_no_endpoint_can_have_is_one_sentence(url):
    for build in (
        lambda: validated(LlmSpec, {"model": "m", "endpoint": url}, where="judge"),
        lambda: Endpoint(url, "m"),
    ):
        with pytest.raises(InputError) as fault:
            build()
        assert str(fault.value).isprintable()
        assert "hunter2" not in str(fault.value)
        assert "http://HOST:PORT/v1" in str(fault.value)


@pytest.mark.parametrize(
    "url", ["http://localhost:8000/v1", "https://h.example/a/v1/", "http://[::1]:80/v1", "http://h."]
)
def test_a_url_that_an_endpoint_can_have_passes(url):
    assert LlmSpec(model="m", endpoint=url).endpoint == url


@pytest.mark.parametrize("extra", [{"a": float("nan")}, {"a": {1, 2}}, {"a": object()}])
def test_what_no_body_can_hold_is_named_before_a_call(extra):
    with pytest.raises(InputError, match=r"extra must hold what JSON can"):
        validated(LlmSpec, {"model": "m", "extra": extra}, where="judge")


@pytest.mark.parametrize("key", ["cost", "seconds"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_cap_that_would_hold_nothing_is_refused(key, value):
    with pytest.raises(InputError, match="finite"):
        validated(Caps, {key: value}, where="caps")


@pytest.mark.parametrize(
    ("header", "want"),
    [("nan", 0.0), ("-5", 0.0), ("1e400", float("inf")), ("Mon, 1 Jan 99999 00:00:00 GMT", None),
     ("Mon, 1 Jan 2020 00:00:00 +99999999", None), ("Mon, 1 Jan 2020 00:00:00 -0000", None), (",,,,", None)],
)  # fmt: skip
def test_a_wait_that_no_server_can_mean_is_none(header, want):
    assert retry_after_s(header) == want


@given(st.text("abk-", max_size=40), st.text("abk-", min_size=4, max_size=9))
def test_no_piece_of_a_key_is_left_in_any_text(text, key):
    left = without_key(text, key, piece=4)
    assert not any(part in chunk for part in parts_of(key, 4) for chunk in left.split("***"))


def test_a_text_without_the_key_stays_as_it_is():
    assert without_key("A nodule, left.", KEY, piece=4) == "A nodule, left."
    assert without_key("A nodule, left.", None, piece=4) == "A nodule, left."


def test_many_calls_beside_a_broken_one_still_have_their_reply(server):
    bodies = [chat("fine"), b"[" * 100_000, chat("fine")]
    server.http.RequestHandlerClass.perform = lambda connection, act, body: connection.send(
        200, bodies[int(body["messages"][0]["content"])]
    )
    client = open_llm(LlmSpec(model="m", endpoint=server.url, max_attempts=1))
    replies = asyncio.run(client.complete([Request((Message("user", str(n)),)) for n in range(3)]))
    assert [isinstance(reply, Completion) for reply in replies] == [True, False, True]
