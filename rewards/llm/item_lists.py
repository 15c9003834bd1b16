"""Lists of questions and answers out of what models really return, with a reason for each item that is rejected.

Read: JSON (fenced, wrapped, cut off), labelled items ("1. Q: ... A: ...", "**Q1:**", on one line or several) and
numbered items without labels. Linear time; never raises. Left out: guessing a missing half of an item.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from rewards.config.yaml_nodes import bounded_yaml
from rewards.llm.client import Failure, LlmClient, Request

_MARKS = r"[ \t>#*_`\-•]{0,12}"
_NUMBER = r"(?:\(?\d{1,3}[.):\]](?!\d)[ \t*_]{0,8})?"
LABEL = re.compile(
    rf"(?:^{_MARKS}{_NUMBER}{_MARKS}(?P<word>Q|Question|User|A|Answer|Assistant)"
    rf"[ \t]?\d{{0,3}}[ \t]?(?:[*_`]{{1,3}}[ \t]*)?[:：][*_`]{{0,3}}"
    r"|(?<=[.?!？。*_)])[ \t]{0,4}[*_]{0,3}(?P<inline>A|Answer)\d{0,3}[*_]{0,3}[:：][*_]{0,3})",
    re.IGNORECASE | re.MULTILINE,
)
NUMBERED = re.compile(rf"^{_MARKS}\(?(?P<number>\d{{1,3}})[.):\]](?!\d)[*_]{{0,3}}", re.MULTILINE)
REFUSAL = re.compile(
    r"\b(?:i(?:['’]m| am) (?:sorry|unable|not able)|i (?:cannot|can['’]?t|can not|won['’]t) (?:\w+ ){0,2}"
    r"(?:assist|help|provide|answer|generate|create|determine)|as an? (?:ai|language model)\b"
    r"|(?:does|do) not (?:contain|state|include) (?:a|any|the) \w*\s?stage)",
    re.IGNORECASE,
)
INNERMOST = re.compile(r"\{[^{}]{0,20000}\}")
LAST_RULE = re.compile(r"(?<=\n)[^\S\n]*+(?:```\w*+|-{3,}+|\*{3,}+)\s*+\Z")
"""A fence or a rule as the last line."""
MAX_BROKEN = 200
QUESTION_KEYS, ANSWER_KEYS = ("question", "q", "user", "instruction"), ("answer", "a", "assistant", "response")
QUESTION_WORDS = ("q", "question", "user")


@dataclass(frozen=True)
class Item:
    """A question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Reject:
    """What could not be used, and why, in a few words that can be counted."""

    reason: str
    text: str


@dataclass(frozen=True)
class Parsed:
    """What a reply held."""

    items: list[Item] = field(default_factory=list[Item])
    rejects: list[Reject] = field(default_factory=list[Reject])


def parse_items(text: str, *, truncated: bool = False) -> Parsed:
    r"""Every item of a reply. ``truncated``: the reply was cut, so its last item cannot be trusted.

    >>> parse_items("1. Q: Is there fluid?\n   A: No.").items
    [Item(question='Is there fluid?', answer='No.')]
    """
    if is_refusal(text):
        return Parsed(rejects=[Reject("refusal", text)])
    parsed = _from_json(text)
    if parsed is None:
        parsed = _from_labels(text) if LABEL.search(text) else _from_numbers(text)
        if truncated and parsed.items:
            last = parsed.items.pop()
            parsed.rejects.append(Reject("cut off", f"{last.question}\n{last.answer}"))
    if not parsed.items and not parsed.rejects:
        parsed.rejects.append(Reject("no item" if text.strip() else "empty reply", text))
    return parsed


def is_refusal(text: str) -> bool:
    r"""True if a reply refuses, apologises or speaks of itself, in its first 300 characters and without an item.

    >>> is_refusal("I'm sorry, but I can't help with that."), is_refusal("1. Q: Is it?\nA: I am unable to see it.")
    (True, False)
    """
    return bool(REFUSAL.search(text[:300])) and not LABEL.search(text) and not NUMBERED.search(text)


def _from_json(text: str) -> Parsed | None:
    """Items of JSON objects, wherever they stand; None where there is no object with a question."""
    parsed, found = Parsed(), False
    for entry in _objects(text):
        if isinstance(entry, str):
            if found or '"q' in entry[:40].lower():
                found = True
                parsed.rejects.append(Reject("cut off", entry))
            continue
        question, answer = _value(entry, QUESTION_KEYS), _value(entry, ANSWER_KEYS)
        if question is None and answer is None:
            continue
        found = True
        _keep(parsed, question, answer)
    return parsed if found else None


def _objects(text: str) -> Iterator[dict[str, Any] | str]:
    """The innermost JSON objects in order; the tail as a string where the last one is cut off."""
    decoder, position, failed, last = json.JSONDecoder(strict=False), 0, 0, max(text.rfind("{"), text.rfind("}"))
    while (start := text.find("{", position)) >= 0 and failed < MAX_BROKEN:
        try:
            value, position = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):  # also an integer of 5,000 digits
            value, position = _loose(text, start)
            failed += value is None
            if value is None and start == last:
                yield text[start:]
        yield from _leaves(value)


def _loose(text: str, start: int) -> tuple[Any, int]:
    """An object with single quotes or a trailing comma (YAML reads both), and where to go on."""
    chunk = INNERMOST.match(text, start)
    if chunk is None:
        return None, start + 1
    try:
        return bounded_yaml(chunk.group()), chunk.end()
    except yaml.YAMLError:
        return None, start + 1


def _leaves(value: Any) -> Iterator[dict[str, Any]]:
    """The objects that hold no further ones, in order, however deep they stand."""
    waiting = [value]
    while waiting:
        entry = waiting.pop()
        nested: list[Any] = entry if isinstance(entry, list) else []
        if isinstance(entry, dict):
            nested = [v for v in entry.values() if isinstance(v, list | dict)]
            if not nested:
                yield entry
        waiting += reversed(nested)


def _value(entry: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    for name, value in entry.items():
        if str(name).strip().casefold().rstrip("0123456789") in keys and value is not None:
            return str(value)
    return None


def _parts(text: str, marks: list[re.Match[str]]) -> Iterator[tuple[re.Match[str], str]]:
    """Each mark with the text from its end to the next one."""
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    for mark, end in zip(marks, ends, strict=False):
        yield mark, text[mark.end() : end]


def _from_labels(text: str) -> Parsed:
    parsed, question = Parsed(), None
    for mark, part in _parts(text, list(LABEL.finditer(text))):
        is_question = (mark.group("word") or mark.group("inline")).casefold() in QUESTION_WORDS
        if is_question and question is not None:
            parsed.rejects.append(Reject("no answer", question))
        if is_question:
            question = part
        else:
            _keep(parsed, question, part)
            question = None
    if question is not None:
        parsed.rejects.append(Reject("no answer", question.strip()))
    return parsed


def _from_numbers(text: str) -> Parsed:
    """Items numbered 1, 2, 3 ... without labels: the question is what ends in a question mark."""
    marks: list[re.Match[str]] = []
    for mark in NUMBERED.finditer(text):
        if int(mark.group("number")) == (int(marks[-1].group("number")) + 1 if marks else 1):
            marks.append(mark)
    parsed = Parsed()
    for _, part in _parts(text, marks):
        question, end, answer = part.replace("？", "?").partition("?")
        _keep(parsed, question + end if end else None, answer if end else part)
    return parsed


def _keep(parsed: Parsed, question: str | None, answer: str | None) -> None:
    """Adds a pair as an item, or as a reject that says which half is missing."""
    question, answer = _clean(question or ""), _clean(answer or "")
    if question and answer:
        parsed.items.append(Item(question, answer))
    else:
        reason = "no question" if answer else "no answer" if question else "empty item"
        parsed.rejects.append(Reject(reason, question or answer))


def _clean(text: str) -> str:
    """Without markdown emphasis around it, fences, or the number of the next item on its last line."""
    text = re.sub(r"\n[ \t>#*_]*\(?\d{1,3}[.)\]][ \t*_]*\Z", "", text.strip())
    text = LAST_RULE.sub("", text)
    return text.strip().strip(" \t*_`#").strip()


Check = Callable[[Item, list[Item]], str | None]
"""Why an item is not good enough beside those kept so far, or None."""


async def ask_for_items(
    client: LlmClient, request: Request, *, count: int, check: Check | None = None, max_rounds: int = 3
) -> Parsed:
    """Up to ``count`` good items: asks, keeps what passes, and asks again for what is missing.

    Each further round shows the model the questions it already has. Rejects of all rounds are kept with their
    reasons; a round that gives nothing new is the last. Raises: LlmStop as ``LlmClient.complete`` does.
    """
    kept = Parsed()
    for _ in range(max_rounds):
        before = len(kept.items)
        reply = (await client.complete([_request_for(request, kept.items, count)]))[0]
        if isinstance(reply, Failure):
            kept.rejects.append(Reject(reply.kind, reply.reason))
            break
        _sift(kept, parse_items(reply.text, truncated=reply.truncated), count, check)
        if len(kept.items) >= count or len(kept.items) == before:
            break
    return kept


def _request_for(request: Request, have: list[Item], count: int) -> Request:
    if not have:
        return request
    listed = "\n".join(f"- {item.question}" for item in have)
    more = f"These questions are done:\n{listed}\nWrite {count - len(have)} more, all different, in the same form."
    last = request.messages[-1]
    return replace(request, messages=(*request.messages[:-1], replace(last, text=f"{last.text}\n\n{more}")))


def _sift(kept: Parsed, parsed: Parsed, count: int, check: Check | None) -> None:
    kept.rejects.extend(parsed.rejects)
    for item in parsed.items:
        reason = "more than asked for" if len(kept.items) >= count else check(item, kept.items) if check else None
        if reason:
            kept.rejects.append(Reject(reason, f"{item.question}\n{item.answer}"))
        else:
            kept.items.append(item)
