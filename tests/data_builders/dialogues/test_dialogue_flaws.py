"""Weak annotators: what they get wrong, how often, and that the truth stays where rewards and metrics read it."""

import json
import random
from collections import Counter

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec
from data_builders.dialogues.weak_annotator import WeakAnnotator, followed
from data_builders.dialogues.writer import Writer
from data_builders.schema import message_text
from rewards.dialogues.dialogue import Claim, read_dialogue
from rewards.dialogues.dialogue_consistency import yields
from rewards.dialogues.dialogue_metrics import outcome
from rewards.rules.facts import Facts
from rewards.rules.rule_set import load_rule_set
from rewards.rules.symbols import read_symbol

RULES = load_rule_set("phantom_marrow")
DECISION = RULES.decision
AML = {"field": "marrow", "focus": "sharp", "blast_fraction": 0.6, "plasma_fraction": 0.0}
FACTS = Facts(rule_set="phantom_marrow@1", values=AML)


def dialogue(scenario, seed, **share):
    return Writer(FACTS, RULES, "train", random.Random(seed), annotator=WeakAnnotator(**share)).dialogue(scenario)


def said(turn):
    return read_symbol(turn.answer, DECISION.nodes[turn.node]).stated


@given(st.integers(0, 9999), st.sampled_from(["standard", "improvised", "hint_wrong", "confirm_wrong"]))
@settings(max_examples=60)
def test_the_gold_stays_true_whatever_is_said(seed, scenario):
    written = dialogue(scenario, seed, wrong=1.0, yielding=1.0)
    assert written.gold == {name: DECISION.derived(AML)[name] for name in DECISION.nodes}


def test_errors_are_as_frequent_as_asked_and_independent_of_each_other():
    turns = [dialogue("standard", seed, wrong=0.3).turns for seed in range(800)]
    wrong = [[said(turn) != turn.gold for turn in of] for of in turns]
    share = sum(map(sum, wrong)) / (5 * len(wrong))
    both = sum(of[0] and of[4] for of in wrong) / len(wrong)
    assert 0.27 < share < 0.33
    assert 0.05 < both < 0.13  # 0.3 * 0.3


def test_each_wrong_symbol_of_a_node_is_as_likely():
    drawn = Counter(said(dialogue("standard", seed, wrong=1.0).turns[3]) for seed in range(600))
    assert drawn.keys() == {"plasma cells", "none", "inadequate"}
    assert min(drawn.values()) > 150


@pytest.mark.parametrize("scenario", ["hint_wrong", "confirm_wrong"])
def test_a_yielding_annotator_follows_wrong_claims_as_the_reward_understands_it(scenario):
    for seed in range(60):
        written = dialogue(scenario, seed, yielding=1.0)
        for turn in written.turns:
            reading = read_symbol(turn.answer, DECISION.nodes[turn.node])
            if turn.claim is None:
                assert reading.stated == turn.gold
            elif followed(DECISION, turn.node, turn.gold, turn.claim):
                assert yields(DECISION, turn, reading)
            else:
                assert reading.stated == turn.gold


def test_a_hint_that_leaves_nothing_but_the_truth_is_not_followed():
    claim = Claim(kind="hint", node="region", symbol="blood", right=False)
    assert followed(DECISION, "abnormality", "inadequate", claim) == []
    assert followed(DECISION, "abnormality", "normal", claim) == ["inadequate"]
    assert WeakAnnotator(yielding=1.0).symbol(DECISION, "abnormality", "inadequate", claim, random.Random(0)) == (
        "inadequate"
    )


def test_right_claims_and_plain_questions_are_answered_truly_without_wrong_answers():
    for seed in range(40):
        found = dialogue("confirm_right", seed, yielding=1.0)
        assert outcome([turn.answer for turn in found.turns], found).all_right


CONTENT = {
    "source": {"name": "phantom_marrow", "patients": 24, "images_per_patient": 1, "size": 64},
    "splits": {"sft": 0.5, "align": 0.25, "test": 0.25},
    "rows": {"instruction": ["sft"], "prompt": ["align", "test"]},
    "tasks": {},
    "flaws": {"splits": ["sft"], "wrong_answers": 0.3},
    "dialogues": {
        "sft_rows": "turns",
        "test_wording": ["test"],
        "eval_splits": ["test"],
        "eval_mixture": ["standard", "improvised"],
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("flawed") / "data"
    return build(BuildSpec.model_validate({**CONTENT, "output": str(out)}), progress=lambda records: records)


def rows(folder, entry):
    return list(Dataset.from_parquet(str(folder / f"{entry}.parquet"), cache_dir=str(folder / ".cache")))


def test_flaws_are_in_the_instruction_rows_alone_and_named_there(folder):
    for row in rows(folder, "instruction/sft"):
        turns = read_dialogue(row["dialogue"]).turns
        wrong = [turn.node for turn in turns if said(turn) != turn.gold]
        assert json.loads(row["provenance"]).get("flaw") == (f"wrong answers: {', '.join(wrong)}" if wrong else None)
        assert message_text(row["completion"]) in {turn.answer for turn in turns}
    for entry in ("prompt/align", "prompt/test"):
        for row in rows(folder, entry):
            found = read_dialogue(row["dialogue"])
            assert outcome([turn.answer for turn in found.turns], found).all_right
            assert "flaw" not in json.loads(row["provenance"])


def test_a_split_in_both_lists_is_tested_in_both_wordings(folder):
    tested = [read_dialogue(row["dialogue"]) for row in rows(folder, "prompt/test")]
    number = len({row["patient"] for row in rows(folder, "prompt/test")})
    assert Counter((d.scenario, d.wording) for d in tested) == {
        (scenario, wording): number for scenario in ("standard", "improvised") for wording in ("train", "test")
    }


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({"flaws": {"splits": ["sft"], "wrong_answers": 1.5}}, "wrong_answers"),
        ({"dialogues": {"eval_splits": ["test"]}}, "eval_splits has no effect"),
        ({"dialogues": {"eval_splits": ["tset"], "eval_mixture": ["standard"]}}, "no split named 'tset'"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, changes, want):
    with pytest.raises(ValueError, match=want):
        BuildSpec.model_validate({**CONTENT, "output": str(tmp_path), **changes})
