"""The one interface to a language model: requests in, completions or named failures out, in order.

A reply comes from a backend: an OpenAI-compatible endpoint (``llm_http``), a local transformers model
(``alignment.models.local_llm``) or one of a test. Here stands what all need: each distinct request is asked once,
replies are cached by content, calls are bounded in number and in cost, transient faults are tried again with jitter and
permanent ones stop the work. asyncio and tenacity are imported by what asks: every recipe that is read reads this file.
Left out: streaming, tool calls, sharing one call in flight between two processes.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from rewards.config.input_error import InputError
from rewards.llm.budget import Budget
from rewards.llm.reply_cache import ReplyCache

if TYPE_CHECKING:
    from tenacity import RetryCallState

FailureKind = Literal["rate_limit", "server", "timeout", "connection", "malformed", "refused"]
BILLED_FAULTS = ("timeout", "malformed")


@dataclass(frozen=True)
class Message:
    """One turn of a conversation, with the bytes of its images (PNG, JPEG, WebP), which stand before the text."""

    role: Literal["system", "user", "assistant"]
    text: str
    images: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Request:
    """One question to a model.

    ``sample`` tells independent samples of one prompt apart. ``choices``: the reply must be one of these; a local
    model then scores them, an endpoint is only held to them by who reads the reply. ``version``: of the prompt.
    """

    messages: tuple[Message, ...]
    max_tokens: int = 512
    temperature: float = 0.0
    sample: int = 0
    choices: tuple[str, ...] = ()
    version: str = ""

    def key(self, model: str) -> str:
        """SHA-256 of everything that decides the reply, images by their own hash.

        >>> ask("Is it?").key("m") == ask("Is it?").key("m"), ask("Is it?").key("m") == ask("Is it?").key("n")
        (True, False)
        """
        turns = [[m.role, m.text, [hashlib.sha256(image).hexdigest() for image in m.images]] for m in self.messages]
        rest = [self.max_tokens, self.temperature, self.sample, list(self.choices), self.version]
        return hashlib.sha256(json.dumps([model, turns, rest]).encode()).hexdigest()

    @property
    def prompt_bytes(self) -> int:
        """Length of all texts in UTF-8: no tokenizer in use makes more tokens than this of them."""
        return sum(len(message.text.encode("utf-8", "surrogatepass")) for message in self.messages)

    @property
    def num_images(self) -> int:
        """Images in all turns."""
        return sum(len(message.images) for message in self.messages)


def ask(text: str, *, system: str = "", images: tuple[bytes, ...] = (), **settings: Any) -> Request:
    """A request of one user turn, with a system turn before it where given."""
    first = (Message("system", system),) if system else ()
    return Request((*first, Message("user", text, images)), **settings)


@dataclass(frozen=True)
class Completion:
    """A reply. ``truncated``: it was cut at ``max_tokens``. ``cached``: it cost nothing now."""

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    truncated: bool = False
    cached: bool = False


@dataclass(frozen=True)
class Failure:
    """No reply, after every attempt allowed. Never cached, so that the next run asks again.

    ``brief``: the reason without what the server said, so that equal faults can be counted.
    """

    kind: FailureKind
    reason: str
    attempts: int = 1
    brief: str = ""


class Transient(Exception):
    """A fault that may pass. ``retry_after_s``: what the server asked for; ``brief`` as of a ``Failure``."""

    def __init__(self, kind: FailureKind, reason: str, retry_after_s: float | None = None, brief: str = "") -> None:
        super().__init__(reason)
        self.brief = brief
        self.kind: FailureKind = kind
        self.retry_after_s = retry_after_s


class Declined(Exception):
    """The model or its filter will not answer this request; another attempt would not either."""


class LlmStop(InputError):
    """A fault that no attempt can mend (a wrong key, a bad request, a dead endpoint). Replies so far are cached."""


Reply = Callable[[Request], Awaitable[Completion]]


class Backend(Protocol):
    """Where replies come from. ``model`` names it in the cache's keys."""

    @property
    def model(self) -> str:
        """Name and version of the model."""
        ...

    def session(self) -> AbstractAsyncContextManager[Reply]:
        """A function from request to completion, good inside the ``async with``.

        It raises Transient, Declined or LlmStop; anything else is a bug.
        """
        ...


@dataclass(frozen=True)
class LlmClient:
    """A backend with cache, caps, bounded concurrency and retries.

    ``max_wait_s``: the longest pause before another attempt; a server that asks for more gets no further attempt.
    """

    backend: Backend
    cache: ReplyCache | None = None
    budget: Budget | None = None
    concurrency: int = 8
    max_attempts: int = 5
    max_wait_s: float = 60.0

    async def complete(self, requests: Sequence[Request]) -> list[Completion | Failure]:
        """One completion or failure for each request, in order; equal requests are asked once.

        Raises: LlmStop (an InputError) where no attempt can help or a cap is reached; replies so far are cached.
        """
        keys = [request.key(self.backend.model) for request in requests]
        wanted = dict(zip(keys, requests, strict=True))
        replies: dict[str, Completion | Failure] = {k: hit for k in wanted if (hit := self._cached(k)) is not None}
        missing = {k: r for k, r in wanted.items() if k not in replies}
        if missing:
            replies |= await self._ask(missing)
        return [replies[key] for key in keys]

    def complete_now(self, requests: Sequence[Request]) -> list[Completion | Failure]:
        """``complete`` for callers outside an event loop."""
        import asyncio

        return asyncio.run(self.complete(requests))

    def num_uncached(self, requests: Sequence[Request]) -> int:
        """How many calls ``complete`` would make of these, were none to fail."""
        keys = {request.key(self.backend.model) for request in requests}
        return sum(self._cached(key) is None for key in keys)

    @property
    def calls_left(self) -> int | None:
        """Calls that the budget's cap still allows; None without one."""
        return self.budget.calls_left if self.budget else None

    def _cached(self, key: str) -> Completion | None:
        entry = self.cache.get(key) if self.cache else None
        return Completion(**entry, cached=True) if entry is not None else None

    async def _ask(self, missing: dict[str, Request]) -> dict[str, Completion | Failure]:
        import asyncio

        replies: dict[str, Completion | Failure] = {}
        slots = asyncio.Semaphore(self.concurrency)

        async def one(key: str, request: Request) -> None:
            async with slots:
                replies[key] = self._cached(key) or await self._answer(reply, key, request)

        async with self.backend.session() as reply:
            try:
                async with asyncio.TaskGroup() as group:
                    for key, request in missing.items():
                        group.create_task(one(key, request))
            except ExceptionGroup as stopped:
                raise stopped.exceptions[0] from None
        return replies

    async def _answer(self, reply: Reply, key: str, request: Request) -> Completion | Failure:
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

        retrying = AsyncRetrying(
            retry=retry_if_exception(self._may_pass),
            stop=stop_after_attempt(self.max_attempts),
            wait=self._pause,
            reraise=True,
        )
        try:
            completion = await retrying(self._attempt, reply, request)
        except Declined as declined:
            return Failure("refused", str(declined))
        except Transient as fault:
            attempts = int(retrying.statistics["attempt_number"])
            if fault.kind == "connection":
                raise LlmStop(f"{self.backend.model}: no connection after {attempts} attempts ({fault}).") from None
            return Failure(fault.kind, str(fault), attempts, fault.brief)
        if self.cache:
            self.cache.put(key, {k: v for k, v in asdict(completion).items() if k != "cached"})
        return completion

    async def _attempt(self, reply: Reply, request: Request) -> Completion:
        """One call, paid for in the ledger before it is made and settled after it."""
        if self.budget is None:
            return await reply(request)
        call = self.budget.reserve(request.prompt_bytes, request.num_images, request.max_tokens)
        try:
            completion = await reply(request)
        except Transient as fault:
            self.budget.settle(call, None if fault.kind in BILLED_FAULTS else (0, 0))
            raise
        prompt, written = completion.prompt_tokens, completion.completion_tokens
        self.budget.settle(call, None if prompt is None or written is None else (prompt, written))
        return completion

    def _may_pass(self, fault: BaseException) -> bool:
        return isinstance(fault, Transient) and (fault.retry_after_s or 0.0) <= self.max_wait_s

    def _pause(self, state: "RetryCallState") -> float:
        """Exponential with full jitter, or what the server asked for and a little jitter on top."""
        from tenacity.wait import wait_random_exponential

        fault = state.outcome.exception() if state.outcome else None
        requested_s = fault.retry_after_s if isinstance(fault, Transient) else None
        jitter = wait_random_exponential(multiplier=0.5, max=self.max_wait_s)(state)
        return jitter if requested_s is None else requested_s + min(jitter, 1.0)


def with_turns(request: Request, *turns: Message) -> Request:
    """The request with further turns of its conversation."""
    return replace(request, messages=(*request.messages, *turns))
