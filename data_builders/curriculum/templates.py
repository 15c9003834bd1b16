"""Questions and answers from what is known of an image, by templates: no model, every answer true under the guidelines.

One function a kind of question. Each gives an item or None where the facts do not answer; none ever states what is
not known. Yes and no, and findings that are there and that are not, are kept in balance over the whole data set. An
attribute is asked of absent findings too, so that no question gives a finding away. Left out: rich wording (see
``curriculum/llm_items.py``).
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from data_builders.curriculum.curriculum import Curriculum, Kind, Style, Task
from data_builders.rendering.render import sentence
from rewards.rules.evidence import Clause
from rewards.rules.facts import Finding
from rewards.rules.guidelines import WorkedOut, together
from rewards.rules.rule_set import RuleSet
from rewards.rules.stages import Level

TRIES = 12
"""So often a question is drawn anew where it was drawn before, or the facts do not answer it."""
MOST_REASONS = 3
MOST_NEGATIVES = 6
"""So many absent findings stand in a description; a specialist names those that matter."""


@dataclass(frozen=True)
class Case:
    """One image under one task: what is known of it, and by which guidelines."""

    worked: WorkedOut
    rules: RuleSet
    curriculum: Curriculum
    task: Task
    guidelines: tuple[str, ...]

    @property
    def scales(self) -> list[str]:
        """The scales that are asked about."""
        return self.task.scales or list(self.worked.scales)

    @property
    def known(self) -> dict[str, Finding]:
        """The findings that are known to be there or not to be there, and that are asked about."""
        names = self.task.findings or list(self.rules.findings)
        findings = self.worked.facts.findings
        return {n: findings[n] for n in names if n in findings and findings[n].polarity != "uncertain"}

    def levels(self, scale: str) -> list[Level]:
        """The levels of a scale, least severe first."""
        return together(self.guidelines)[0].scales[scale].levels


@dataclass(frozen=True)
class TemplateItem:
    """A question and its answer.

    ``about``: the finding, scale, segment or measurement. ``yes``, ``positive``: whether the answer is yes, and
    whether the finding is there (None where neither applies).
    """

    kind: Kind
    about: str
    question: str
    answer: str
    yes: bool | None = None
    positive: bool | None = None


@dataclass
class Balance:
    """How often each side was asked; the one that is behind comes next."""

    counts: Counter[tuple[str, bool]] = field(default_factory=Counter[tuple[str, bool]])

    def wanted(self, key: str, rng: random.Random) -> bool:
        """The side that is behind, or either."""
        ahead = self.counts[key, True] - self.counts[key, False]
        return rng.random() < 0.5 if ahead == 0 else ahead < 0

    def add(self, item: TemplateItem) -> None:
        """Counts an item that is kept."""
        for key, side in (("yes", item.yes), ("positive", item.positive)):
            if side is not None:
                self.counts[key, side] += 1

    def share(self, key: str) -> float | None:
        """The share of True; None where nothing was counted."""
        total = self.counts[key, True] + self.counts[key, False]
        return self.counts[key, True] / total if total else None


Generator = Callable[["Case", Style, random.Random, Balance], TemplateItem | None]
Fault = Callable[[TemplateItem], str | None]


def generated(
    case: Case, number: int, rng: random.Random, balance: Balance, fault: Fault, rejected: Counter[str]
) -> Iterator[TemplateItem]:
    """Up to ``number`` different items of a task, in the shares of its kinds.

    ``fault`` says why an item is not fit; such items are counted in ``rejected`` and drawn again. Where the facts have
    no further answer to a kind of question, another kind of the task takes its place.
    """
    seen: set[tuple[str, str]] = set()
    for position, kind in enumerate(_kinds(case.task, number, rng), start=1):
        style = case.task.style_of(1 + (position - 1) * case.task.count // number)
        generators = [GENERATORS[kind], *(GENERATORS[other] for other in case.task.asks if other != kind)]
        for generate in (each for each in generators for _ in range(TRIES)):
            item = generate(case, style, rng, balance)
            if item is None or (item.question, item.answer) in seen:
                continue
            if reason := fault(item):
                rejected[reason] += 1
                continue
            seen.add((item.question, item.answer))
            balance.add(item)
            yield item
            break


def _kinds(task: Task, number: int, rng: random.Random) -> list[Kind]:
    """``number`` kinds in the shares of the task, the remainder to those that are owed most, in random order."""
    total = sum(task.asks.values())
    owed: dict[Kind, float] = {kind: number * share / total for kind, share in task.asks.items()}
    kinds: list[Kind] = [kind for kind, share in owed.items() for _ in range(int(share))]
    by_rest: list[Kind] = sorted(owed, key=lambda kind: (int(owed[kind]) - owed[kind], rng.random()))
    kinds += by_rest[: number - len(kinds)]
    rng.shuffle(kinds)
    return kinds


def _presence(case: Case, style: Style, rng: random.Random, balance: Balance) -> TemplateItem | None:
    by_side = {side: [n for n, f in case.known.items() if (f.polarity == "present") is side] for side in (True, False)}
    positive = balance.wanted("positive", rng)
    positive = positive if by_side[positive] else not positive
    if not by_side[positive]:
        return None
    name, yes = rng.choice(by_side[positive]), balance.wanted("yes", rng)
    wording = case.rules.wording.ask_presence if yes is positive else case.curriculum.wording.absence
    rule = case.rules.findings[name]
    what = f"{'an' if rule.name[0] in 'aeiou' else 'a'} {rule.name}" if rule.article else rule.name
    question = rng.choice(wording).format(name=rule.name, what=what, names=rule.plural or rule.name)
    answer = "Yes." if yes else "No."
    if style != "short":
        answer = " ".join([answer, _stated(case, name, rng), *_measured_for(case, name, rng)])
    return TemplateItem("presence", name, question, answer, yes=yes, positive=positive)


def _attribute(case: Case, style: Style, rng: random.Random, balance: Balance) -> TemplateItem | None:
    wording, of_curriculum = case.rules.wording, case.curriculum.wording
    templates = {"side": of_curriculum.side or wording.ask_side, "size": of_curriculum.size or wording.ask_size}
    positive = balance.wanted("positive", rng)
    options = [
        (name, key)
        for name, finding in case.known.items()
        for key, allowed in (("side", case.rules.findings[name].sides), ("size", case.rules.findings[name].sizes))
        if allowed
        and templates[key]
        and (finding.polarity == "present") is positive
        and (not positive or getattr(finding, key))
    ]
    if not options:
        return None
    name, key = rng.choice(options)
    value = getattr(case.known[name], key)
    short = f"{value.capitalize()}." if positive else "There is none."
    answer = _stated(case, name, rng) if style != "short" else short
    answer = answer if positive or style == "short" else f"{short} {answer}"
    question = rng.choice(templates[key]).format(name=case.rules.findings[name].name)
    return TemplateItem("attribute", f"{name}.{key}", question, answer, positive=positive)


def _pertinent(case: Case) -> list[str]:
    """What a description of an image names, the same each time: all that is there, and some that is not."""
    findings = case.worked.facts.findings
    absent = [name for name, finding in findings.items() if finding.polarity == "absent"]
    chosen = random.Random(case.worked.facts.to_json()).sample(absent, min(MOST_NEGATIVES, len(absent)))
    return [name for name, finding in findings.items() if finding.polarity != "absent" or name in chosen]


def _describe(case: Case, style: Style, rng: random.Random, balance: Balance) -> TemplateItem | None:
    if not case.known:
        return None
    return TemplateItem(
        "describe", "findings", rng.choice(case.rules.wording.ask_report), _described(case, _pertinent(case), rng)
    )


def _segment(case: Case, style: Style, rng: random.Random, balance: Balance) -> TemplateItem | None:
    segments = {name: [n for n in group if n in case.known] for name, group in case.curriculum.segments.items()}
    known = [name for name, group in segments.items() if group]
    if not known:
        return None
    segment = rng.choice(known)
    question = rng.choice(case.curriculum.wording.segment).format(segment=segment)
    return TemplateItem("segment", segment, question, _described(case, segments[segment], rng))


def _level(case: Case, style: Style, rng: random.Random, balance: Balance) -> TemplateItem | None:
    scale = rng.choice(case.scales)
    staged, wording = case.worked.scales[scale], case.curriculum.wording.scales[scale]
    statement = rng.choice(wording.say).format(level=staged.words)
    short = f"{staged.words[0].upper()}{staged.words[1:]}."
    reasons = [] if style in ("short", "sentence") else _reasons(case, scale, rng)
    answer = short if style == "short" else " ".join(_ordered(statement, reasons, style))
    return TemplateItem("level", scale, rng.choice(wording.ask), answer)


def _check(case: Case, style: Style, rng: random.Random, balance: Balance) -> TemplateItem | None:
    scale = rng.choice(case.scales)
    staged, wording = case.worked.scales[scale], case.curriculum.wording.scales[scale]
    yes = balance.wanted("yes", rng)
    possible = (staged.level, *staged.could_be)
    others = [level.name for level in case.levels(scale) if level.name not in possible]
    if (yes and staged.could_be) or (not yes and not others):
        return None
    level = staged.level if yes else rng.choice(others)
    question = rng.choice(wording.check).format(level=level)
    word = "yes" if yes else "no"
    if style == "short":
        return TemplateItem("check", scale, question, f"{word.capitalize()}.", yes=yes)
    statement = rng.choice(wording.say).format(level=staged.words)
    reasons = [] if style == "sentence" else _reasons(case, scale, rng)
    parts = _ordered(statement, reasons, style)
    parts = [*parts, f"So the answer is {word}."] if style == "evidence_first" else [f"{word.capitalize()}.", *parts]
    return TemplateItem("check", scale, question, " ".join(parts), yes=yes)


def _not_more(case: Case, style: Style, rng: random.Random, balance: Balance) -> TemplateItem | None:
    scale = rng.choice(case.scales)
    staged, wording = case.worked.scales[scale], case.curriculum.wording.scales[scale]
    against = _against_more(case, scale, rng)
    if staged.could_be or not against or not wording.not_more:
        return None
    answer = " ".join(_ordered(rng.choice(wording.say).format(level=staged.level), against, style))
    return TemplateItem("not_more", scale, rng.choice(wording.not_more), answer)


def _not_less(case: Case, style: Style, rng: random.Random, balance: Balance) -> TemplateItem | None:
    scale = rng.choice(case.scales)
    staged, wording = case.worked.scales[scale], case.curriculum.wording.scales[scale]
    if not staged.because or not wording.not_less:
        return None
    statement = rng.choice(wording.say).format(level=staged.words)
    return TemplateItem(
        "not_less",
        scale,
        rng.choice(wording.not_less),
        " ".join(_ordered(statement, _reasons(case, scale, rng), style)),
    )


def _full_report(case: Case, style: Style, rng: random.Random, balance: Balance) -> TemplateItem | None:
    if not case.known:
        return None
    parts = [_described(case, _pertinent(case), rng)]
    for scale in case.scales:
        staged, wording = case.worked.scales[scale], case.curriculum.wording.scales[scale]
        parts.append(rng.choice(wording.say).format(level=staged.words))
        more = [level.name for level in case.levels(scale) if level.name not in (staged.level, *staged.could_be)]
        above = [name for name in more if _rank(case, scale, name) > _rank(case, scale, staged.level)]
        if above and not staged.could_be:
            parts.append(rng.choice(wording.deny).format(level=rng.choice(above)))
    question = rng.choice(case.curriculum.wording.full_report)
    return TemplateItem("full_report", "+".join(case.scales), question, " ".join(parts))


def _measure(case: Case, style: Style, rng: random.Random, balance: Balance) -> TemplateItem | None:
    known = [name for name in case.curriculum.measurements if name in case.worked.facts.values]
    if not known:
        return None
    name = rng.choice(known)
    question = rng.choice(case.curriculum.wording.measure).format(name=case.curriculum.measurements[name].name)
    return TemplateItem("measure", name, question, _measured(case, name, rng))


GENERATORS: dict[Kind, Generator] = {
    "presence": _presence,
    "attribute": _attribute,
    "describe": _describe,
    "segment": _segment,
    "level": _level,
    "check": _check,
    "not_more": _not_more,
    "not_less": _not_less,
    "full_report": _full_report,
    "measure": _measure,
}


def written_report(case: Case, rng: random.Random) -> str:
    """A report as a specialist writes it: every known finding, in free order, then the stage where it is definite."""
    staged = {n: s for n, s in case.worked.scales.items() if n in case.curriculum.wording.scales and not s.could_be}
    first = next(iter(staged), None)
    level = [rng.choice(case.curriculum.wording.scales[first].say).format(level=staged[first].level)] if first else []
    return " ".join([_described(case, list(case.worked.facts.findings), rng), *level])


def _described(case: Case, names: list[str], rng: random.Random) -> str:
    return " ".join(_stated(case, name, rng) for name in rng.sample(names, len(names)))


def _stated(case: Case, name: str, rng: random.Random) -> str:
    """The sentence that states a finding, or that it is not there."""
    return sentence(case.worked.facts.findings[name], case.rules.findings[name], case.rules, rng=rng)


def _ordered(statement: str, reasons: list[str], style: Style) -> list[str]:
    return [*reasons, statement] if style == "evidence_first" else [statement, *reasons]


def _rank(case: Case, scale: str, level: str) -> int:
    return [entry.name for entry in case.levels(scale)].index(level)


def _reasons(case: Case, scale: str, rng: random.Random) -> list[str]:
    """The evidence for the level on a scale, in sentences; of the lowest level, what is not there."""
    clauses = list(case.worked.scales[scale].because)
    if not clauses:
        return _against_more(case, scale, rng, deny=False)
    chosen = [clauses[k] for k in sorted(rng.sample(range(len(clauses)), min(MOST_REASONS, len(clauses))))]
    return [reason for column in _columns(chosen) for reason in _evidence(case, column, rng)]


def _columns(clauses: list[Clause]) -> list[str]:
    """The columns of clauses, a finding once however many of its attributes are asked for."""
    return list(dict.fromkeys(column.partition(".")[0] for clause in clauses for column in clause))


def _evidence(case: Case, column: str, rng: random.Random) -> list[str]:
    if column in case.worked.facts.findings:
        return [_stated(case, column, rng), *_measured_for(case, column, rng)]
    if column in case.worked.scales:
        statement = rng.choice(case.curriculum.wording.scales[column].say).format(
            level=case.worked.scales[column].words
        )
        return [*_reasons(case, column, rng), statement]
    if column in case.curriculum.measurements and column in case.worked.facts.values:
        return [_measured(case, column, rng)]
    value = case.worked.facts.values.get(column)
    return [] if value is None else [f"The {column.replace('_', ' ')} is {value}."]


def _against_more(case: Case, scale: str, rng: random.Random, *, deny: bool = True) -> list[str]:
    """Signs of higher levels that are known to be absent, and the denial of one such level."""
    levels, level = case.levels(scale), case.worked.scales[scale].level
    above = levels[_rank(case, scale, level) + 1 :]
    missing = {
        entry.name: [c for c in _columns(list(entry.any_of)) if c in case.known and case.known[c].polarity == "absent"]
        for entry in above
    }
    options = [name for name, columns in missing.items() if columns]
    if not options:
        return []
    chosen = rng.choice(options)
    columns = rng.sample(missing[chosen], min(MOST_REASONS, len(missing[chosen])))
    evidence = [part for column in columns for part in _evidence(case, column, rng)]
    denial = rng.choice(case.curriculum.wording.scales[scale].deny).format(level=chosen)
    return [*evidence, denial] if deny else evidence


def _measured(case: Case, name: str, rng: random.Random) -> str:
    """The sentence that states a measured value, with the digits that were measured."""
    measured, value = case.curriculum.measurements[name], case.worked.facts.values[name]
    text = str(value).removesuffix(".0")
    template = rng.choice(case.curriculum.wording.measured)
    return template.format(name=measured.name, value=text, unit=measured.unit).replace(" .", ".")


def _measured_for(case: Case, finding: str, rng: random.Random) -> list[str]:
    """The measured values that a finding follows from, in sentences."""
    staging, _ = together(case.guidelines)
    columns = {c for rule in staging.implications if finding in rule.then for c in rule.when}
    known = [c for c in case.curriculum.measurements if c in columns and c in case.worked.facts.values]
    return [_measured(case, name, rng) for name in known]
