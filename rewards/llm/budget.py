"""Caps on calls, tokens, money and time, checked before a call is made.

A call is first written to the ledger at the most it can cost, then settled at what it did cost. So no cap is passed
however many calls run at once, in one process or several, and a call whose process was killed counts as made.
"""

import math
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from rewards.config.input_error import InputError
from rewards.config.strict_model import StrictModel
from rewards.llm.reply_cache import AppendLog


class Caps(StrictModel):
    """The most that may be spent, over all runs that share a cache folder; ``seconds``: of this process."""

    calls: int | None = Field(default=None, ge=0)
    tokens: int | None = Field(default=None, ge=0)
    cost: float | None = Field(default=None, ge=0)
    seconds: float | None = Field(default=None, gt=0)


class Price(StrictModel):
    """Money for a million tokens, in any one currency, and what an image is counted as at most."""

    prompt: float = Field(default=0.0, ge=0)
    completion: float = Field(default=0.0, ge=0)
    image_tokens: int = Field(default=4096, ge=0)

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Cost of one call.

        >>> Price(prompt=3.0, completion=15.0).of(1_000_000, 100_000)
        4.5
        """
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class CapReached(InputError):
    """The next call could pass a cap, so it is not made."""


@dataclass(frozen=True)
class Spent:
    """Calls, tokens and cost; calls under way at the most they can come to."""

    calls: int = 0
    tokens: int = 0
    cost: float = 0.0


@dataclass
class Budget:
    """Caps with their ledger; without a ``ledger`` file, the spending of this process alone is counted."""

    caps: Caps = field(default_factory=Caps)
    price: Price = field(default_factory=Price)
    ledger: Path | None = None
    _calls: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]], init=False)
    _total: Spent = field(default=Spent(), init=False)
    _log: AppendLog | None = field(default=None, init=False)
    _started: float = field(default_factory=time.monotonic, init=False)

    def __post_init__(self) -> None:
        if self.ledger:
            self._log = AppendLog(self.ledger)

    def reserve(self, prompt_bytes: int, num_images: int, max_tokens: int) -> str:
        """Books a call at its most: a token for each byte of the prompt, ``image_tokens`` an image, all of the reply.

        Raises: CapReached if that could pass a cap.
        """
        prompt = prompt_bytes + num_images * self.price.image_tokens
        entry = {"tokens": prompt + max_tokens, "cost": self.price.of(prompt, max_tokens)}
        call = uuid.uuid4().hex
        if self._log is None:
            self._check(entry)
            self._enter({"call": call, **entry})
            return call
        with self._log.locked():
            self._refresh()
            self._check(entry)
            self._log.append({"call": call, **entry})
            self._refresh()
        return call

    def settle(self, call: str, tokens: tuple[int, int] | None) -> None:
        """Replaces a call's booking by its (prompt, completion) tokens; None, or a negative count, leaves it."""
        if tokens is None or min(tokens) < 0:
            return
        entry = {"call": call, "tokens": sum(tokens), "cost": self.price.of(*tokens)}
        if self._log is None:
            self._enter(entry)
        else:
            self._log.append(entry)
            self._refresh()

    @property
    def spent(self) -> Spent:
        """What has been spent, by every process that shares the ledger."""
        self._refresh()
        return self._total

    @property
    def calls_left(self) -> int | None:
        """How many calls the cap on calls still allows; None without one."""
        return None if self.caps.calls is None else max(0, self.caps.calls - self.spent.calls)

    def _refresh(self) -> None:
        for entry in self._log.unread() if self._log else ():
            self._enter(entry)

    def _enter(self, entry: dict[str, Any]) -> None:
        if not (entry["tokens"] >= 0 and 0 <= entry["cost"] < math.inf):
            return  # a ledger of an older version may hold one, and would give back what was never there
        before = self._calls.get(entry["call"], {"tokens": 0, "cost": 0.0})
        self._calls[entry["call"]] = entry
        tokens = self._total.tokens + entry["tokens"] - before["tokens"]
        self._total = Spent(len(self._calls), tokens, self._total.cost + entry["cost"] - before["cost"])

    def _check(self, entry: dict[str, Any]) -> None:
        total, caps = self._total, self.caps
        after = {"calls": total.calls + 1, "tokens": total.tokens + entry["tokens"], "cost": total.cost + entry["cost"]}
        for name, value in after.items():
            cap = getattr(caps, name)
            if cap is not None and value > cap * (1 + 1e-12):
                raise CapReached(
                    f"the cap of {cap} {name} is reached: the next call could bring them to {value:.10g}. "
                    f"Replies so far are kept. Raise caps.{name} and run again."
                )
        if caps.seconds is not None and time.monotonic() - self._started > caps.seconds:
            raise CapReached(f"the cap of {caps.seconds} seconds is reached. Replies so far are kept; run again.")
