"""A curriculum at work in a build: each image's questions and answers, task by task, and what became of them.

Facts come from the table, or are read from the report; a task for reports takes a report written from the facts where
an image has none. Then templates write the items, or a language model does. Every item is checked; what is skipped or
rejected is counted. Left out: calls for several images at once (a model is asked about all tasks of one image).
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any

from pydantic import Field, model_validator

from data_builders.curriculum.checks import CurriculumChecks, opinion
from data_builders.curriculum.curriculum import Curriculum, From, Stage, Task, load_curriculum
from data_builders.curriculum.llm_items import written_items
from data_builders.curriculum.templates import Balance, Case, TemplateItem, generated, written_report
from data_builders.rendering.report_facts import report_facts
from data_builders.schema import RowKind, Sample
from rewards.config.input_error import InputError
from rewards.config.strict_model import StrictModel
from rewards.llm.client import LlmClient
from rewards.llm.item_lists import Item
from rewards.llm.spec import LlmSpec, LocalBackend, open_llm
from rewards.rules.facts import Facts
from rewards.rules.guidelines import Contradictory, Policy, WorkedOut, worked_out
from rewards.rules.rule_set import load_rule_set

BY_TEMPLATE = {"similar": 1.1, "leak": 0.99}
"""Templates repeat words on purpose: equal items are dropped as they are drawn, and a denial repeats its question."""


class CurriculumUse(StrictModel):
    """Which curriculum a build follows, and how.

    ``file``: a shipped name (``retina_vlm``) or a YAML file. ``share``: of each task's questions that an image gets,
    at least one. ``contradictions``: what becomes of facts that contradict themselves. ``llm``: the model that writes;
    without it templates do. ``rounds``: how often it is asked again for what is missing.
    """

    file: str
    share: float = Field(default=1.0, gt=0, le=1)
    contradictions: Policy = "quarantine"
    llm: LlmSpec | None = None
    rounds: int = Field(default=3, ge=1)
    temperature: float = Field(default=0.8, ge=0)
    max_tokens: int = Field(default=4096, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, content: Any) -> Any:
        return {"file": content} if isinstance(content, str) else content

    @model_validator(mode="after")
    def _is_sound(self) -> "CurriculumUse":
        load_curriculum(self.file)
        return self


@dataclass(frozen=True)
class CurriculumItem:
    """One question and answer, the id of its task, what tells it apart in the id of its row, and its own columns.

    ``target``: the finding that is asked about, if it is one.
    """

    task: str
    suffix: str
    question: str
    answer: str
    columns: dict[str, Any]
    target: str | None = None


@dataclass(frozen=True)
class _Due:
    """One task of one image, ready to be asked."""

    stage: Stage
    case: Case
    number: int
    report: str


@dataclass
class CurriculumBuild:
    """The curriculum of one build, and its counts: by task, what was kept, skipped and rejected, and its balance."""

    curriculum: Curriculum
    use: CurriculumUse
    seed: int = 0
    client: LlmClient | None = None
    balances: dict[str, Balance] = field(default_factory=dict[str, Balance])
    skipped: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    rejected: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    lengths: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    findings: Counter[tuple[str, bool]] = field(default_factory=Counter[tuple[str, bool]])

    def items(self, sample: Sample, facts: Facts, kind: RowKind, split: str) -> Iterator[CurriculumItem]:
        """Every item of one image, in the order of the curriculum.

        Raises: InputError if the facts follow another rule set, or the model cannot go on (replies are kept).
        """
        expected = load_rule_set(self.curriculum.rule_set).id
        if facts.rule_set != expected:
            raise InputError(f"curriculum {self.curriculum.id} is for {expected}; the facts follow {facts.rule_set}.")
        key = f"{self.seed}/{kind}/{sample.id}"
        due = list(self._due(sample, facts, key))
        written = self._written(due) if self.client else [self._templated(d, f"{key}/{split}", split) for d in due]
        for entry, items in zip(due, written, strict=True):
            yield from self._kept(entry, items)

    def _due(self, sample: Sample, facts: Facts, key: str) -> Iterator[_Due]:
        known: dict[tuple[From, tuple[str, ...]], WorkedOut | str] = {}
        for stage in self.curriculum.stages:
            for task in stage.tasks:
                guidelines = self.curriculum.guidelines_of(task)
                origin: From = "report" if task.source == "report" else "table"
                if (origin, guidelines) not in known:
                    known[origin, guidelines] = self._worked_out(origin, guidelines, sample, facts)
                case = self._case(task, known[origin, guidelines], guidelines)
                if case is None:
                    continue
                missing = [name for name in task.needs if name not in case.worked.facts.record()]
                if missing:
                    self.skipped[task.id, f"not known: {', '.join(missing)}"] += 1
                    continue
                report = sample.report or written_report(case, random.Random(f"{key}/report"))
                number = max(1, round(task.count * self.use.share))
                yield _Due(stage, case, number, report if task.source == "report" else "")

    def _worked_out(self, origin: From, guidelines: tuple[str, ...], sample: Sample, facts: Facts) -> WorkedOut | str:
        """What the guidelines make of the table or of the report, or why they contradict."""
        rules = load_rule_set(self.curriculum.rule_set)
        if origin == "report" and sample.report:
            eye = facts.values.get("eye")
            facts = report_facts(sample.report, rules, eye=eye if isinstance(eye, str) else None)
        try:
            worked = worked_out(facts, guidelines, policy=self.use.contradictions)
        except Contradictory as clash:
            return f"contradiction: {clash}"
        return _as_stated(worked, rules.id) if origin == "report" and not sample.report else worked

    def _case(self, task: Task, worked: WorkedOut | str, guidelines: tuple[str, ...]) -> Case | None:
        if isinstance(worked, str):
            self.skipped[task.id, worked] += 1
            return None
        return Case(worked, load_rule_set(self.curriculum.rule_set), self.curriculum, task, guidelines)

    def _templated(self, due: _Due, key: str, split: str) -> list[TemplateItem]:
        task = due.case.task
        balance = self.balances.setdefault(f"{split}/{task.id}", Balance())
        checks = CurriculumChecks(due.case, **BY_TEMPLATE)
        rejected = self.rejected.setdefault(task.id, Counter())
        rng = random.Random(f"{key}/{task.id}")

        def fault(candidate: TemplateItem) -> str | None:
            return checks(Item(candidate.question, candidate.answer), [])

        return list(generated(due.case, due.number, rng, balance, fault, rejected))

    def _written(self, due: list[_Due]) -> list[list[TemplateItem]]:
        assert self.client is not None
        return asyncio.run(self._all_written(due, self.client))

    async def _all_written(self, due: list[_Due], client: LlmClient) -> list[list[TemplateItem]]:
        slots = asyncio.Semaphore(client.concurrency)

        async def one(entry: _Due) -> list[TemplateItem]:
            async with slots:
                parsed = await written_items(
                    client,
                    entry.case,
                    entry.number,
                    report=entry.report,
                    rounds=self.use.rounds,
                    temperature=self.use.temperature,
                    max_tokens=self.use.max_tokens,
                )
            task = entry.case.task.id
            self.rejected.setdefault(task, Counter()).update(reject.reason for reject in parsed.rejects)
            return [_heard(item, task, self.balances) for item in parsed.items]

        return await asyncio.gather(*(one(entry) for entry in due))

    def _kept(self, due: _Due, items: list[TemplateItem]) -> Iterator[CurriculumItem]:
        case, task = due.case, due.case.task
        generator = self.client.backend.model if self.client else "templates"
        if len(items) < due.number:
            self.skipped[task.id, "questions missing"] += due.number - len(items)
        for number, item in enumerate(items, start=1):
            self.lengths.setdefault(task.id, []).append(len(item.answer.split()))
            if item.positive is not None:
                self.findings[item.about.partition(".")[0], item.positive] += 1
            provenance = {
                "curriculum": self.curriculum.id,
                "generator": generator,
                "kind": item.kind,
                "about": item.about,
                "from": task.source,
                "repaired": list(case.worked.repaired),
            }
            columns = {
                "stage": due.stage.id,
                "capability": task.capability,
                "guidelines": list(case.guidelines),
                "facts": case.worked.facts.to_json(),
                "provenance": provenance,
            }
            suffix, about = f"{task.id}-{number}", item.about.partition(".")[0]
            target = about if item.kind in ("presence", "attribute") else None
            yield CurriculumItem(task.id, suffix, item.question, item.answer, columns, target)

    def card(self) -> dict[str, Any]:
        """Counts for the card of the data set: by task what was kept, missing and rejected, its balance and lengths."""
        return {
            "id": self.curriculum.id,
            "generator": self.client.backend.model if self.client else "templates",
            "tasks": {task: self._task_card(task) for task in self.curriculum.tasks},
            "findings": {
                f"{name} {'present' if there else 'absent'}": n for (name, there), n in sorted(self.findings.items())
            },
        }

    def _task_card(self, task: str) -> dict[str, Any]:
        lengths = self.lengths.get(task, [])
        balances = [balance for key, balance in self.balances.items() if key.endswith(f"/{task}")]
        total = Balance(sum((balance.counts for balance in balances), Counter()))
        deciles = quantiles(lengths, n=10, method="inclusive") if len(lengths) > 1 else [*lengths] * 9
        return {
            "kept": len(lengths),
            "skipped": {reason: n for (name, reason), n in sorted(self.skipped.items()) if name == task},
            "rejected": dict(sorted(self.rejected.get(task, Counter()).items())),
            "yes": total.share("yes"),
            "positive": total.share("positive"),
            "words": {"median": deciles[4], "p90": deciles[8], "most": max(lengths)} if lengths else {},
        }


def _as_stated(worked: WorkedOut, rule_set: str) -> WorkedOut:
    """The same, with the definite levels of the rule set's own scales as a report states them."""
    stated = {
        name: staged.level
        for name, staged in worked.scales.items()
        if worked.guidelines[name] == rule_set and not staged.could_be
    }
    facts = worked.facts.model_copy(update={"values": {**worked.facts.values, **stated}})
    return WorkedOut(facts, worked.scales, worked.guidelines, worked.repaired)


def _heard(item: Item, task: str, balances: dict[str, Balance]) -> TemplateItem:
    """A model's item, with whether it says yes or no."""
    heard = TemplateItem("describe", "written", item.question, item.answer, yes=opinion(item.answer)[0])
    balances.setdefault(f"/{task}", Balance()).add(heard)
    return heard


def open_curriculum(
    use: CurriculumUse, *, seed: int, output: str, local: LocalBackend | None = None
) -> CurriculumBuild:
    """The curriculum of a build. A model's replies are kept beside the output, so that a build that was killed goes on.

    Raises: InputError if the model is a local one and there is no ``local`` to load it.
    """
    client = None
    if use.llm is not None:
        spec = use.llm if use.llm.cache else use.llm.model_copy(update={"cache": f"{output}-replies"})
        client = open_llm(spec, local=local)
    return CurriculumBuild(load_curriculum(use.file), use, seed, client)
