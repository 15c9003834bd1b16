"""A chat completion read out of whatever bytes an endpoint sent: a reply, or a fault with a name.

Nothing in a body can raise anything but Transient or Declined, and its counts of tokens are believed only where they
can be true.
"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from rewards.config.json_lines import json_reply
from rewards.config.printable import printable, without_surrogates
from rewards.llm.client import Completion, Declined, Request, Transient

MAX_TOKENS = 1_000_000_000
"""No call is so long; a count beyond it is none."""


def completion_from(body: bytes) -> Completion:
    """The first choice of a reply's body; counts that can be no number of tokens are None.

    Raises: Transient if the body is not a chat completion; Declined if the model or its filter refused.
    """
    reply = json_reply(body)
    try:
        choice = reply["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text, refusal, usage = message.get("content"), message.get("refusal"), reply.get("usage")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise _no_completion(body) from None
    if refusal or finish == "content_filter":
        raise Declined(printable(refusal) if isinstance(refusal, str) else "stopped by the content filter")
    if not isinstance(text, str):
        raise _no_completion(body)
    counts: dict[str, Any] = usage if isinstance(usage, dict) else {}
    prompt, written = (_count(counts.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    return Completion(without_surrogates(text), prompt, written, truncated=finish == "length")


def _no_completion(body: bytes) -> Transient:
    brief = "not a chat completion"
    return Transient("malformed", f"{brief}: {printable(as_text(body))}", brief=brief)


def as_text(body: bytes) -> str:
    """The beginning of a body as text; what is not UTF-8 is replaced."""
    return body[:4000].decode("utf-8", "replace")


def _count(value: object) -> int | None:
    """A number of tokens; None for what is no whole number (True is none), negative or beyond any call."""
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None


def tokens_at_least(completion: Completion, request: Request) -> tuple[int | None, int | None]:
    """The counts of a reply, never below the words that were sent and came back: no token spans two of them."""
    prompt_words = sum(len(message.text.split()) for message in request.messages)
    counts = (completion.prompt_tokens, prompt_words), (completion.completion_tokens, len(completion.text.split()))
    prompt, written = (None if count is None else max(count, words) for count, words in counts)
    return prompt, written


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
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
