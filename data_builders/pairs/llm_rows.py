"""What language models add to preference rows that are written: hallucinated reports, and judged relevance.

A hallucinated report takes the place of the first corrupted truth of its image; where none is fit, that one stays.
Relevance is debated by the judges on the text alone, as in MMedPO (Zhu et al. 2024, section 3.2.1); every transcript is
kept beside the rows. Left out: local models, which this floor cannot load (a ``pairs`` run hands in how).
"""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_builders.pairs.llm_hallucinations import Ask, Request, hallucinated
from data_builders.schema import assistant_turn, message_text
from rewards.answers.final_answer import final_answer
from rewards.config.input_error import InputError
from rewards.judges.debate import Debate, Panel, debates
from rewards.llm.client import Completion, Failure, LlmClient, ask
from rewards.llm.spec import LlmSpec, LocalBackend, open_llm
from rewards.reports.severity import UNREAD, severity_of
from rewards.rules.facts import Facts

Row = dict[str, Any]


@dataclass
class LlmTally:
    """What the models did: ``written`` reports, ``dropped`` by reason, debates by ``outcome``."""

    written: int = 0
    dropped: Counter[str] = field(default_factory=Counter[str])
    debates: Counter[str] = field(default_factory=Counter[str])

    def report(self) -> dict[str, Any]:
        """The counts, for a card."""
        return {"written": self.written, "dropped": dict(self.dropped), "debates": dict(self.debates)}


def asker(client: LlmClient, *, max_tokens: int = 512) -> Ask:
    """The client as a plain function of prompts; a request that failed for good has its failure as reply."""

    def ask_all(prompts: list[str]) -> list[str | Failure]:
        requests = [ask(prompt, max_tokens=max_tokens, version="hallucination-1") for prompt in prompts]
        return [reply.text if isinstance(reply, Completion) else reply for reply in client.complete_now(requests)]

    return ask_all


def with_llm_answers(rows: list[Row], llm: LlmSpec, tally: LlmTally) -> list[Row]:
    """The rows, the first corrupted truth of each image replaced by a false report of the model where it is fit.

    Raises: InputError as ``open_llm`` does, or where the model cannot be reached.
    """
    firsts = {_image_of(row): index for index, row in reversed([*enumerate(rows)]) if row["kind"] == "hallucination"}
    requests = [_request(str(index), rows[index]) for index in sorted(firsts.values())]
    made = hallucinated(requests, asker(open_llm(llm)))
    tally.written += len(made.answers)
    tally.dropped.update(made.dropped.values())
    return [_replaced(row, made.answers.get(str(index))) for index, row in enumerate(rows)]


def check_written(written: int, dropped: Mapping[str, int], *, llm: str) -> None:
    """Raises InputError, with the reasons, if the language model ``llm`` was asked and wrote nothing that is fit."""
    if dropped and not written:
        reasons = "; ".join(f"{reason} ({number})" for reason, number in Counter(dropped).most_common(3))
        raise InputError(
            f"llm: {llm} wrote none of the {sum(dropped.values())} false answers asked for: {reasons}. "
            "Mend the endpoint, name another model, or leave it out."
        )


def _image_of(row: Row) -> str:
    return row["id"].rpartition("-preference-")[0]


def _request(key: str, row: Row) -> Request:
    truth = message_text(row["chosen"])
    return Request(key, message_text(row["prompt"]), final_answer(truth) or truth, facts=_facts(row))


def _facts(row: Row) -> Facts | None:
    return Facts.model_validate_json(row["facts"]) if row["rule_set"] else None


def _replaced(row: Row, answer: str | None) -> Row:
    if answer is None:
        return row
    tagged = final_answer(message_text(row["chosen"])) is not None
    text = f"<answer>{answer}</answer>" if tagged else answer
    facts = _facts(row)
    severity = UNREAD if facts is None else relevance_of(facts, answer)
    return {**row, "rejected": assistant_turn(text), "kind": "llm", "relevance": severity, "weight": severity}


def relevance_of(truth: Facts, response: str) -> float:
    """The severity in [0, 1] of the gravest error in a false report; ``UNREAD`` where the reader finds none by name."""
    found = severity_of(truth, response)
    return UNREAD if found is None else found


def judged_scores(
    rows: list[Row],
    judges: list[LlmSpec],
    *,
    max_rounds: int,
    out: Path,
    tally: LlmTally,
    local: LocalBackend | None = None,
) -> list[Debate]:
    """The debate on each row's rejected answer, in order; transcripts go to ``out``, a row a line."""
    named = {f"{k}: {spec.model}": open_llm(spec, local=local) for k, spec in enumerate(judges, start=1)}
    cases = [(message_text(row["prompt"]), message_text(row["rejected"])) for row in rows]
    held = asyncio.run(debates(Panel(named, max_rounds=max_rounds), cases))
    tally.debates.update(debate.outcome for debate in held)
    lines = [json.dumps({"id": row["id"], **asdict(one)}) for row, one in zip(rows, held, strict=True)]
    out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return held
