"""Replies from an OpenAI-compatible chat endpoint (a vLLM server is one).

Nothing is sent but to the URL that was named: no redirects are followed, no proxy or password is taken from the
environment, and the key, read from the variable named in the recipe, goes into the header and nowhere else.
"""

import asyncio
import base64
import json
import warnings
import zlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2

from rewards.config.input_error import InputError
from rewards.config.printable import printable
from rewards.llm.client import Completion, Declined, LlmStop, Message, Reply, Request, Transient
from rewards.llm.keys import PIECE_IN_ERRORS, PIECE_IN_REPLIES, key_from, without_key
from rewards.llm.reply import as_text, completion_from, retry_after_s, tokens_at_least

MAX_REPLY_BYTES = 20_000_000
"""Of a reply as it is read, unpacked."""
TRANSIENT_STATUS = {408, 409, 425, 429}
# anyio 4.16 wraps a connection's coroutine and drops it where it is cancelled before it begins; nothing is lost.
warnings.filterwarnings("ignore", "coroutine 'connect_tcp", RuntimeWarning)
SIGNATURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp", b"GIF8": "image/gif"}


@dataclass(frozen=True)
class Endpoint:
    """A chat endpoint. ``url`` ends before ``/chat/completions``; ``timeout_s`` bounds a whole call.

    ``key_env``: the environment variable that holds the key. ``extra``: further keys of the request body.
    """

    url: str
    model: str
    key_env: str | None = None
    timeout_s: float = 120.0
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        checked_url(self.url)

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[Reply, None]:
        """Calls to the endpoint over kept connections.

        Raises: InputError if the key's variable is not set, or its value can be no key.
        """
        key = key_from(self.key_env, url=self.url)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(headers=headers, timeout=None, trust_env=False, limits=limits) as http:

            async def reply(request: Request) -> Completion:
                return await self._call(http, request, key)

            yield reply

    async def _call(self, http: httpx2.AsyncClient, request: Request, key: str | None) -> Completion:
        """One reply; whatever the endpoint sent, no fault of it shows the key or steers a terminal."""
        try:
            completion = await self._completion(http, request)
        except Transient as fault:
            raise Transient(fault.kind, _safe(fault, key), fault.retry_after_s, fault.brief) from None
        except (Declined, LlmStop) as fault:
            raise type(fault)(_safe(fault, key)) from None
        prompt, written = tokens_at_least(completion, request)
        text = without_key(completion.text, key, piece=PIECE_IN_REPLIES)
        return Completion(text, prompt, written, completion.truncated)

    async def _completion(self, http: httpx2.AsyncClient, request: Request) -> Completion:
        try:
            async with asyncio.timeout(self.timeout_s):
                status, headers, body = await self._post(http, request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as fault:
            raise Transient("connection", f"{self.url}: {fault or 'cannot connect'}") from None
        except (TimeoutError, httpx2.TimeoutException):
            brief = f"no whole reply within {self.timeout_s:g} s"
            raise Transient("timeout", f"{self.url}: {brief}", brief=brief) from None
        except (httpx2.TransportError, zlib.error) as fault:
            brief = "a damaged reply" if isinstance(fault, zlib.error) else "the connection was cut"
            raise Transient("malformed", f"{self.url}: {fault or type(fault).__name__}", brief=brief) from None
        except (httpx2.InvalidURL, UnicodeError, OverflowError) as fault:
            raise LlmStop(f"{self.url}: no address that can be reached ({fault}). Mend the endpoint's URL.") from None
        if status != 200:
            raise self._refusal(status, headers, body)
        return completion_from(body)

    async def _post(self, http: httpx2.AsyncClient, request: Request) -> tuple[int, httpx2.Headers, bytes]:
        content = json.dumps(request_body(request, self.model) | dict(self.extra))
        headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip"}
        url = f"{self.url.rstrip('/')}/chat/completions"
        async with http.stream("POST", url, content=content, headers=headers) as response:
            body = bytearray()
            async for chunk in _unpacked(response):
                body += chunk
                if len(body) > MAX_REPLY_BYTES:
                    brief = f"a reply of more than {MAX_REPLY_BYTES} bytes"
                    raise Transient("malformed", f"{self.url}: {brief}", brief=brief)
            return response.status_code, response.headers, bytes(body)

    def _refusal(self, status: int, headers: httpx2.Headers, body: bytes) -> Exception:
        message = printable(as_text(body))
        reason = f"{self.url} answered {status}: {message or 'nothing'}"
        if (status in TRANSIENT_STATUS or status >= 500) and "insufficient_quota" not in message:
            kind = "rate_limit" if status == 429 else "timeout" if status == 408 else "server"
            return Transient(kind, reason, retry_after_s(headers.get("retry-after")), brief=f"HTTP {status}")
        cure = f" Check the key in {self.key_env or 'key_env'}." if status in (401, 403) else ""
        return LlmStop(f"{reason}.{cure} Another attempt would not help; replies so far are kept.")


def _safe(fault: Exception, key: str | None) -> str:
    return printable(without_key(str(fault), key, piece=PIECE_IN_ERRORS), limit=600)


async def _unpacked(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    """The body piece by piece, unpacked by no more than what is still allowed: a small one may unpack to gigabytes."""
    packing = response.headers.get("content-encoding", "").strip().casefold()
    if packing not in ("", "identity", "gzip"):
        raise Transient("malformed", f"a reply packed as '{packing}', which was not asked for", brief="a packed reply")
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS + 16) if packing == "gzip" else None
    async for chunk in response.aiter_raw():
        yield unpacker.decompress(chunk, MAX_REPLY_BYTES + 1) if unpacker else chunk


def checked_url(url: str) -> str:
    """A URL that a chat endpoint can have.

    Raises: InputError that says what is wrong with it, without what may be a password in it.

    >>> checked_url("http://localhost:8000/v1")
    'http://localhost:8000/v1'
    """
    fault = _fault_of(url)
    if fault:
        secret = any(mark in url for mark in "@?#")
        shown = "the endpoint's URL" if secret else f"endpoint '{printable(url, limit=120)}'"
        raise InputError(f"{shown} {fault}. Write it as http://HOST:PORT/v1 or https://HOST/v1.")
    return url


def _fault_of(url: str) -> str | None:
    """What is wrong with a URL, or None."""
    if not url.startswith(("http://", "https://")):
        return "must begin with http:// or https://"
    if not url.isascii() or not url.isprintable() or " " in url:
        return "holds a blank or a character beyond ASCII"
    try:
        parts = urlsplit(url)
        port = parts.port
        httpx2.URL(url)
    except (ValueError, httpx2.InvalidURL):
        return "is no URL, or its port is not one of 1 to 65535"
    labels = (parts.hostname or "").removesuffix(".").split(".")
    if port == 0 or any(not 0 < len(label) < 64 for label in labels):
        return "names no host, or no port of 1 to 65535"
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        return "must hold no user, password, query or fragment (name the variable of a key as key_env)"
    return None


def request_body(request: Request, model: str) -> dict[str, Any]:
    """The JSON body of a request, images as data URLs."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": m.role, "content": _content(m)} for m in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
    }
    return body | ({"seed": request.sample} if request.temperature > 0 else {})


def _content(message: Message) -> str | list[dict[str, Any]]:
    if not message.images:
        return message.text
    images = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in message.images]
    return [*images, {"type": "text", "text": message.text}]


def data_url(image: bytes) -> str:
    """An image's bytes as a data URL.

    Raises: InputError if they are neither PNG, JPEG, WebP nor GIF.

    >>> data_url(bytes.fromhex("89504e47"))
    'data:image/png;base64,iVBORw=='
    """
    kind = next((mime for start, mime in SIGNATURES.items() if image.startswith(start)), None)
    if kind is None:
        raise InputError(f"an image for the endpoint begins with {image[:8]!r}; it must be PNG, JPEG, WebP or GIF.")
    return f"data:{kind};base64,{base64.b64encode(image).decode()}"
