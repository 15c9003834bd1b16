"""Questions and answers of a curriculum by a language model: one prompt a task, read tolerantly, checked, asked again.

The client is ``rewards.llm.client`` (an endpoint, a local model or a script): its replies are cached under the whole
prompt and the versions of the guidelines, so a build that was killed repeats no call. The prompts are our own.
Left out: images; like the published generator, the model reads what is known of the image.
"""

from typing import Any

from data_builders.curriculum.checks import CurriculumChecks
from data_builders.curriculum.curriculum import Section
from data_builders.curriculum.templates import Case
from rewards.config.templates import template
from rewards.llm.client import LlmClient, Request, ask
from rewards.llm.item_lists import Parsed, ask_for_items
from rewards.rules.evidence import Asked, Clause, Test
from rewards.rules.facts import Finding
from rewards.rules.guidelines import together
from rewards.rules.rule_set import load_rule_set

PROMPT_VERSION = "curriculum-1"
SYSTEM = (
    "You write questions and answers that teach a model to read medical images. Write every item that is asked for."
)
STYLES = {
    "short": "a word or a few words",
    "sentence": "one or two sentences",
    "conclusion_first": "the conclusion first, then the evidence for it",
    "evidence_first": "the evidence first, then the conclusion",
}


async def written_items(
    client: LlmClient, case: Case, number: int, *, report: str, rounds: int, temperature: float, max_tokens: int
) -> Parsed:
    """Up to ``number`` sound items of a task, and each reject with its reason.

    Raises: LlmStop as the client does, where no further attempt can help; what was answered so far is cached.
    """
    request = request_for(case, number, report=report, temperature=temperature, max_tokens=max_tokens)
    checks = CurriculumChecks(case)
    return await ask_for_items(client, request, count=number, check=checks, max_rounds=rounds)


def request_for(case: Case, number: int, *, report: str, temperature: float, max_tokens: int) -> Request:
    """The prompt of one task about one image. ``report`` is empty where the model gets a list of what is known."""
    text = template("curriculum_prompt.txt.j2", beside=__file__).render(
        modality=case.rules.modality,
        number=number,
        capability=case.task.capability,
        instructions=case.task.instructions,
        style=STYLES[case.task.style],
        sections=[_section(s, case.task.count, number) for s in case.task.sections],
        max_words=case.task.max_tokens,
        report=report,
        facts=list(_facts(case)),
        guidelines=[_guideline(name) for name in case.guidelines],
        measured=bool(case.curriculum.measurements),
    )
    version = " ".join([PROMPT_VERSION, case.curriculum.id, *case.guidelines])
    return ask(text, system=SYSTEM, temperature=temperature, max_tokens=max_tokens, version=version)


def _section(section: Section, count: int, number: int) -> str:
    """A section in the numbers that are asked for now, which may be fewer than the task's."""
    first, last = 1 + (section.first - 1) * number // count, max(1, section.last * number // count)
    return f"items {first} to {last}: {STYLES[section.style]}"


def _facts(case: Case) -> list[str]:
    """What is known, one line a finding or value."""
    lines = [_finding(case.rules.findings[name].name, found) for name, found in case.worked.facts.findings.items()]
    for name, value in case.worked.facts.values.items():
        measured = case.curriculum.measurements.get(name)
        lines.append(f"{measured.name}: {value} {measured.unit}" if measured else f"{name}: {value}")
    return lines


def _finding(name: str, finding: Finding) -> str:
    stated = [finding.size, finding.side and f"{finding.side} region", finding.count and f"number {finding.count}"]
    return f"{name}: {', '.join([finding.polarity, *(part for part in stated if part)])}"


def _guideline(name: str) -> dict[str, Any]:
    rules = load_rule_set(name)
    staging = together((name,))[0]
    return {
        "id": rules.id,
        "findings": [rule.name for rule in rules.findings.values()],
        "implications": [f"{_words(rule.when)} means {_words(dict(rule.then))}" for rule in staging.implications],
        "scales": {
            scale: [(level.name, [_words(clause) for clause in level.any_of]) for level in found.levels]
            for scale, found in staging.scales.items()
        },
    }


def _words(clause: Clause) -> str:
    """A clause as a person reads it."""
    return " and ".join(
        f"{column.replace('_', ' ').replace('.', ' ')} {_test_words(test)}" for column, test in clause.items()
    )


def _test_words(test: Asked) -> str:
    if isinstance(test, Test):
        limits = test.model_dump(exclude_defaults=True, exclude={"if_unknown"})
        return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in limits.items())
    return " or ".join(map(str, test)) if isinstance(test, list) else str(test)
