"""Dialogues to read in the HTML report, and which answer was given for which, node by node."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from alignment.metrics.answer_lines import AnswerLine, DialogueLine
from rewards.dialogues.dialogue import Dialogue, Turn, clinician_says, read_dialogue, readings
from rewards.dialogues.dialogue_metrics import confusions, outcome
from rewards.rules.symbols import SymbolReading

NUM_DIALOGUES = 12
Json = dict[str, Any]
Answers = Mapping[str, Sequence[AnswerLine]]


def dialogues_to_read(answers: Answers) -> list[Json]:
    """Whole dialogues of every stage side by side: of each scenario in turn, as many as ``NUM_DIALOGUES``."""
    by_id = {stage: {line["id"]: line for line in lines if _holds(line)} for stage, lines in answers.items()}
    first = next(iter(by_id.values()), {})
    return [
        _page(line, [of_stage.get(line["id"]) for of_stage in by_id.values()]) for line in _chosen(list(first.values()))
    ]


def _holds(line: AnswerLine) -> TypeGuard[DialogueLine]:
    return line["task"] == "dialogue"


def _chosen(lines: Sequence[DialogueLine]) -> list[DialogueLine]:
    """One dialogue of each scenario, then a second of each; no patient twice in a scenario's first choices."""
    groups: defaultdict[str, list[DialogueLine]] = defaultdict(list)
    for line in lines:
        groups[read_dialogue(line["dialogue"]).scenario].append(line)
    rounds = max(map(len, groups.values()), default=0)
    ranked = [
        groups[name][(k + shift) % len(groups[name])]
        for k in range(min(rounds, NUM_DIALOGUES))
        for shift, name in enumerate(groups)
        if k < len(groups[name])
    ]
    return ranked[:NUM_DIALOGUES]


def _page(line: DialogueLine, stages: Sequence[AnswerLine | None]) -> Json:
    dialogue = read_dialogue(line["dialogue"])
    heard = [_heard(dialogue, other["responses"]["clean"]) if other else [] for other in stages]
    turns = [
        {"node": turn.node, "gold": turn.gold, "answers": [answers[k] if answers else None for answers in heard]}
        for k, turn in enumerate(dialogue.turns)
    ]
    return {"patient": line["patient"], "scenario": dialogue.scenario, "image": line["image"], "turns": turns}


def _heard(dialogue: Dialogue, responses: Sequence[str]) -> list[Json]:
    """Each turn: what the clinician asked (which may follow from the answers), what was said and what was read."""
    read = readings(responses, dialogue)
    known: dict[str, str] = {}
    answers: list[Json] = []
    for k, (turn, reading) in enumerate(zip(dialogue.turns, read, strict=True)):
        text = responses[k] if k < len(responses) else "(no room for this turn)"
        answers.append(_answer(turn, reading, text, clinician_says(turn, known)))
        if reading.stated is not None:
            known[turn.node] = reading.stated
    return answers


def _answer(turn: Turn, reading: SymbolReading, text: str, question: str) -> Json:
    return {
        "asked": question,
        "text": text,
        "read": reading.stated or f"({reading.kind})",
        "wrong": reading.stated != turn.gold,
    }


def confusion_tables(answers: Answers) -> list[Json]:
    """For every stage and node: how often each true answer was answered by what. Empty without dialogues."""
    return [
        {"stage": stage, "node": node, "said": sorted({s for of in table.values() for s in of}), "rows": table}
        for stage, lines in answers.items()
        for node, table in confusions(
            outcome(line["responses"]["clean"], read_dialogue(line["dialogue"])) for line in lines if _holds(line)
        ).items()
    ]
