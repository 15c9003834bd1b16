"""Every row of one sample: its facts as questions, answers, pairs, dialogues and curriculum items.

Truth first; then what a weak annotator makes of it, where the spec names flaws. Left out: samples whose words are given
(``written_rows.py``).
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from data_builders.build.build_spec import BuildSpec
from data_builders.build.row_files import Row
from data_builders.build.tally import Tally
from data_builders.dialogues.rows import DialogueRows, annotator_of
from data_builders.dialogues.writer import Paraphraser
from data_builders.imaging.images import png_bytes
from data_builders.pairs.hallucination_checks import fault_of_rejected
from data_builders.pairs.noised_pairs import NoisedPairs
from data_builders.rendering.corrupt import corrupt
from data_builders.rendering.render import QuestionAnswer, absent_boxes, box_answer, questions, report
from data_builders.schema import RowKind, Sample, assistant_turn, facts_on_grid, row_always, user_turn
from rewards.rules.facts import Box, Facts
from rewards.rules.rule_set import RuleSet, load_rule_set


def rows_of(
    sample: Sample, spec: BuildSpec, split: str, tally: Tally, paraphrase: Paraphraser | None = None
) -> Iterator[tuple[RowKind, Row]]:
    """Every row of one sample, each kind that the spec asks for in its split."""
    rules = load_rule_set(sample.facts.rule_set)
    width, height = sample.image.size
    facts = facts_on_grid(sample.facts, width=width, height=height, grid=spec.box_grid)
    kinds: list[RowKind] = [kind for kind, splits in spec.rows.items() if split in splits]
    images = _stored(sample) if kinds else []
    units = {"target": None, "box_grid": spec.box_grid}
    for kind in kinds:
        rng = random.Random(f"{spec.seed}/{kind}/{sample.id}")
        page = _Page(kind, split, spec, rules, facts, rng, tally, sample, paraphrase)
        pairs = chain(page.preferences(), _noised_pairs(sample, spec, rules, facts, tally))
        for task, suffix, own in pairs if kind == "preference" else page.answers():
            provenance = json.dumps({**sample.provenance, **own.pop("provenance", {})}, sort_keys=True)
            row_id = f"{sample.id}-{kind}-{suffix}"
            always = row_always(sample, split=split, source=spec.source.name, task=task, row_id=row_id, facts=facts)
            asked = units if kind == "prompt" else {}
            yield kind, {**always, "provenance": provenance, "images": images, **asked, **own}


def _stored(sample: Sample) -> list[dict[str, Any]]:
    names = [sample.id, *(f"{sample.id}-{k}" for k in range(2, len(sample.images) + 1))]
    return [{"bytes": png_bytes(i), "path": f"{name}.png"} for name, i in zip(names, sample.images, strict=True)]


def _noised_pairs(
    sample: Sample, spec: BuildSpec, rules: RuleSet, facts: Facts, tally: Tally
) -> Iterator[tuple[str, str, Row]]:
    if spec.lesion_noise is None:
        return
    masks = spec.source.masks(sample) if spec.source.masks else {}
    varied, tagged = spec.wording == "varied", spec.answer_style == "tagged"
    yield from NoisedPairs(
        sample, spec.lesion_noise, rules, facts, tally.noise, seed=spec.seed, varied=varied, tagged=tagged, masks=masks
    )


@dataclass(frozen=True)
class _Page:
    """The words of one image in one kind of row, and all that they depend on."""

    kind: RowKind
    split: str
    spec: BuildSpec
    rules: RuleSet
    facts: Facts
    rng: random.Random
    tally: Tally
    sample: Sample
    paraphrase: Paraphraser | None

    def answers(self) -> Iterator[tuple[str, str, Row]]:
        """Task, suffix of the id, and own columns of each instruction or prompt row."""
        for number, asked in enumerate(self._asked()):
            prompt = user_turn(asked.question, num_images=len(self.sample.images))
            own = self._completed(asked) if self.kind == "instruction" else _truth(asked)
            yield asked.task, f"{asked.task}-{number}", {"prompt": prompt, **own}
        yield from self._dialogues()
        yield from self._curriculum()

    def _curriculum(self) -> Iterator[tuple[str, str, Row]]:
        for item in (
            self.tally.curriculum.items(self.sample, self.facts, self.kind, self.split) if self.tally.curriculum else ()
        ):
            prompt, said = user_turn(item.question, num_images=len(self.sample.images)), self._styled(item.answer)
            truth = {"answer": item.answer, "target": item.target}
            own = {"completion": assistant_turn(said)} if self.kind == "instruction" else truth
            yield item.task, item.suffix, {"prompt": prompt, **own, **item.columns}

    def _dialogues(self) -> Iterator[tuple[str, str, Row]]:
        if self.spec.dialogues is None:
            return
        turns = (1, *(self.sample.image_turns or (1,) * len(self.sample.more_images)))
        weak = annotator_of(self.spec.flaws, self.split)
        rows = DialogueRows(
            self.spec.dialogues,
            self.facts,
            self.rules,
            turns,
            self.paraphrase,
            scenarios=self.tally.scenarios,
            paraphrases=self.tally.paraphrases,
            annotator=weak,
        )
        for suffix, own in rows.of(
            self.kind, self.split, key=f"{self.spec.seed}/dialogue/{self.kind}/{self.sample.id}"
        ):
            yield "dialogue", f"dialogue-{suffix}", own

    def preferences(self) -> Iterator[tuple[str, str, Row]]:
        """Task, suffix of the id, and own columns of each pair: the true report and a corrupted one."""
        made: list[Facts] = []
        for number in range(self.spec.corruptions_per_image):
            wrong = corrupt(self.facts, self.rules, self.rng)
            if wrong is None or wrong.facts in made:
                continue
            made.append(wrong.facts)
            question, chosen, rejected = self._reports(wrong.facts)
            if fault := fault_of_rejected(chosen, rejected, truth=self.facts):
                self.tally.refused[fault] += 1
                continue
            yield "report", f"{wrong.kind}-{number}", {
                "prompt": user_turn(question, num_images=len(self.sample.images)),
                "chosen": assistant_turn(self._styled(chosen)),
                "rejected": assistant_turn(self._styled(rejected)),
                "relevance": wrong.severity,
                "weight": wrong.severity,
                "kind": "hallucination",
                "provenance": {"corrupted": f"{wrong.kind} {wrong.finding}"},
            }  # fmt: skip

    def _reports(self, wrong: Facts) -> tuple[str, str, str]:
        """The question, the true report and the wrong one, alike in all wording that their facts share."""
        if self.spec.wording == "first":
            return self.rules.wording.ask_report[0], report(self.facts, self.rules), report(wrong, self.rules)
        question, seed = self.rng.choice(self.rules.wording.ask_report), self.rng.getrandbits(64)
        chosen, rejected = (report(f, self.rules, rng=random.Random(seed)) for f in (self.facts, wrong))
        return question, chosen, rejected

    def _asked(self) -> Iterator[QuestionAnswer]:
        """The questions of this image. Yes and no are about as frequent where presence questions are drawn."""
        for task, number in self.spec.tasks_of(self.kind, self.split).items():
            answerable = questions(self.facts, self.rules, task, rng=self._wording)
            if task == "box" and self.spec.box_absent:
                answerable += absent_boxes(self.facts, self.rules, rng=self._wording)
            possible = [asked for asked in answerable if self._may_be_asked(asked)]
            if number == "all":
                yield from possible
            elif task == "presence":
                yield from _balanced(possible, number, self.rng)
            else:
                yield from self.rng.sample(possible, min(number, len(possible)))

    @property
    def _wording(self) -> random.Random | None:
        return self.rng if self.spec.wording == "varied" else None

    def _may_be_asked(self, asked: QuestionAnswer) -> bool:
        too_many = len(asked.boxes or ()) > self.spec.max_boxes
        if too_many:
            self.tally.not_asked[f"{asked.finding}: more than {self.spec.max_boxes} boxes in one answer"] += 1
        return not too_many

    def _completed(self, asked: QuestionAnswer) -> Row:
        answer, provenance = self._with_flaws(asked)
        return {"completion": assistant_turn(self._styled(answer)), "provenance": provenance}

    def _styled(self, answer: str) -> str:
        return f"<answer>{answer}</answer>" if self.spec.answer_style == "tagged" else answer

    def _with_flaws(self, asked: QuestionAnswer) -> tuple[str, dict[str, str]]:
        """The answer as a weak annotator leaves it, and the flaw's name; ``facts`` keep the truth."""
        flaws = self.spec.flaws
        if flaws is None or self.split not in flaws.splits:
            return asked.answer, {}
        if asked.task == "report" and self.rng.random() < flaws.invented_findings:
            return self._with_invention(asked.answer)
        if asked.task == "box" and asked.finding and asked.boxes and flaws.loose_boxes > 1:
            return self._with_loose_boxes(asked.finding, flaws.loose_boxes)
        return asked.answer, {}

    def _with_invention(self, true_report: str) -> tuple[str, dict[str, str]]:
        wrong = corrupt(self.facts, self.rules, self.rng, kinds=("invented",))
        if wrong is None:
            return true_report, {}
        return report(wrong.facts, self.rules, rng=self._wording), {"flaw": f"invented {wrong.finding}"}

    def _with_loose_boxes(self, name: str, factor: float) -> tuple[str, dict[str, str]]:
        finding = self.facts.findings[name]
        loose = tuple(_loose(box, factor, self.spec.box_grid) for box in finding.boxes)
        answer = box_answer(finding.model_copy(update={"boxes": loose}), self.rules.findings[name])
        return answer, {"flaw": f"boxes {factor:g} times too large"}


def _truth(asked: QuestionAnswer) -> Row:
    boxes = None if asked.boxes is None else [[float(v) for v in box] for box in asked.boxes]
    return {"answer": asked.answer, "boxes": boxes, "target": asked.finding}


def _balanced(possible: list[QuestionAnswer], number: int, rng: random.Random) -> list[QuestionAnswer]:
    by_answer = {said: [q for q in possible if q.answer == said] for said in ("Yes", "No")}
    drawn: list[QuestionAnswer] = []
    for _ in range(min(number, len(possible))):
        pool = by_answer[rng.choice(["Yes", "No"])] or by_answer["Yes"] or by_answer["No"]
        drawn.append(pool.pop(rng.randrange(len(pool))))
    return drawn


def _loose(box: Box, factor: float, grid: int) -> Box:
    """The box, ``factor`` times as wide and high about its centre, inside the grid."""
    (x1, y1, x2, y2), k = box, (factor - 1) / 2
    wide, high = k * (x2 - x1), k * (y2 - y1)
    left, top = max(0, round(x1 - wide)), max(0, round(y1 - high))
    return left, top, min(grid, round(x2 + wide)), min(grid, round(y2 + high))
