"""Win rate inside a group: every response of a prompt against every other, G(G-1)/2 comparisons. No pool needed.

An alternative to CRPO's fixed pool: it never saturates, but its mean is one half whatever the policy does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any, ClassVar, Literal

from rewards.config.knobs import Share
from rewards.judges.cases import cases
from rewards.judges.crpo import win_rate
from rewards.judges.judge_spec import JudgeSpec, open_judge
from rewards.judges.judging import DIMENSIONS, Case, Judge, Pair, Verdict, compared
from rewards.llm.spec import LocalBackend
from rewards.loading import Judged

BOUNDS = (0.0, 1.0)
TASKS: tuple[str, ...] | None = None


@dataclass(frozen=True)
class RoundRobin:
    """Share of comparisons won against the other responses to the same prompt, ties one half; sums to G/2 a group.

    None where a response is alone, or fewer than ``min_valid`` of its comparisons have a verdict. ``judge``: ``facts``
    or a language model; ``swap``: ask in both orders.
    """

    group_wise: ClassVar[bool] = True
    judge: JudgeSpec | Literal["facts"] = "facts"
    swap: bool = True
    min_valid: Share = 0.5
    local: LocalBackend | None = field(default=None, repr=False, metadata={"knob": False})

    @property
    def columns(self) -> tuple[str, ...]:
        """What is read of a row: facts for the rules, images for a model."""
        return ("prompt", "facts") if self.judge == "facts" else ("prompt", "images")

    @cached_property
    def opened(self) -> Judge:
        """The judge, opened at its first use."""
        return open_judge(self.judge, local=self.local)

    async def __call__(self, responses: Sequence[str], **columns: list[Any]) -> Judged:
        """One win rate for each response; a group is the responses to equal prompts with equal images and facts."""
        groups: dict[Case, list[int]] = {}
        for k, case in enumerate(cases(columns)):
            groups.setdefault(case, []).append(k)
        matches = [(case, a, b) for case, rows in groups.items() for a, b in combinations(rows, 2)]
        pairs = [Pair(case, responses[a], responses[b]) for case, a, b in matches]
        verdicts = await compared(self.opened, pairs, swap=self.swap)
        verdicts_of: dict[int, list[Verdict | None]] = {k: [] for k in range(len(responses))}
        for (_, a, b), verdict in zip(matches, verdicts, strict=True):
            verdicts_of[a].append(verdict)
            verdicts_of[b].append(None if verdict is None else {name: 1.0 - value for name, value in verdict.items()})
        failures = sum(v is None for v in verdicts) / max(1, len(verdicts))
        return Judged([self._score(verdicts_of[k]) for k in range(len(responses))], {"failure_rate": failures})

    def _score(self, verdicts: list[Verdict | None]) -> float | None:
        valid = sum(verdict is not None for verdict in verdicts)
        if not verdicts or valid < self.min_valid * len(verdicts):
            return None
        return win_rate(verdicts, {name: 1 / len(DIMENSIONS) for name in DIMENSIONS}, tie=0.5)
