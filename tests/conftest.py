"""Hypothesis without deadlines (repeatable in CI), and a real chat endpoint on loopback that misbehaves on a script."""

import json
import os
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import settings

from alignment.distributed.engine import share_cores
from rewards.rules import known_files

share_cores()

settings.register_profile("clinalign", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("clinalign")


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    """A test knows no rule sets of the user's own from another, as no process does."""
    monkeypatch.setattr(known_files, "_known", {})


CANNED = {
    "wrong schema": (200, b'{"object": "list", "data": []}'),
    "null content": (200, b'{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}'),
    "refusal": (200, b'{"choices": [{"message": {"content": null, "refusal": "I cannot help with that."}}]}'),
    "no quota": (429, b'{"error": {"type": "insufficient_quota"}}'),
}


class Misbehaving:
    """``script``: what to do with the coming requests, in order; once it is used up, a proper reply.

    An act is a status, ``(status, headers)`` or a name (see ``perform`` and ``CANNED``).
    ``answer`` maps a request's body to the reply.
    """

    def __init__(self):
        self.script, self.requests, self.headers = [], [], []
        self.answer = lambda body: f"echo: {body['messages'][-1]['content']}"
        self.usage = {"prompt_tokens": 7, "completion_tokens": 3}
        self.finish = "stop"
        self.delay_s = 0.0
        self.most_at_once = self.now = 0
        self.lock = threading.Lock()
        self.stop = threading.Event()
        handler = type("Handler", (_Handler,), {"owner": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def close(self):
        self.stop.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def reply(self, body):
        message = {"role": "assistant", "content": self.answer(body)}
        reply = {"choices": [{"index": 0, "message": message, "finish_reason": self.finish}], "model": body["model"]}
        return json.dumps(reply | ({"usage": self.usage} if self.usage else {})).encode()


class _Handler(BaseHTTPRequestHandler):
    owner: Misbehaving
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server = self.owner
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if not content:  # the client was killed in mid request
            return
        body = json.loads(content)
        with server.lock:
            server.requests.append(body)
            server.headers.append(dict(self.headers))
            act = server.script.pop(0) if server.script else 200
            server.now += 1
            server.most_at_once = max(server.most_at_once, server.now)
        try:
            with suppress(BrokenPipeError, ConnectionResetError):
                self.perform(act, body)
        finally:
            with server.lock:
                server.now -= 1

    def perform(self, act, body):
        server = self.owner
        if act == 200:
            time.sleep(server.delay_s)
            return self.send(200, server.reply(body))
        if act == "hang":
            server.stop.wait(30)
            self.close_connection = True
        elif act == "drop":
            self.close_connection = True
        elif act == "drip":
            self.head(200, 1000)
            while not server.stop.wait(0.05):
                self.wfile.write(b" ")
                self.wfile.flush()
        elif act == "truncated":
            content = server.reply(body)
            self.head(200, len(content) + 50)
            self.wfile.write(content)
            self.close_connection = True
        elif act == "broken json":
            self.send(200, server.reply(body)[:-9])
        elif isinstance(act, str) and act in CANNED:
            self.send(*CANNED[act])
        elif act == "echo key":
            self.send(401, f"wrong key: {self.headers['Authorization']}".encode() * 9)
        else:
            status, headers = act if isinstance(act, tuple) else (act, {})
            self.send(status, b'{"error": {"message": "scripted"}}', headers)
        return None

    def send(self, status, content, headers=()):
        self.head(status, len(content), headers)
        self.wfile.write(content)

    def head(self, status, length, headers=()):
        self.send_response(status)
        for name, value in {"Content-Length": length, "Content-Type": "application/json", **dict(headers)}.items():
            self.send_header(name, str(value))
        self.end_headers()

    def log_message(self, *arguments):
        del arguments


@pytest.fixture
def server():
    """A scripted endpoint, closed after the test."""
    running = Misbehaving()
    yield running
    running.close()
