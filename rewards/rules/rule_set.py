"""Rule sets: one YAML file for one clinical task. What can be found, what it is called, how severe an error is.

Three sections, each of which may be left out: ``findings`` with lexicon, sides, sizes, severity and the ``wording``
in which they are written; ``decision``, the questions of a task and which answers hang together; ``staging``, ordered
scales such as stages and referral. Unknown sections are refused rather than ignored.
"""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from rewards.config.input_error import InputError, nearest
from rewards.config.strict_model import StrictModel
from rewards.config.strict_yaml import read_yaml, validated
from rewards.config.yaml_lines import located_faults
from rewards.rules.decision import Decision
from rewards.rules.facts import Unsupported
from rewards.rules.faults import Fault, decision_faults, staging_faults
from rewards.rules.known_files import KnownFile, check_same_rules, known_file, known_ids, read_file, remember
from rewards.rules.stages import Staging
from rewards.rules.wording_faults import normal_faults, wording_faults

ErrorKind = Literal["invented", "missed", "side", "size", "count"]


class FindingRule(StrictModel):
    """What may be said of one finding.

    ``phrases``: the first is written, all are read. ``where``: how its side is written, with ``{side}``.
    ``severity`` in [0, 1]: what an error about this finding means for a patient.
    """

    phrases: list[str] = Field(min_length=1)
    plural: str | None = None
    article: bool = True
    sides: list[str] = []
    where: str = "on the {side}"
    sizes: list[str] = []
    counted: bool = False
    severity: float = Field(default=0.5, ge=0.0, le=1.0)

    @property
    def name(self) -> str:
        """The phrase that is written."""
        return self.phrases[0]


class Wording(StrictModel):
    """Templates. ``{what}`` is a finding with article and size, ``{name}`` the bare finding, ``{where}`` its place.

    Each list holds alternatives of equal meaning; the first is the default. ``normal``: by phrase that says that all
    is well ("no acute cardiopulmonary process"), the findings that it denies; it is read, and never written.
    """

    present: list[str] = []
    absent: list[str] = []
    uncertain: list[str] = []
    count: list[str] = []
    ask_presence: list[str] = []
    ask_side: list[str] = []
    ask_size: list[str] = []
    ask_count: list[str] = []
    ask_box: list[str] = []
    ask_report: list[str] = []
    normal: dict[str, list[str]] = {}


REQUIRED_WORDING = ("present", "absent", "uncertain", "ask_presence", "ask_report")
"""What a rule set with findings must word."""


class RuleSet(StrictModel):
    """One clinical task: its findings, their words, and what each kind of error weighs.

    ``error_weights``: severity of an error = severity of the finding x weight of the kind, both in [0, 1].
    ``side_words``: other words for a side, by which a clinician's report is read. ``unsupported``: what a claimed
    finding counts as of which the facts say nothing; ``ignore`` where facts leave out what could not be told.
    """

    name: str = Field(pattern=r"^\w[\w.-]*$")
    version: int = Field(ge=0)
    modality: str
    findings: dict[str, FindingRule] = {}
    side_words: dict[str, list[str]] = {}
    error_weights: dict[ErrorKind, float] = {}
    unsupported: Unsupported = "wrong"
    wording: Wording = Wording()
    decision: Decision | None = None
    staging: Staging | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "RuleSet":
        lacking = [key for key in REQUIRED_WORDING if not getattr(self.wording, key)]
        if self.findings and lacking:
            raise ValueError(f"wording: {', '.join(lacking)}: give at least one template, since there are findings.")
        if not self.findings and self.decision is None and self.staging is None:
            raise ValueError("nothing is ruled. Give findings (with wording), a decision, or staging.")
        return self

    @model_validator(mode="after")
    def _phrases_are_distinct(self) -> "RuleSet":
        owners: dict[str, str] = {}
        for name, rule in self.findings.items():
            for phrase in [*rule.phrases, *([rule.plural] if rule.plural else [])]:
                other = owners.setdefault(phrase.casefold(), name)
                if other != name:
                    raise ValueError(f"phrase '{phrase}' belongs to both '{other}' and '{name}'. Keep it in one.")
        return self

    @property
    def id(self) -> str:
        """``name@version``, as every row and metric names it."""
        return f"{self.name}@{self.version}"

    def severity(self, finding: str, kind: ErrorKind) -> float:
        """Severity in [0, 1] of an error of this kind about this finding."""
        return self.findings[finding].severity * self.error_weights.get(kind, 1.0)


@cache
def shipped() -> tuple[str, ...]:
    """Names of the rule sets that travel with clinalign.

    >>> "chest_xray" in shipped()
    True
    """
    names = (entry.name for entry in files("rewards.rule_sets").iterdir() if entry.name.endswith(".yaml"))
    return tuple(sorted(name.removesuffix(".yaml") for name in names))


def read_rule_set(path: Path) -> RuleSet:
    """The rule set in a YAML file.

    Raises: InputError with every fault of the file, one a line, each with its line number and cure.
    """
    rules = validated(RuleSet, read_yaml(path), where=path)
    faults = faults_of(rules)
    if faults:
        raise InputError(located_faults(path, ((fault.place, fault) for fault in faults)))
    return rules


def faults_of(rules: RuleSet) -> list[Fault]:
    """Every fault of the decision, the staging and the normal phrases of a rule set."""
    decided = [] if rules.decision is None else decision_faults(rules.decision)
    worded = [] if rules.decision is None else wording_faults(rules.decision)
    normal = normal_faults(rules.wording.normal, list(rules.findings))
    return [*decided, *worded, *normal, *(staging_faults(rules.staging) if rules.staging else ())]


def load_rule_set(name: str) -> RuleSet:
    """The rule set of a shipped name (``chest_xray``), an id (``chest_xray@1``), or a YAML file, known by its id then.

    A rule set of several versions has a file for each (``retina_referral@1.yaml``) and is named with its version.

    Raises: InputError if there is none, or its version is another, or the file has faults, or ``register`` does.
    """
    if name.endswith((".yaml", ".yml")):
        return register(Path(name))
    if name in shipped():
        return _shipped(name)
    file = known_file(name)
    return _shipped(name) if file is None else _rules_in(file)


def register(path: Path) -> RuleSet:
    """The rule set in a file of the user's own, which is found by its id from now on, in this process.

    Raises: InputError as ``read_rule_set``, and naming both if another file with other content has this id.
    """
    file = read_file(path)
    rules = _rules_in(file)
    ours = _shipped_file(rules)
    if ours is None:
        remember(rules.id, file)
    else:
        check_same_rules(rules.id, ours, file)
    return rules


@cache  # asked for with each row
def _rules_in(file: KnownFile) -> RuleSet:
    return read_rule_set(file.path)


def _shipped_file(rules: RuleSet) -> KnownFile | None:
    """The shipped file of this very id; None where there is none."""
    for name in {rules.name, rules.id} & {*shipped()}:
        if _shipped(name).id == rules.id:
            return read_file(_path_of(name))
    return None


@cache
def _shipped(name: str) -> RuleSet:
    """The shipped rule set of a name or an id. Raises: InputError if there is none, or its version is another."""
    if name in shipped():
        return read_rule_set(_path_of(name))
    bare, _, version = name.partition("@")
    if bare not in shipped():
        known = [*shipped(), *known_ids()]
        raise InputError(
            f"no rule set named '{name}'.{nearest(name, known)} Known: {', '.join(known)}. One of your own is known by "
            "its file: rule_sets: [FILE] in a spec or recipe, or --rules FILE."
        )
    rules = read_rule_set(_path_of(bare))
    if version and version != str(rules.version):
        raise InputError(f"rule set '{bare}': version {version} was asked for, version {rules.version} is installed.")
    return rules


def _path_of(name: str) -> Path:
    return Path(str(files("rewards.rule_sets") / f"{name}.yaml"))


def _as_registered(path: str) -> str:
    register(Path(path))
    return path


RuleFile = Annotated[str, AfterValidator(_as_registered)]
"""The path of a rule set in a spec or recipe; what reads it makes the file known."""
