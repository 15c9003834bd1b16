"""Which language model, where, and within which caps: the section that recipes write, and the client made of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from rewards.config.input_error import InputError
from rewards.config.strict_model import StrictModel
from rewards.llm.budget import Budget, Caps, Price
from rewards.llm.client import Backend, LlmClient
from rewards.llm.keys import is_environment_name
from rewards.llm.reply_cache import ReplyCache


class LlmSpec(StrictModel):
    """One model behind one client.

    ``endpoint``: an OpenAI-compatible URL ending in ``/v1``; without it, ``model`` is a local transformers model
    (a folder, a hub name or ``smollm2``) and nothing leaves the machine. ``key_env``: the environment variable that
    holds the key, never the key itself. ``cache``: a folder for replies and the ledger of what was spent.
    """

    model: str
    endpoint: str | None = None
    key_env: str | None = None
    cache: str | None = None
    concurrency: int = Field(default=8, ge=1)
    timeout_s: float = Field(default=120.0, gt=0)
    max_attempts: int = Field(default=5, ge=1)
    max_wait_s: float = Field(default=60.0, ge=0)
    caps: Caps = Caps()
    price: Price = Price()
    extra: dict[str, Any] = {}

    @field_validator("endpoint", mode="before")
    @classmethod
    def _is_a_url(cls, endpoint: object) -> object:
        if endpoint is not None and not isinstance(endpoint, str):
            raise ValueError("endpoint must be a URL, written as text.")
        if endpoint is None:
            return None
        from rewards.llm.endpoint import checked_url  # with its library only where there is one: reading stays quick

        return checked_url(endpoint)

    @field_validator("key_env", mode="before")
    @classmethod
    def _is_a_name(cls, key_env: object) -> object:
        if key_env is not None and not is_environment_name(key_env):
            raise ValueError("key_env must be the name of an environment variable in capitals, never the key itself.")
        return key_env

    @field_validator("extra")
    @classmethod
    def _is_json(cls, extra: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(extra, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise ValueError("extra must hold what JSON can: text, finite numbers, true, false, null, lists.") from None
        return extra


LocalBackend = Callable[[LlmSpec], Backend]


def open_llm(spec: LlmSpec, *, local: LocalBackend | None = None) -> LlmClient:
    """The client of a spec. ``local`` makes the backend of a local model, which this floor cannot (it loads no torch).

    Raises: InputError if the spec needs a local model and there is no ``local``.
    """
    from rewards.llm.endpoint import Endpoint

    if spec.endpoint is not None:
        backend: Backend = Endpoint(spec.endpoint, spec.model, spec.key_env, spec.timeout_s, spec.extra)
    elif local is not None:
        backend = local(spec)
    else:
        raise InputError(f"model '{spec.model}' has no endpoint, and a local model cannot be loaded here. Name one.")
    folder = Path(spec.cache) if spec.cache else None
    return LlmClient(
        backend,
        cache=ReplyCache(folder / "replies.jsonl") if folder else None,
        budget=Budget(spec.caps, spec.price, folder / "ledger.jsonl" if folder else None),
        concurrency=spec.concurrency,
        max_attempts=spec.max_attempts,
        max_wait_s=spec.max_wait_s,
    )
