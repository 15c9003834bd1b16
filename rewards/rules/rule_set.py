"""Rule sets: one YAML file for one clinical task. What can be found, what it is called, how severe an error is.

Three sections, each of which may be left out: ``findings`` with lexicon, sides, sizes, severity and the ``wording``
in which they are written; ``decision``, the questions of a task and which answers hang together; ``staging``, ordered
scales such as stages and referral. Unknown sections are refused rather than ignored.
"""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from rewards.config.input_error import InputError, nearest
from rewards.config.strict_model import StrictModel
from rewards.config.strict_yaml import read_yaml, validated
from rewards.config.yaml_lines import located_faults
from rewards.rules.decision import Decision
from rewards.rules.facts import Unsupported
from rewards.rules.faults import Fault, decision_faults, staging_faults
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

    name: str
    version: int
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


def shipped() -> list[str]:
    """Names of the rule sets that travel with clinalign.

    >>> "chest_xray" in shipped()
    True
    """
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in files("rewards.rule_sets").iterdir()
        if entry.name.endswith(".yaml")
    )


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


@cache
def load_rule_set(name: str) -> RuleSet:
    """The rule set of a shipped name (``chest_xray``), a versioned id (``chest_xray@1``) or a YAML file.

    A rule set of several versions has a file for each (``retina_referral@1.yaml``) and is named with its version.

    Raises: InputError if there is none, or its version is another, or the file has faults.
    """
    if name in shipped():
        return read_rule_set(Path(str(files("rewards.rule_sets") / f"{name}.yaml")))
    bare, _, version = (name, "", "") if name.endswith((".yaml", ".yml")) else name.partition("@")
    path = Path(bare) if bare.endswith((".yaml", ".yml")) else Path(str(files("rewards.rule_sets") / f"{bare}.yaml"))
    if not path.is_file() and not bare.endswith((".yaml", ".yml")):
        raise InputError(f"no rule set named '{name}'.{nearest(name, shipped())} Shipped: {', '.join(shipped())}.")
    rules = read_rule_set(path)
    if version and version != str(rules.version):
        raise InputError(f"rule set '{bare}': version {version} was asked for, version {rules.version} is installed.")
    return rules
