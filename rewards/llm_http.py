"""Replies from an OpenAI-compatible chat endpoint (a vLLM server is one).

Nothing is sent but to the URL that was named: no redirects are followed, no proxy or password is taken from the
environment, and the key, read from the variable named in the recipe, goes into the header and nowhere else.
"""

import asyncio
import base64
import json
import os
import warnings
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from rewards.llm import Completion, Declined, LlmStop, Message, Reply, Request, Transient
from rewards.strict_yaml import InputError

MAX_REPLY_BYTES = 20_000_000
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

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[Reply, None]:
        """Calls to the endpoint over kept connections.

        Raises: InputError if the key's variable is not set.
        """
        key = self._key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(headers=headers, timeout=None, trust_env=False, limits=limits) as http:

            async def reply(request: Request) -> Completion:
                return await self._call(http, request, key)

            yield reply

    def _key(self) -> str | None:
        if self.key_env is None:
            return None
        key = os.environ.get(self.key_env)
        if not key:
            raise InputError(f"{self.url}: the environment variable {self.key_env}, named as key_env, is not set.")
        return key

    async def _call(self, http: httpx2.AsyncClient, request: Request, key: str | None) -> Completion:
        try:
            async with asyncio.timeout(self.timeout_s):
                status, headers, body = await self._post(http, request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as fault:
            raise Transient("connection", f"{self.url}: {fault or 'cannot connect'}") from None
        except (TimeoutError, httpx2.TimeoutException):
            raise Transient("timeout", f"{self.url}: no whole reply within {self.timeout_s:g} s") from None
        except (httpx2.TransportError, httpx2.DecodingError) as fault:
            raise Transient("malformed", f"{self.url}: {fault or type(fault).__name__}") from None
        if key:  # an endpoint may echo it
            body = body.replace(key.encode(), b"***")
        if status != 200:
            raise self._refusal(status, headers, body)
        return completion_from(body)

    async def _post(self, http: httpx2.AsyncClient, request: Request) -> tuple[int, httpx2.Headers, bytes]:
        content = json.dumps(request_body(request, self.model) | dict(self.extra))
        headers = {"Content-Type": "application/json"}
        url = f"{self.url.rstrip('/')}/chat/completions"
        async with http.stream("POST", url, content=content, headers=headers) as response:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_REPLY_BYTES:
                    raise Transient("malformed", f"{self.url}: a reply of more than {MAX_REPLY_BYTES} bytes")
            return response.status_code, response.headers, bytes(body)

    def _refusal(self, status: int, headers: httpx2.Headers, body: bytes) -> Exception:
        said = " ".join(body[:300].decode("utf-8", "replace").split())
        reason = f"{self.url} answered {status}: {said or 'nothing'}"
        if (status in TRANSIENT_STATUS or status >= 500) and "insufficient_quota" not in said:
            kind = "rate_limit" if status == 429 else "timeout" if status == 408 else "server"
            return Transient(kind, reason, retry_after_s(headers.get("retry-after")))
        cure = f" Check the key in {self.key_env or 'key_env'}." if status in (401, 403) else ""
        return LlmStop(f"{reason}.{cure} Another attempt would not help; replies so far are kept.")


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


def completion_from(body: bytes) -> Completion:
    """The first choice of a reply's body.

    Raises: Transient if the body is not a chat completion; Declined if the model or its filter refused.
    """
    try:
        reply = json.loads(body)
        choice = reply["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text, refusal, usage = message.get("content"), message.get("refusal"), reply.get("usage") or {}
        counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise Transient("malformed", f"not a chat completion: {body[:120]!r}") from None
    if refusal or finish == "content_filter":
        raise Declined(str(refusal or "stopped by the content filter"))
    if not isinstance(text, str) or not all(n is None or isinstance(n, int) for n in counts):
        raise Transient("malformed", f"not a chat completion: {body[:120]!r}")
    return Completion(text, *counts, truncated=finish == "length")


def retry_after_s(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date; None where it says nothing readable.

    >>> retry_after_s("1.5"), retry_after_s("soon"), retry_after_s(None)
    (1.5, None, None)
    """
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
