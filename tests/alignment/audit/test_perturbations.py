import itertools
import random
from types import SimpleNamespace

import pytest

from alignment.audit.perturbations import perturbed
from rewards.reading.reading import read
from rewards.rules.facts import Facts, Finding
from rewards.rules.rule_set import load_rule_set


@pytest.mark.parametrize("seed", range(30))
def test_no_finding_is_made_wrong_twice_where_the_facts_know_little(seed):
    rules = load_rule_set("chest_xray")
    facts = Facts(rule_set=rules.id, findings={"cardiomegaly": Finding(polarity="present")})
    row = SimpleNamespace(task="report", boxes=None, facts=facts, rules=rules)
    said = [read(step.answer, rules).facts.findings for step in perturbed(row, random.Random(seed))]
    assert len(said) > 2
    changed = [{n for n in after if after[n] != before.get(n)} for before, after in itertools.pairwise(said)]
    assert all(len(names) == 1 for names in changed)
    assert len(set().union(*changed)) == len(changed)
