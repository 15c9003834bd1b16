"""The recipe's ``data.curriculum``: which rows are trained on when. How they are drawn: ``curriculum_sampler.py``."""

from collections.abc import Mapping, Sequence

from pydantic import Field

from rewards.config.strict_model import StrictModel


class TrainingStage(StrictModel):
    """Rows whose column ``stage`` is one ``of`` these, for so many training steps.

    ``replay``: the share of draws taken from the rows of the stages before.
    """

    of: list[str] = Field(min_length=1)
    steps: int = Field(ge=1)
    replay: float = Field(default=0.0, ge=0.0, lt=1.0)


class CurriculumSection(StrictModel):
    """A recipe's ``data.curriculum``: its stages in order, and how tasks are drawn inside one.

    ``weights``: of tasks (1 where nothing is said). ``after``: tasks that a task waits for, until each row of theirs
    was drawn ``gate`` times on average. ``file``: a curriculum whose own weights and prerequisites are taken.
    """

    stages: list[TrainingStage] = Field(min_length=1)
    alpha: float = Field(default=1.0, ge=0.0)
    weights: dict[str, float] = {}
    after: dict[str, list[str]] = {}
    gate: float = Field(default=1.0, ge=0.0)
    file: str | None = None

    @property
    def steps(self) -> int:
        """Training steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def ruled(self) -> "CurriculumSection":
        """The section with the weights and prerequisites of its ``file``; its own win."""
        if self.file is None:
            return self
        from data_builders.curriculum.curriculum import load_curriculum

        tasks = load_curriculum(self.file).tasks
        weights = {name: task.weight for name, task in tasks.items()} | self.weights
        after = {name: task.after for name, task in tasks.items() if task.after} | self.after
        return self.model_copy(update={"weights": weights, "after": after})


def curriculum_faults(
    section: CurriculumSection | None,
    trainer: Mapping[str, object],
    names: Sequence[str],
) -> list[str]:
    """Columns that a curriculum lacks, and steps that are not its own."""
    if section is None:
        return []
    faults = [f"data.curriculum: reads column '{c}', which the data lack." for c in ("stage", "task") if c not in names]
    if trainer.get("max_steps", section.steps) != section.steps:
        faults.append(
            f"trainer.max_steps: got {trainer['max_steps']}, but the stages of data.curriculum have {section.steps} "
            "steps. Leave max_steps out."
        )
    return faults
