"""A curriculum: stages of tasks, each of which turns what is known of an image into questions and answers.

After RetinaVLM (arXiv 2407.08410): an introduction from tables, then ten sub-tasks from reports. One YAML file holds
it; what is true is the rule set's and the guidelines', each named with its version or by its file. Left out: how
training draws from the tasks (their ``weight`` and ``after`` are for it to read).
"""

from collections.abc import Iterator
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from string import Formatter
from typing import Annotated, Literal

from pydantic import Field

from rewards.config.input_error import InputError, nearest
from rewards.config.strict_model import StrictModel
from rewards.config.strict_yaml import read_yaml, validated
from rewards.config.yaml_lines import KeyPath, located_faults
from rewards.rules.faults import Fault
from rewards.rules.guidelines import together
from rewards.rules.known_files import KnownFile, read_file
from rewards.rules.rule_set import load_rule_set

Kind = Literal[
    "presence", "attribute", "describe", "segment", "level", "check", "not_more", "not_less", "full_report", "measure"
]
"""Kinds of questions: whether a finding is there; its side or size; a description, or of some findings only; the level
on a scale; whether it is this level; why not a higher or lower one; everything; a measured value."""
Style = Literal["short", "sentence", "conclusion_first", "evidence_first"]
"""A word, a sentence, a conclusion with the evidence behind it, or the evidence before it."""
From = Literal["table", "report", "measurements"]
SCALED: tuple[Kind, ...] = ("level", "check", "not_more", "not_less", "full_report")


class Section(StrictModel):
    """Items ``first`` to ``last`` (from 1) of a task have an answer style of their own."""

    first: int = Field(ge=1)
    last: int = Field(ge=1)
    style: Style


class Task(StrictModel):
    """One task.

    ``asks``: the share of each kind of question. ``scales``: those that are asked about (all of the guidelines where
    none is named); ``findings`` likewise. ``count``: questions an image. ``max_tokens``: the longest answer.
    ``needs``: columns that must be known of an image, else it is skipped and counted; ``stage`` is known where a
    clinician stated it. ``weight``: of the task when training draws. ``after``: tasks that must be learnt before.
    ``instructions``: what a language model is told to write; the offline generator reads ``asks``.
    """

    id: str = Field(pattern=r"^[a-z0-9_]+$")
    capability: str
    source: From
    guidelines: list[str] = []
    count: int = Field(ge=1)
    asks: dict[Kind, Annotated[float, Field(gt=0)]] = Field(min_length=1)
    scales: list[str] = []
    findings: list[str] = []
    style: Style = "sentence"
    sections: list[Section] = []
    max_tokens: int = Field(default=300, ge=1)
    needs: list[str] = []
    weight: float = Field(default=1.0, gt=0)
    after: list[str] = []
    instructions: str

    def style_of(self, number: int) -> Style:
        """The answer style of item ``number`` (from 1)."""
        for section in self.sections:
            if section.first <= number <= section.last:
                return section.style
        return self.style


class Stage(StrictModel):
    """Tasks that are learnt together, after the stages before."""

    id: str = Field(pattern=r"^[a-z0-9_]+$")
    tasks: list[Task] = Field(min_length=1)


class ScaleWording(StrictModel):
    """How one scale is asked about and stated: templates with ``{level}``, alternatives of equal meaning."""

    ask: list[str] = Field(min_length=1)
    check: list[str] = Field(min_length=1)
    say: list[str] = Field(min_length=1)
    deny: list[str] = Field(min_length=1)
    not_more: list[str] = []
    not_less: list[str] = []


class CurriculumWording(StrictModel):
    """Templates of what a rule set does not word.

    ``absence``: questions that a denial answers with yes (``{name}``); ``side``, ``size``: questions that do not say
    whether the finding is there (by default the rule set's); ``segment`` (``{segment}``); ``measure`` (``{name}``) and
    ``measured`` (``{name}``, ``{value}``, ``{unit}``).
    """

    absence: list[str] = []
    side: list[str] = []
    size: list[str] = []
    segment: list[str] = []
    full_report: list[str] = []
    measure: list[str] = []
    measured: list[str] = []
    scales: dict[str, ScaleWording] = {}


class Measured(StrictModel):
    """A measured value: its name in words, its unit, and by how much a number in an answer may differ from it."""

    name: str
    unit: str = ""
    tolerance: float = Field(default=0.0, ge=0)


class Curriculum(StrictModel):
    """Stages of tasks under one rule set. ``segments``: findings that are described together, by name."""

    name: str = Field(pattern=r"^\w[\w.-]*$")
    version: int = Field(ge=0)
    rule_set: str
    stages: list[Stage] = Field(min_length=1)
    wording: CurriculumWording = CurriculumWording()
    segments: dict[str, list[str]] = {}
    measurements: dict[str, Measured] = {}

    @property
    def id(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """All tasks by id, in order."""
        return {task.id: task for stage in self.stages for task in stage.tasks}

    def guidelines_of(self, task: Task) -> tuple[str, ...]:
        """The guidelines that an answer of this task follows: the rule set of the findings, and the task's own."""
        named = [load_rule_set(name).id if is_file(name) else name for name in task.guidelines]
        return tuple(dict.fromkeys([load_rule_set(self.rule_set).id, *named]))


def shipped_curricula() -> list[str]:
    """Names of the curricula that travel with clinalign.

    >>> "retina_vlm" in shipped_curricula()
    True
    """
    folder = files("data_builders") / "curricula"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def is_file(name: str) -> bool:
    """Whether a curriculum is named by its file, and not as one that is shipped."""
    return name.endswith((".yaml", ".yml"))


def load_curriculum(name: str) -> Curriculum:
    """The curriculum of a shipped name (``retina_vlm``) or a YAML file.

    Raises: InputError if there is none, or with every fault of the file, each with its line and its cure.
    """
    if is_file(name):
        return _curriculum_in(read_file(Path(name)))
    path = Path(str(files("data_builders") / "curricula" / f"{name}.yaml"))
    if not path.is_file():
        known = shipped_curricula()
        raise InputError(f"no curriculum named '{name}'.{nearest(name, known)} Shipped: {', '.join(known)}.")
    return _curriculum_in(read_file(path))


@cache
def _curriculum_in(file: KnownFile) -> Curriculum:
    curriculum = validated(Curriculum, read_yaml(file.path), where=file.path)
    faults = list(faults_of(curriculum))
    if faults:
        raise InputError(located_faults(file.path, ((fault.place, fault) for fault in faults)))
    return curriculum


def faults_of(curriculum: Curriculum) -> Iterator[Fault]:
    """Every name that is not known, prerequisites in a circle, sections that do not fit, wording that lacks."""
    try:
        rules = load_rule_set(curriculum.rule_set)
    except InputError as fault:
        yield Fault(("rule_set",), str(fault))
        return
    for name, group in curriculum.segments.items():
        yield from _unknown(group, rules.findings, "finding", ("segments", name))
    yield from _template_faults(curriculum)
    seen: list[str] = []
    for k, stage in enumerate(curriculum.stages):
        for n, task in enumerate(stage.tasks):
            at = ("stages", k, "tasks", n)
            if task.id in seen:
                yield Fault(at, f"two tasks have the id '{task.id}'. Rename one.")
            yield from _prerequisite_faults(task, seen, curriculum, at)
            yield from _section_faults(task, at)
            yield from _unknown(task.findings, rules.findings, "finding", (*at, "findings"))
            yield from _guideline_faults(curriculum, task, at)
            yield from _lacking_words(curriculum, task, at)
            seen.append(task.id)


def _unknown(names: list[str], known: object, what: str, at: KeyPath) -> Iterator[Fault]:
    listed = list(known)  # pyright: ignore[reportArgumentType, reportUnknownVariableType, reportUnknownArgumentType]
    for name in names:
        if name not in listed:
            hint = nearest(name, listed) or f" Known: {', '.join(listed)}."
            yield Fault(at, f"no {what} named '{name}'.{hint}")


def _prerequisite_faults(task: Task, before: list[str], curriculum: Curriculum, at: KeyPath) -> Iterator[Fault]:
    """A prerequisite that is not there, or that comes later: so none runs in a circle."""
    yield from _unknown(task.after, curriculum.tasks, "task", (*at, "after"))
    for name in task.after:
        if name in curriculum.tasks and name not in before:
            yield Fault((*at, "after"), f"task '{task.id}' comes after '{name}', which is not before it. Move it up.")


def _section_faults(task: Task, at: KeyPath) -> Iterator[Fault]:
    numbers = [n for section in task.sections for n in range(section.first, section.last + 1)]
    if task.sections and sorted(numbers) != list(range(1, task.count + 1)):
        text = f"sections must have each item from 1 to {task.count} once, as first to last."
        yield Fault((*at, "sections"), text)


def _guideline_faults(curriculum: Curriculum, task: Task, at: KeyPath) -> Iterator[Fault]:
    key_path = (*at, "guidelines")
    for name in task.guidelines:
        if "@" not in name and not is_file(name):
            yield Fault(key_path, f"guideline '{name}' names no version. Write it as {name}@1.")
            return
    try:
        guidelines = curriculum.guidelines_of(task)
        staging, _ = together(guidelines)
    except InputError as fault:
        yield Fault(key_path, str(fault))
        return
    yield from _unknown(task.scales, staging.scales, "scale", (*at, "scales"))
    scales = task.scales or list(staging.scales)
    if any(kind in SCALED for kind in task.asks) and not scales:
        yield Fault(key_path, "asks about a scale, and no guideline has one. Name one, such as retina_amd@1.")
    for scale in scales if any(kind in SCALED for kind in task.asks) else ():
        if scale in staging.scales and scale not in curriculum.wording.scales:
            yield Fault(("wording", "scales"), f"task '{task.id}' asks about '{scale}', which has no wording here.")


NEEDED: dict[Kind, tuple[str, ...]] = {
    "presence": ("absence",),
    "segment": ("segment",),
    "full_report": ("full_report",),
    "measure": ("measure", "measured"),
}


def _lacking_words(curriculum: Curriculum, task: Task, at: KeyPath) -> Iterator[Fault]:
    for kind in task.asks:
        for key in NEEDED.get(kind, ()):
            if not getattr(curriculum.wording, key):
                yield Fault((*at, "asks", kind), f"needs wording.{key}: give at least one template.")
        for scale in task.scales if kind in ("not_more", "not_less") else ():
            wording = curriculum.wording.scales.get(scale)
            if wording and not getattr(wording, kind):
                yield Fault((*at, "asks", kind), f"needs wording.scales.{scale}.{kind}: give at least one template.")
    if "segment" in task.asks and not curriculum.segments:
        yield Fault((*at, "asks", "segment"), "needs segments: name some findings that are described together.")
    if "measure" in task.asks and not curriculum.measurements:
        yield Fault((*at, "asks", "measure"), "needs measurements: name at least one.")


FIELDS: dict[str, frozenset[str]] = {
    **dict.fromkeys(("absence", "side", "size", "measure"), frozenset({"name"})),
    **dict.fromkeys(("check", "say", "deny"), frozenset({"level"})),
    **dict.fromkeys(("full_report", "ask", "not_more", "not_less"), frozenset[str]()),
    "segment": frozenset({"segment"}),
    "measured": frozenset({"name", "value", "unit"}),
}


def _template_faults(curriculum: Curriculum) -> Iterator[Fault]:
    """Templates that lack a placeholder or have one that nothing fills."""
    wording = curriculum.wording
    named = [
        (("wording", key), key, getattr(wording, key)) for key in CurriculumWording.model_fields if key != "scales"
    ]
    for scale, of_scale in wording.scales.items():
        named += [(("wording", "scales", scale, key), key, getattr(of_scale, key)) for key in ScaleWording.model_fields]
    for key_path, key, templates in named:
        for template in templates:
            found = _placeholders(template)
            if found != FIELDS[key]:
                wanted = ", ".join(f"{{{name}}}" for name in sorted(FIELDS[key])) or "no placeholder"
                yield Fault(key_path, f"'{template}': expected {wanted}.")


def _placeholders(template: str) -> frozenset[str] | None:
    """The names in braces; None where a brace is left open."""
    try:
        return frozenset(name for _, name, _, _ in Formatter().parse(template) if name is not None)
    except ValueError:
        return None
