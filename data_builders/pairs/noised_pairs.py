"""The image side of the preference rows of one image: the same true answer, under the image and under noised lesions.

MMedPO (Zhu et al. 2024, section 3.1): what is preferred is not another answer but another look. Left out: noise where
no lesion is known (such an image has no image side; it is counted).
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from data_builders.imaging.images import ImageError, png_bytes
from data_builders.pairs.lesion_heat import GivenBoxes, GivenMasks, HeatMap, Mask
from data_builders.pairs.lesion_noise import Noised, NoiseTally, noised
from data_builders.pairs.settings import NoiseSettings
from data_builders.rendering.render import QuestionAnswer, questions
from data_builders.schema import Sample, Task, assistant_turn, user_turn
from data_builders.seeds import seeded
from rewards.rules.facts import Facts
from rewards.rules.rule_set import RuleSet

Row = dict[str, Any]


class LesionNoise(NoiseSettings):
    """Preference rows whose rejected side is the same true answer under a noised lesion (MMedPO section 3.1).

    ``tasks``: one such row for each image and task that asks for a finding with a box or a mask. ``findings``: only
    these are noised (None: all). ``weight``: the severity of the gravest finding that was noised, or the
    ``confidence`` with which it was located.
    """

    tasks: list[Task] = Field(default=["report"], min_length=1)
    findings: list[str] | None = None
    weight: Literal["severity", "confidence"] = "severity"


@dataclass(frozen=True)
class NoisedPairs:
    """Task, suffix of the id, and own columns of each image-side pair. ``facts``: with boxes on the grid.

    ``seed``: of the build. ``varied``: whether the wording is drawn. ``tagged``: whether answers stand in tags.
    ``masks``: what is known of each finding's lesion beyond its box.
    """

    sample: Sample
    settings: LesionNoise
    rules: RuleSet
    facts: Facts
    tally: NoiseTally
    seed: int
    varied: bool
    tagged: bool
    masks: dict[str, Mask]

    def __iter__(self) -> Iterator[tuple[str, str, Row]]:
        rng = random.Random(f"{self.seed}/lesion_noise/{self.sample.id}")
        wording = rng if self.varied else None
        for task in self.settings.tasks:
            possible = [q for q in questions(self.facts, self.rules, task, rng=wording) if self._findings(q)]
            if not possible:
                self.tally.skipped["no lesion"] += 1
                continue
            question = rng.choice(possible)
            if (pair := self._pair(question)) is not None:
                yield task, f"noised-{task}", pair

    def _findings(self, question: QuestionAnswer) -> list[str]:
        """The findings that this question is about, that are there, and that can be noised."""
        wanted = self.settings.findings
        return [
            name
            for name, finding in self.sample.facts.present().items()
            if finding.boxes and question.finding in (None, name) and (wanted is None or name in wanted)
        ]

    def _pair(self, question: QuestionAnswer) -> Row | None:
        names = self._findings(question)
        result = self._noised(names, question.task)
        if result is None:
            return None
        other, confidence = result
        self.tally.shares.append(other.share)
        answer = assistant_turn(f"<answer>{question.answer}</answer>" if self.tagged else question.answer)
        severity = max(self.rules.findings[name].severity for name in names)
        relevance = severity if self.settings.weight == "severity" else confidence
        return {
            "rejected_images": [
                {"bytes": png_bytes(other.image), "path": f"{self.sample.id}-noised-{question.task}.png"}
            ],
            "prompt": user_turn(question.question),
            "chosen": answer,
            "rejected": answer,
            "relevance": relevance,
            "weight": relevance,
            "kind": "lesion_noise",
            "provenance": {"noised": names, "noised_share": round(other.share, 6)},
        }

    def _noised(self, names: list[str], task: str) -> tuple[Noised, float] | None:
        try:
            heat, confidence = self._heat_map(names)(self.sample.image, None)
            rng = seeded("lesion_noise", self.seed, self.sample.id, task)
            result = noised(self.sample.image, heat, self.settings, rng)
        except ImageError as fault:
            self.tally.skipped[str(fault)] += 1
            return None
        if result is None:
            self.tally.skipped["no lesion"] += 1
            return None
        return result, confidence

    def _heat_map(self, names: list[str]) -> HeatMap:
        drawn = {name: self.masks[name] for name in names if name in self.masks}
        return GivenMasks(drawn) if len(drawn) == len(names) else GivenBoxes(self.sample.facts, findings=tuple(names))
