"""Guidelines at work on the facts of an image: contradictions settled, what follows from them, and every scale.

A guideline is a rule set named with its version (``retina_referral@2``). Several of them work together: one has the
findings and the stages, another a referral policy that reads both. What is missing is not known, never absent.
Left out: guidelines that overrule each other; the scales of all of them stand side by side.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from rewards.config.input_error import InputError
from rewards.rules.evidence import Value, holds
from rewards.rules.facts import Facts, Finding
from rewards.rules.faults import staging_faults
from rewards.rules.nodes import Answer, Node, Pool
from rewards.rules.rule_set import RuleSet, load_rule_set
from rewards.rules.stages import Contradiction, Scale, Staged, Staging, all_scales, closed
from rewards.rules.symbols import read_symbol

Policy = Literal["refuse", "quarantine", "repair"]
ATTRIBUTES = ("side", "size", "count")
MAX_REPAIRS = 50
"""So many repairs settle any sound guideline; more means that two rules undo each other."""


class Contradictory(Exception):
    """Facts that contradict themselves, and are not to be used."""


@dataclass(frozen=True)
class WorkedOut:
    """Facts closed under the guidelines, where they stand on each scale, and what was repaired on the way.

    ``guidelines``: by scale, the guideline that it is from.
    """

    facts: Facts
    scales: dict[str, Staged]
    guidelines: dict[str, str]
    repaired: tuple[str, ...] = ()


@lru_cache(maxsize=64)
def together(guidelines: tuple[str, ...]) -> tuple[Staging, dict[str, str]]:
    """The implications and scales of several guidelines as one, and which guideline each scale is from.

    Raises: InputError if one is not there, two have the same scale, or one names a level that another does not know.
    """
    found = {name: rules.staging for name in guidelines if (rules := load_rule_set(name)).staging is not None}
    owners: dict[str, str] = {}
    for name, staging in found.items():
        for scale in staging.scales if staging else ():
            if owners.setdefault(scale, name) != name:
                raise InputError(f"guidelines {owners[scale]} and {name} both have the scale '{scale}'. Name one.")
    merged = Staging.model_construct(  # unlike a rule set's own section, it may have no scale
        implications=[rule for staging in found.values() if staging for rule in staging.implications],
        scales={name: scale for staging in found.values() if staging for name, scale in staging.scales.items()},
    )
    faults = list(staging_faults(merged))
    if faults:
        raise InputError(f"guidelines {', '.join(guidelines)} do not fit together: {'; '.join(map(str, faults))}")
    return merged, owners


def worked_out(facts: Facts, guidelines: Sequence[str], *, policy: Policy = "quarantine") -> WorkedOut:
    """What the guidelines make of facts.

    A value with the name of a scale (``stage``) is what a clinician stated; it must be a level that the evidence
    allows, and of those which unknown evidence leaves open it is then the one.

    Raises: Contradictory (``quarantine``) or InputError (``refuse``) if the facts contradict themselves. ``repair``
    sets what each broken rule says instead, and lets the evidence win over a stated level.

    >>> no_size = Facts(rule_set="retina_amd@1", findings={"drusen": Finding(polarity="present")})
    >>> worked_out(no_size, ["retina_amd@1"]).scales["stage"].words
    'at least early AMD'
    """
    staging, owners = together(tuple(guidelines))
    rules = load_rule_set(facts.rule_set)
    evidence, repaired = _settled(facts, staging, rules, policy)
    scales, _ = all_scales(evidence, staging)
    for name in scales.keys() & evidence.keys():
        stated = str(evidence[name])
        if stated not in (scales[name].level, *scales[name].could_be):
            clash = f"{name} is stated as {stated}, the findings give {scales[name].words}"
            _refused([clash], policy)
            repaired.append(clash)
            del evidence[name]
        else:
            scales |= _from_stated(name, evidence, staging)
    columns = _columns(rules)
    values = {k: v for k, v in evidence.items() if k not in columns and v is not None}
    kept = facts.model_copy(update={"findings": _findings(evidence, rules, facts), "values": values})
    return WorkedOut(kept, scales, owners, tuple(repaired))


def _from_stated(name: str, evidence: dict[str, Value], staging: Staging) -> dict[str, Staged]:
    """Every scale, where one is as stated and the later ones read it; the findings that speak for it are kept."""
    levels = staging.scales[name].levels
    as_stated = [levels[0], *(level.model_copy(update={"any_of": [{name: level.name}]}) for level in levels[1:])]
    scales, _ = all_scales(evidence, Staging(scales={**staging.scales, name: Scale(levels=as_stated)}))
    own = next(level for level in levels if level.name == scales[name].level)
    because = tuple(clause for clause in own.any_of if holds(clause, evidence))
    return {**scales, name: replace(scales[name], because=because)}


def _settled(facts: Facts, staging: Staging, rules: RuleSet, policy: Policy) -> tuple[dict[str, Value], list[str]]:
    """The evidence closed under the implications, without contradictions, and each one that was repaired."""
    known: dict[str, Value] = dict(facts.record())
    repaired: list[str] = []
    for _ in range(MAX_REPAIRS):
        after, clashes = closed(known, staging.implications)
        clashes = [*_attributes_of_absent(known, rules), *clashes]
        if not clashes:
            return after, repaired
        _refused([said(clash) for clash in clashes], policy)
        known[clashes[0].name] = clashes[0].implied
        repaired.append(said(clashes[0]))
    raise InputError(f"{facts.rule_set}: the repairs of its implications undo each other ({repaired[-1]}).")


def _refused(clashes: Iterable[str], policy: Policy) -> None:
    reason = "; ".join(clashes)
    if policy == "refuse":
        raise InputError(f"the facts contradict themselves: {reason}. Mend the table, or set contradictions: repair.")
    if policy == "quarantine":
        raise Contradictory(reason)


def said(clash: Contradiction) -> str:
    """A contradiction in words, the name of its rule first."""
    name = f"{clash.rule}: " if clash.rule else ""
    return f"{name}{clash.name} is stated as {clash.stated}, and {clash.implied} follows"


def _attributes_of_absent(known: dict[str, Value], rules: RuleSet) -> list[Contradiction]:
    """Findings that are said to be absent and yet have a side, a size or a count."""
    return [
        Contradiction(name, "absent", "present", f"absent with a {key}")
        for name in rules.findings
        if known.get(name) == "absent"
        for key in ATTRIBUTES
        if known.get(f"{name}.{key}") not in (None, 0)
    ]


def _columns(rules: RuleSet) -> set[str]:
    return {column for name in rules.findings for column in (name, *(f"{name}.{key}" for key in ATTRIBUTES))}


def _findings(evidence: dict[str, Value], rules: RuleSet, before: Facts) -> dict[str, Finding]:
    """The findings that are now known, in the order of the rule set; boxes stay as they were."""
    found: dict[str, Finding] = {}
    for name in rules.findings:
        polarity = evidence.get(name)
        if polarity in ("present", "absent"):
            stated: dict[str, Any] = {key: evidence.get(f"{name}.{key}") for key in ATTRIBUTES}
            boxes = before.findings[name].boxes if name in before.findings else ()
            found[name] = Finding.model_validate({"polarity": polarity, **stated, "boxes": boxes})
        elif name in before.findings and before.findings[name].polarity == "uncertain":
            found[name] = before.findings[name]
    return found


@lru_cache(maxsize=64)
def _level_node(guidelines: tuple[str, ...], scale: str) -> Node:
    staging, _ = together(guidelines)
    nothing = Pool(train=[scale], test=[scale])
    answers = {
        level.name: Answer(phrases=[level.name, *level.phrases], say=nothing) for level in staging.scales[scale].levels
    }
    return Node(gloss=scale, ask=nothing, answers=answers)


def read_level(text: str, scale: str, guidelines: Sequence[str]) -> str | None:
    """The one level that a text states on a scale; None where it states none, several, or is in doubt.

    >>> read_level("Not early or intermediate; it is late dry.", "stage", ["retina_amd@1"])
    'late dry AMD'
    """
    return read_symbol(text, _level_node(tuple(guidelines), scale)).stated
