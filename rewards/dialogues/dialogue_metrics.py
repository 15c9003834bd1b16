"""What came of one dialogue, in counts, and the confusion of symbols; from gold symbols and what was read.

Left out: A_Q, A_C, A_D and H_cc of Dr-LLaVA (arXiv 2405.19567), which are ratios of sums of these counts and belong to
the evaluation, whose intervals need patients. An answer that is not understood is on no valid path.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rewards.dialogues.dialogue import Dialogue, Responses, readings
from rewards.dialogues.dialogue_consistency import contradictions, yields
from rewards.rules.symbols import SymbolReading


@dataclass(frozen=True)
class Outcome:
    """What came of one dialogue, in counts that add up over dialogues.

    ``final_right``: None where the final node was not asked. ``contradicts``: the answers that were understood
    cannot all be true. ``confusion``: (node, gold, said), where an answer without a symbol is its kind in brackets.
    """

    rule_set: str
    scenario: str
    num_turns: int
    num_right: int
    num_parsed: int
    final_right: bool | None
    valid_path: bool
    contradicts: bool
    num_wrong_claims: int
    num_yielded: int
    confusion: tuple[tuple[str, str, str], ...]

    @property
    def all_right(self) -> bool:
        """Whether every answer is right."""
        return self.num_right == self.num_turns


def outcome(response: Responses, dialogue: Dialogue) -> Outcome:
    """The model's turns in one dialogue, judged by its gold symbols; the texts of the dialogue play no part."""
    heard = readings(response, dialogue)
    pairs = list(zip(dialogue.turns, heard, strict=True))
    misled = [yields(dialogue.decision, t, r) for t, r in pairs if t.claim is not None and not t.claim.right]
    final = [r.stated == t.gold for t, r in pairs if t.node == dialogue.decision.final]
    num_parsed = sum(r.stated is not None for r in heard)
    contradicts = contradictions(dialogue, heard) > 0
    known = all(r.stated in dialogue.decision.domains[t.node] for t, r in pairs)
    return Outcome(
        rule_set=dialogue.rule_set,
        scenario=dialogue.scenario,
        num_turns=len(pairs),
        num_right=sum(r.stated == t.gold for t, r in pairs),
        num_parsed=num_parsed,
        final_right=final[0] if final else None,
        valid_path=known and not contradicts,
        contradicts=contradicts,
        num_wrong_claims=len(misled),
        num_yielded=sum(misled),
        confusion=tuple((t.node, t.gold, _label(r)) for t, r in pairs),
    )


def _label(reading: SymbolReading) -> str:
    return reading.stated if reading.stated is not None else f"({reading.kind})"


def confusions(outcomes: Iterable[Outcome]) -> Mapping[str, Mapping[str, Mapping[str, int]]]:
    """How often each gold symbol of each node was answered by what: ``table[node][gold][said]``."""
    counts = Counter(entry for found in outcomes for entry in found.confusion)
    table: dict[str, dict[str, dict[str, int]]] = {}
    for (node, gold, symbol), number in sorted(counts.items()):
        table.setdefault(node, {}).setdefault(gold, {})[symbol] = number
    return table
