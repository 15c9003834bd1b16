"""Hallucinated answers by an LLM: the most clearly wrong of a model's own samples, or one written to be wrong.

MMedPO (Zhu et al. 2024, section 3.1), with prompts of our own. The LLM is any ``ask(prompts) -> replies``; what it
says is checked by ``hallucination_checks`` and, where facts are known, read against them. Left out: the client (see
``rewards/llm/client.py``), and images: like the paper's, this judge sees text only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_builders.pairs.hallucination_checks import USUAL_LIMIT, LengthLimit, fault_of_rejected
from rewards.config.json_lines import json_reply
from rewards.llm.client import Failure
from rewards.rules.facts import Facts

Ask = Callable[[list[str]], Sequence[str | Failure]]
"""Replies to prompts, in their order, or why there is none."""
NO_REPLY = "no reply: "

CHOOSE = """You check answers about a medical image against the true answer.
Question: {question}
True answer: {truth}
Candidates:
{candidates}
Which candidate most clearly states something medically false: a finding that is not there, a wrong place, a wrong
diagnosis? Judge by the true answer alone. If none is clearly false, say null.
Reply with one line of JSON: {{"number": <number of the candidate or null>}}"""

WRITE = """You write a plausible but false answer about a medical image, to train a model to avoid such errors.
Question: {question}
True answer: {truth}
Change what the image is said to show: a wrong reading, a misleading description or a wrong diagnosis. Keep the style
and about the length ({words} words) of the true answer. Do not quote the true answer, and do not say that it is
changed.{again}
Reply with one line of JSON: {{"answer": "<the false answer>"}}"""


@dataclass(frozen=True)
class Request:
    """One true answer for which a false one is wanted. ``candidates``: the target model's own samples."""

    id: str
    question: str
    truth: str
    candidates: tuple[str, ...] = ()
    facts: Facts | None = None


@dataclass(frozen=True)
class Hallucinations:
    """False answers by request id, those of them that are the model's own, and why others have none."""

    answers: dict[str, str]
    from_samples: frozenset[str]
    dropped: dict[str, str]


def hallucinated(
    requests: Sequence[Request], ask: Ask, *, rounds: int = 2, limit: LengthLimit | None = USUAL_LIMIT
) -> Hallucinations:
    """A false answer for each request: its own most conflicting sample, else one that the LLM writes.

    A written answer that is refused is asked for again, with the reason, ``rounds`` times in all; then the request
    is dropped. Each step asks for all requests at once.
    """
    from_samples = _chosen([r for r in requests if _usable(r, limit)], ask, limit)
    answers, dropped = dict(from_samples), dict[str, str]()
    waiting = [request for request in requests if request.id not in from_samples]
    for _ in range(rounds):
        if not waiting:
            break
        replies = ask([_write_prompt(request, dropped.get(request.id)) for request in waiting])
        for request, reply in zip(waiting, replies, strict=True):
            answer, fault = written(request, reply, limit)
            if fault is None:
                answers[request.id] = answer
                dropped.pop(request.id, None)
            else:
                dropped[request.id] = fault
        waiting = [request for request in waiting if request.id in dropped]
    return Hallucinations(answers, frozenset(from_samples), dropped)


def _usable(request: Request, limit: LengthLimit | None) -> list[str]:
    """The candidates that are not refused; equal ones once."""
    return [
        candidate
        for candidate in dict.fromkeys(request.candidates)
        if fault_of_rejected(request.truth, candidate, truth=request.facts, limit=limit) is None
    ]


def _chosen(requests: list[Request], ask: Ask, limit: LengthLimit | None) -> dict[str, str]:
    if not requests:
        return {}
    offered = {request.id: _usable(request, limit) for request in requests}
    prompts = [
        CHOOSE.format(
            question=request.question,
            truth=request.truth,
            candidates="\n".join(f"{k}. {text}" for k, text in enumerate(offered[request.id], start=1)),
        )
        for request in requests
    ]
    numbers = [_field(reply, "number") for reply in ask(prompts)]
    return {
        request.id: offered[request.id][number - 1]
        for request, number in zip(requests, numbers, strict=True)
        if isinstance(number, int) and 1 <= number <= len(offered[request.id])
    }


def _write_prompt(request: Request, fault: str | None) -> str:
    again = f"\nAn earlier attempt was refused: {fault}." if fault and not fault.startswith(NO_REPLY) else ""
    words = len(request.truth.split())
    return WRITE.format(question=request.question, truth=request.truth, words=words, again=again)


def written(request: Request, reply: str | Failure, limit: LengthLimit | None = USUAL_LIMIT) -> tuple[str, str | None]:
    """The false answer in a reply, and why it cannot be used (None if it can)."""
    if isinstance(reply, Failure):
        return "", f"{NO_REPLY}{reply.brief or reply.kind}"
    answer = _field(reply, "answer")
    if not isinstance(answer, str):
        return "", "no JSON with an answer"
    return answer.strip(), fault_of_rejected(request.truth, answer, truth=request.facts, limit=limit)


def _field(reply: str | Failure, name: str) -> object:
    """A field of the JSON object in a reply; None where there is none."""
    if isinstance(reply, Failure):
        return None
    start, end = reply.find("{"), reply.rfind("}")
    content = json_reply(reply[start : end + 1]) if 0 <= start < end else None
    return content.get(name) if isinstance(content, dict) else None
