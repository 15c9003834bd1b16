"""Decisions: the questions of a clinical task, their answers, and which sequences of answers hang together.

A node is one question with a closed set of answers (symbols). Valid tuples are those that meet every constraint
and, where paths are given, at least one path. Left out: probabilities, and nodes with several answers at once.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property

from pydantic import Field

from rewards.config.input_error import nearest
from rewards.config.strict_model import StrictModel
from rewards.rules.evidence import Evidence, Truth, Value, every, holds
from rewards.rules.nodes import (
    NOT,
    NOT_APPLICABLE,
    Clause,
    Constraint,
    Context,
    Derivation,
    Node,
    Pool,
    Symbols,
)
from rewards.rules.valid_sets import MAX_LISTED, Assignment, largest_agreement, solutions, space_size


class Decision(StrictModel):
    """The nodes of one task and what ties them.

    ``paths``: class name -> answers (an unlisted node is free). ``prior[node][symbol]``: the share of each answer
    that is expected in the data; by default all classes (or valid tuples) are equally frequent.
    """

    nodes: dict[str, Node] = Field(min_length=1)
    order: list[str] = Field(min_length=1)
    final: str
    paths: dict[str, Clause] = {}
    constraints: list[Constraint] = []
    derive: dict[str, list[Derivation]] = {}
    context: list[Context] = []
    hint: Pool
    confirm: Pool
    prior: dict[str, dict[str, float]] = {}

    @cached_property
    def domains(self) -> dict[str, tuple[str, ...]]:
        """The symbols of each node."""
        return {name: node.domain for name, node in self.nodes.items()}

    @cached_property
    def tuples(self) -> tuple[Assignment, ...] | None:
        """Every valid tuple; None where there are too many tuples to list."""
        if space_size(self.domains) > MAX_LISTED:
            return None
        return tuple(solutions(self.domains, self.possible))

    def possible(self, partial: Mapping[str, str]) -> bool:
        """False if a partial tuple breaks a constraint, a condition of asking, or every path."""
        broken = any(met(c.when, partial) is True and met(c.then, partial) is False for c in self.constraints)
        conditions = all(_asked_rightly(node, partial, name) for name, node in self.nodes.items())
        on_a_path = not self.paths or any(met(path, partial) is not False for path in self.paths.values())
        return not broken and conditions and on_a_path

    def is_valid(self, said: Mapping[str, str]) -> bool:
        """Whether answers, to all nodes or to some in any order, are part of a valid tuple."""
        if self.tuples is None:
            return next(solutions(self.domains, self.possible, said), None) is not None
        return any(said.items() <= full.items() for full in self.tuples)

    def agreement(self, said: Mapping[str, str]) -> int:
        """The most of these answers that one valid tuple can share."""
        if self.tuples is None:
            return largest_agreement(self.domains, self.possible, said)
        return max((len(said.items() & full.items()) for full in self.tuples), default=0)

    def classes_of(self, full: Mapping[str, str]) -> list[str]:
        """The names of the paths that a tuple follows."""
        return [name for name, path in self.paths.items() if met(path, full)]

    @cached_property
    def shares(self) -> dict[str, dict[str, float]]:
        """The share of each symbol among the cases in which its node is asked."""
        counted = {name: dict.fromkeys(node.answers, 0.0) for name, node in self.nodes.items()}
        for full, weight in self._weighted_tuples():
            for name, symbol in full.items():
                if symbol != NOT_APPLICABLE:
                    counted[name][symbol] += weight
        totals = {name: sum(of.values()) or 1.0 for name, of in counted.items()}
        uniform = {n: {s: w / totals[n] for s, w in of.items()} for n, of in counted.items()}
        return {**uniform, **{n: {**dict.fromkeys(uniform[n], 0.0), **given} for n, given in self.prior.items()}}

    def _weighted_tuples(self) -> Iterator[tuple[Assignment, float]]:
        """Valid tuples with weights: the classes are equally frequent, and so are the tuples of one class."""
        tuples = self.tuples or ()
        sizes = {name: sum(1 for full in tuples if met(path, full)) for name, path in self.paths.items()}
        for full in tuples:
            yield full, sum(1 / sizes[name] for name in self.classes_of(full)) if self.paths else 1.0

    def derived(self, record: Evidence) -> dict[str, str | None]:
        """The symbol of each node from the columns of a record; None where they do not decide it.

        A column with the name of a node states its symbol, unless the node has rules of its own.
        """
        found: dict[str, str | None] = {}
        for name in self.nodes:
            self._derive(name, record, found)
        return found

    def _derive(self, name: str, record: Evidence, found: dict[str, str | None]) -> str | None:
        if name in found:
            return found[name]
        found[name] = None
        if name not in self.derive:
            stated = record.get(name)
            found[name] = stated if isinstance(stated, str) else None
            return found[name]
        columns = {column for rule in self.derive[name] for column in rule.when}
        derived = {c for c in columns if c in self.nodes and c != name}
        known = {c: self._derive(c, record, found) if c in derived else record.get(c) for c in columns}
        truths = [(rule.symbol, holds(rule.when, known)) for rule in self.derive[name]]
        found[name] = first_decided(truths)
        return found[name]

    def severity(self, name: str, gold: str, said: str) -> float:
        """Severity in [0, 1] of saying one symbol where another is true; 0 if they are the same."""
        node = self.nodes[name]
        return 0.0 if gold == said else node.errors.get(gold, {}).get(said, node.severity)

    def credit(self, name: str, gold: str, said: str) -> float:
        """1 for the right symbol, the partial credit of another, else 0."""
        return 1.0 if gold == said else self.nodes[name].partial_credit.get(gold, {}).get(said, 0.0)

    def fault_of(self, symbols: Mapping[str, str | None]) -> str | None:
        """Why a record's symbols cannot be used: a node without one, an unknown one, or no valid tuple; else None."""
        for name, domain in self.domains.items():
            symbol = symbols.get(name)
            if symbol is None:
                return f"node '{name}' has no answer"
            if symbol not in domain:
                return f"node '{name}': no answer '{symbol}'.{nearest(symbol, list(domain))}"
        known = {name: symbol for name, symbol in symbols.items() if symbol is not None}
        return None if self.is_valid(known) else f"no valid path: {', '.join(known[n] for n in self.order)}"

    def record_fault(self, record: Evidence) -> str | None:
        """Why a record gives no valid answers, with the labels that decide nothing; None if it gives some."""
        symbols = self.derived(record)
        fault = self.fault_of(symbols)
        undecided = next((name for name in self.nodes if symbols[name] is None), None)
        if fault is None or undecided is None:
            return fault
        columns = sorted({c for rule in self.derive.get(undecided, ()) for c in rule.when} or {undecided})
        return f"{fault} (from {', '.join(_shown(c, record.get(c)) for c in columns)})"


def _shown(column: str, value: Value) -> str:
    """A column as a fault names it: labels by name, since alike faults are counted together; numbers only as given."""
    if value is None:
        return f"{column}: not given"
    return f"{column}: '{value}'" if isinstance(value, str) else f"{column}: given"


def met(clause: Clause, partial: Mapping[str, str]) -> Truth:
    """Whether a clause holds of a partial tuple; None where a node is not assigned.

    >>> met({"region": ["blood", "clot"]}, {"region": "clot"}), met({"region": "not clot"}, {"region": "clot"})
    (True, False)
    """
    return every(_matches(wanted, partial.get(name)) for name, wanted in clause.items())


def _matches(wanted: Symbols, symbol: str | None) -> Truth:
    if symbol is None:
        return None
    if isinstance(wanted, list):
        return symbol in wanted
    return symbol != wanted.removeprefix(NOT) if wanted.startswith(NOT) else symbol == wanted


def named(wanted: Symbols) -> list[str]:
    """The symbols that a clause names, without ``not``."""
    return wanted if isinstance(wanted, list) else [wanted.removeprefix(NOT)]


def _asked_rightly(node: Node, partial: Mapping[str, str], name: str) -> bool:
    """Whether a conditional node has its not-applicable symbol exactly where its condition fails."""
    if not node.ask_if or name not in partial:
        return True
    asked = met(node.ask_if, partial)
    return asked is None or asked != (partial[name] == (node.na or NOT_APPLICABLE))


def first_decided(truths: list[tuple[str, Truth]]) -> str | None:
    """The symbol of the first rule that holds, unless an unknown one before it might give another."""
    unknown: set[str] = set()
    for symbol, truth in truths:
        if truth:
            return symbol if unknown <= {symbol} else None
        if truth is None:
            unknown.add(symbol)
    return None
