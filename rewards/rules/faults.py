"""Every fault of a rule set at once: names that are not known, rules that contradict, words that are misread.

What is checked of names and logic stands here, what is checked of words in ``wording_faults``. Left out: whether the
rules are good medicine.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rewards.config.input_error import nearest
from rewards.config.yaml_lines import KeyPath
from rewards.rules.decision import Decision, met, named
from rewards.rules.evidence import Asked, Evidence
from rewards.rules.nodes import NOT, NOT_APPLICABLE, Clause, Node
from rewards.rules.stages import Staging

NUM_IDS = 5
"""So many records are named of those that share a fault."""


@dataclass(frozen=True)
class Fault:
    """One fault: where it stands (keys from the top of the file), what is wrong and how to mend it."""

    place: KeyPath
    text: str

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.place))}: {self.text}"


def decision_faults(decision: Decision) -> list[Fault]:
    """Faults of names and logic. Logic is looked at only once all names are known, or it would repeat their faults."""
    names = [*_name_faults(decision), *_node_faults(decision), *_rule_name_faults(decision)]
    return [*names, *_cycles(decision), *([] if names else _logic_faults(decision))]


def _name_faults(decision: Decision) -> Iterator[Fault]:
    """``order``, ``final``, and symbols that cannot be named in a clause."""
    counts = Counter(decision.order)
    for name in counts:
        if name not in decision.nodes:
            yield Fault(("decision", "order"), _unknown("node", name, decision.nodes))
        elif counts[name] > 1:
            yield Fault(("decision", "order"), f"node '{name}' is listed {counts[name]} times. List it once.")
    for name in decision.nodes:
        if name not in counts:
            yield Fault(("decision", "nodes", name), "the node is never asked. Add it to 'order', or delete it.")
    if decision.final not in decision.nodes:
        yield Fault(("decision", "final"), _unknown("node", decision.final, decision.nodes))
    for name, node in decision.nodes.items():
        for symbol in node.answers:
            if symbol.startswith(NOT) or symbol == NOT_APPLICABLE:
                place = ("decision", "nodes", name, "answers", symbol)
                yield Fault(place, f"'{symbol}' is reserved: 'not X' and 'n/a' mean something in clauses. Rename it.")


def _node_faults(decision: Decision) -> Iterator[Fault]:
    """Symbols that a node names in its own keys."""
    for name, node in decision.nodes.items():
        at = ("decision", "nodes", name)
        yield from _symbols_known(
            node, {(*at, "if_yes"): node.if_yes, (*at, "if_no"): node.if_no, (*at, "na"): node.na}
        )
        for symbol, answer in node.answers.items():
            place = (*at, "answers", symbol)
            yield from _symbols_known(node, {(*place, "negated"): answer.negated})
            for inner in answer.may_contain:
                if inner not in node.lexicon:
                    yield Fault((*place, "may_contain"), _unknown("symbol", inner, node.lexicon))
        for key, table in (("partial_credit", node.partial_credit), ("errors", node.errors)):
            yield from _table_faults(node, (*at, key), table)
        yield from _clause_faults(decision, (*at, "ask_if"), node.ask_if)
        yield from _order_faults(decision, name)


def _symbols_known(node: Node, named_at: Mapping[KeyPath, str | None]) -> Iterator[Fault]:
    for place, symbol in named_at.items():
        if symbol is not None and symbol not in node.answers:
            yield Fault(place, _unknown("symbol", symbol, node.answers))


def _table_faults(node: Node, at: KeyPath, table: Mapping[str, Mapping[str, float]]) -> Iterator[Fault]:
    for gold, row in table.items():
        if gold not in node.answers:
            yield Fault((*at, gold), _unknown("symbol", gold, node.answers))
        for said, worth in row.items():
            if said not in node.lexicon:
                yield Fault((*at, gold, said), _unknown("symbol", said, node.lexicon))
            if not 0.0 <= worth <= 1.0:
                yield Fault((*at, gold, said), f"{worth:g} is not from 0 to 1.")


def _order_faults(decision: Decision, name: str) -> Iterator[Fault]:
    """A condition on a node that the standard order asks later."""
    order = decision.order
    for before in decision.nodes[name].ask_if:
        if name in order and before in order and order.index(before) > order.index(name):
            place = ("decision", "nodes", name, "ask_if", before)
            yield Fault(place, f"'{before}' is asked after '{name}'. Put it before '{name}' in 'order'.")


def _rule_name_faults(decision: Decision) -> Iterator[Fault]:
    """Nodes and symbols that paths, constraints, derivations, contexts and priors name."""
    for name, path in decision.paths.items():
        yield from _clause_faults(decision, ("decision", "paths", name), path)
    for k, constraint in enumerate(decision.constraints):
        yield from _clause_faults(decision, ("decision", "constraints", k, "when"), constraint.when)
        yield from _clause_faults(decision, ("decision", "constraints", k, "then"), constraint.then)
    for k, context in enumerate(decision.context):
        if context.before not in decision.nodes:
            yield Fault(("decision", "context", k, "before"), _unknown("node", context.before, decision.nodes))
        yield from _clause_faults(decision, ("decision", "context", k, "when"), context.when)
    yield from _derive_faults(decision)
    yield from _prior_faults(decision)


def _clause_faults(decision: Decision, at: KeyPath, clause: Clause) -> Iterator[Fault]:
    for name, wanted in clause.items():
        if name not in decision.nodes:
            yield Fault((*at, name), _unknown("node", name, decision.nodes))
            continue
        domain = decision.nodes[name].domain
        for symbol in named(wanted):
            if symbol not in domain:
                yield Fault((*at, name), _unknown("symbol", symbol, domain))


def _derive_faults(decision: Decision) -> Iterator[Fault]:
    for name, rules in decision.derive.items():
        if name not in decision.nodes:
            yield Fault(("decision", "derive", name), _unknown("node", name, decision.nodes))
            continue
        domain = decision.nodes[name].domain
        for k, rule in enumerate(rules):
            at = ("decision", "derive", name, k)
            if rule.symbol not in domain:
                yield Fault((*at, "symbol"), _unknown("symbol", rule.symbol, domain))
            for column, asked in rule.when.items():
                if column in decision.nodes and column != name:
                    yield from _asked_faults(asked, (*at, "when", column), decision.nodes[column].domain, "symbol")


def _asked_faults(asked: Asked, at: KeyPath, known: Iterable[str], what: str) -> Iterator[Fault]:
    for value in asked if isinstance(asked, list) else [asked]:
        if isinstance(value, str) and value not in known:
            yield Fault(at, _unknown(what, value, known))


def _prior_faults(decision: Decision) -> Iterator[Fault]:
    for name, shares in decision.prior.items():
        at = ("decision", "prior", name)
        if name not in decision.nodes:
            yield Fault(at, _unknown("node", name, decision.nodes))
            continue
        yield from _symbols_known(decision.nodes[name], {(*at, symbol): symbol for symbol in shares})
        if abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values(), default=0) < 0:
            yield Fault(at, f"shares add up to {sum(shares.values()):g}, expected 1 and none below 0.")


def _cycles(decision: Decision) -> Iterator[Fault]:
    """Conditions and derivations that come back to their own node."""
    conditions = {name: set(node.ask_if) for name, node in decision.nodes.items()}
    derived = {name: {c for rule in rules for c in rule.when if c != name} for name, rules in decision.derive.items()}
    for key, edges in (("ask_if", conditions), ("derive", derived)):
        for cycle in _found_cycles(edges):
            place = ("decision", "nodes", cycle[0], "ask_if") if key == "ask_if" else ("decision", "derive", cycle[0])
            yield Fault(place, f"{key} runs in a circle: {' -> '.join([*cycle, cycle[0]])}. Take one step out.")


def _found_cycles(edges: Mapping[str, set[str]]) -> Iterator[tuple[str, ...]]:
    """Each cycle once, from its first node by name."""
    for start in edges:
        trail: list[tuple[str, tuple[str, ...]]] = [(start, (start,))]
        found = False
        while trail and not found:
            name, path = trail.pop()
            for after in sorted(edges.get(name, ())):
                if after == start and start == min(path):
                    yield path
                    found = True
                elif after not in path:
                    trail.append((after, (*path, after)))


def _logic_faults(decision: Decision) -> Iterator[Fault]:
    """Rules that contradict, answers that no valid tuple has, paths that are there twice."""
    if decision.tuples is None:
        return
    if not decision.tuples:
        yield Fault(("decision", "constraints"), "no tuple of answers is valid: the rules contradict each other.")
        return
    for name, domain in decision.domains.items():
        seen = {full[name] for full in decision.tuples}
        if seen == {NOT_APPLICABLE}:
            yield Fault(("decision", "nodes", name, "ask_if"), "the node is never asked: its condition never holds.")
            continue
        for symbol in domain:
            if symbol not in seen:
                place = ("decision", "nodes", name, "answers", symbol)
                yield Fault(place, f"'{symbol}' is on no valid tuple. Put it on a path, or delete it.")
    yield from _path_faults(decision, decision.tuples)


def _path_faults(decision: Decision, tuples: tuple[dict[str, str], ...]) -> Iterator[Fault]:
    reached = {name: {k for k, full in enumerate(tuples) if met(path, full)} for name, path in decision.paths.items()}
    for name, own in reached.items():
        at = ("decision", "paths", name)
        if not own:
            yield Fault(at, "the path is empty: it contradicts a constraint or a condition. Mend one of them.")
            continue
        for other, theirs in reached.items():
            if other == name:
                continue
            if own == theirs and list(reached).index(other) < list(reached).index(name):
                yield Fault(at, f"the same answers as path '{other}'. Keep one, or tell them apart.")
            elif own < theirs:
                yield Fault(at, f"lies within path '{other}', which is wider. Delete it, or narrow '{other}'.")


def staging_faults(staging: Staging) -> Iterator[Fault]:
    """Levels that cannot be reached, and scales that name levels which are not there."""
    known: dict[str, list[str]] = {}
    for name, scale in staging.scales.items():
        at = ("staging", "scales", name, "levels")
        for k, level in enumerate(scale.levels):
            if k and not level.any_of:
                yield Fault((*at, k), f"level '{level.name}' has no evidence, so it is never reached. Give any_of.")
            if scale.names.count(level.name) > 1 and scale.names.index(level.name) < k:
                yield Fault((*at, k), f"two levels are named '{level.name}'. Rename one.")
            for clause in level.any_of:
                yield from _scale_clause_faults(clause, (*at, k, "any_of"), known, staging)
        if scale.levels[0].any_of:
            yield Fault((*at, 0), "the lowest level is the default and takes no evidence. Add a level below it.")
        known[name] = scale.names


def _scale_clause_faults(
    clause: Mapping[str, Asked], at: KeyPath, known: Mapping[str, list[str]], staging: Staging
) -> Iterator[Fault]:
    for column, asked in clause.items():
        if column in known:
            yield from _asked_faults(asked, at, known[column], "level")
        elif column in staging.scales:
            yield Fault(at, f"scale '{column}' is worked out later. Move it before this one.")


def label_faults(decision: Decision, records: Iterable[tuple[str, Evidence]]) -> list[str]:
    """Records whose labels the rules do not allow: one line for each kind of fault, with how many and which."""
    found: dict[str, list[str]] = {}
    for name, record in records:
        fault = decision.record_fault(record)
        if fault is not None:
            found.setdefault(fault, []).append(name)
    return [
        f"{len(names)} records: {fault}. Records: {', '.join(names[:NUM_IDS])}{', ...' if len(names) > NUM_IDS else ''}"
        for fault, names in sorted(found.items(), key=lambda item: -len(item[1]))
    ]


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    names = list(known)
    hint = nearest(name, names) or f" Known: {', '.join(names)}."
    return f"no {what} named '{name}'.{hint}"
