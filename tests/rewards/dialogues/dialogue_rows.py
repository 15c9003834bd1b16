"""Dialogues with given answers, for tests of rewards and metrics."""

from rewards.dialogues.dialogue import Claim, Dialogue, Turn, decision_of
from rewards.rules.nodes import NOT_APPLICABLE


def dialogue(rule_set, gold, order=None, scenario="standard", claims=None):
    """A dialogue that asks the nodes of ``gold`` in ``order``. ``claims``: node -> Claim."""
    nodes = decision_of(rule_set).nodes
    asked = [n for n in order or gold if gold[n] != NOT_APPLICABLE]
    turns = tuple(
        Turn(node=n, gold=gold[n], question="?", answer=sentence(rule_set, n, gold[n]), claim=(claims or {}).get(n))
        for n in asked
    )
    assert all(turn.node in nodes for turn in turns)
    return Dialogue(rule_set=rule_set, scenario=scenario, wording="train", turns=turns)


def sentence(rule_set, node, symbol):
    """The first training wording of an answer; of a symbol that is merely understood, its first phrase."""
    known = decision_of(rule_set).nodes[node]
    if symbol in known.answers:
        return known.answers[symbol].say.train[0]
    return f"I think it is {known.also_read[symbol][0]}."


def answers(rule_set, asked, said):
    """One sentence a turn that states the symbols of ``said``; None states nothing."""
    return [sentence(rule_set, t.node, said[t.node]) if said[t.node] else "Hm, let me see." for t in asked.turns]


def wrong_claim(node, symbol, *, about=None):
    """A wrong claim before ``node``: a confirmation, or a hint about another node."""
    return {node: Claim(kind="hint" if about else "confirmation", node=about or node, symbol=symbol, right=False)}
