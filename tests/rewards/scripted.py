"""A language model of a rule, in place of an endpoint: no network, replies at once."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rewards.llm.client import Completion, Reply, Request


@dataclass(frozen=True)
class Scripted:
    """A backend whose ``rule`` maps a request to the text of its reply."""

    rule: Callable[[Request], str]
    model: str = "scripted"

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[Reply, None]:
        async def reply(request: Request) -> Completion:
            return Completion(self.rule(request), 0, 0)

        yield reply
