import json
import random
from collections import Counter
from html import escape

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec
from data_builders.dialogues.writer import Writer, dialogue_fault, drawn_scenario, halves, ordered, transcript
from data_builders.schema import message_text
from rewards.config.input_error import InputError
from rewards.dialogues.dialogue import Scenario, clinician_says, read_dialogue
from rewards.dialogues.dialogue_consistency import dialogue_consistency
from rewards.dialogues.dialogue_metrics import outcome
from rewards.rules.facts import Facts
from rewards.rules.rule_set import load_rule_set, shipped
from rewards.rules.symbols import read_symbol

MARROW, ECG, CHEST = (load_rule_set(name) for name in ("bone_marrow", "ecg_mi", "chest_triage"))
DECIDED = [rules for name in shipped() if (rules := load_rule_set(name)).decision]
SCENARIOS = Scenario.__args__
AML = Facts(rule_set="bone_marrow@1", values={"field": "adequate", "blast_fraction": 0.5, "plasma_fraction": 0.0})
STEMI = Facts(rule_set="ecg_mi@1", values={"report": "ST elevation", "codes": ["I21"], "troponin_value": 2.1})


def writer(facts=AML, rules=MARROW, seed=0, **keys):
    return Writer(facts, rules, keys.pop("wording", "train"), random.Random(seed), **keys)


def facts_for(rules, full):
    """Facts that state each node's symbol outright, whatever the rules derive from."""
    bare = rules.model_copy(update={"decision": rules.decision.model_copy(update={"derive": {}})})
    return Facts(rule_set=rules.id, values=dict(full) | {"troponin_value": 1.0}), bare


CASES = st.sampled_from([(rules, full) for rules in DECIDED for full in rules.decision.tuples])


@settings(deadline=None, max_examples=50)
@given(CASES, st.sampled_from(SCENARIOS), st.integers(0, 999), st.sampled_from(["train", "test"]))
def test_every_answer_reads_back_to_its_gold_and_the_dialogue_to_the_best_score(case, scenario, seed, wording):
    """The law read(render(facts)) == facts, for dialogues of every rule set, scenario and wording."""
    rules, full = case
    facts, bare = facts_for(rules, full)
    dialogue = writer(facts, bare, seed, wording=wording).dialogue(scenario)
    assert dialogue.gold.items() <= full.items()
    found = outcome([turn.answer for turn in dialogue.turns], dialogue)
    assert (found.all_right, found.valid_path, found.num_yielded) == (True, True, 0)


@settings(deadline=None, max_examples=50)
@given(CASES, st.sampled_from(SCENARIOS), st.integers(0, 999))
def test_another_case_never_scores_above_the_truth(case, scenario, seed):
    rules, full = case
    facts, bare = facts_for(rules, full)
    dialogue = writer(facts, bare, seed).dialogue(scenario)
    true = [turn.answer for turn in dialogue.turns]
    column = dialogue.to_json()
    for other in rules.decision.tuples:
        said = [
            rules.decision.nodes[t.node].answers[s].say.train[0] if (s := other[t.node]) != "n/a" else ""
            for t in dialogue.turns
        ]
        wrong = any(other[t.node] != t.gold for t in dialogue.turns)
        if wrong:
            assert dialogue_consistency(said, column) < dialogue_consistency(true, column)


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(["standard", "diagnosis_first", "reversed", "improvised"]), st.integers(0, 999))
def test_an_order_keeps_every_node_with_its_gold(scenario, seed):
    dialogue = writer(seed=seed).dialogue(scenario)
    assert dialogue.gold == {n: MARROW.decision.derived(AML.record())[n] for n in MARROW.decision.nodes}


def test_the_orders_are_what_their_names_say():
    symbols = dict(MARROW.decision.tuples[1])
    rng = random.Random(0)
    order = MARROW.decision.order
    assert ordered(MARROW.decision, symbols, "standard", rng) == order
    assert ordered(MARROW.decision, symbols, "diagnosis_first", rng) == ["diagnosis", *order[:-1]]
    assert ordered(MARROW.decision, symbols, "reversed", rng) == order[::-1]
    assert {len(ordered(MARROW.decision, symbols, "subset", rng)) for _ in range(200)} == {2, 3, 4, 5}
    assert {tuple(ordered(MARROW.decision, symbols, "single", rng)) for _ in range(200)} == {(n,) for n in order}
    assert len({tuple(ordered(MARROW.decision, symbols, "improvised", rng)) for _ in range(2000)}) == 120


def test_a_node_that_is_not_applicable_is_not_asked():
    normal = Facts(rule_set="chest_triage@1", values={"label": "no finding"})
    for scenario in SCENARIOS:
        assert "pattern" not in writer(normal, CHEST).dialogue(scenario).gold


@pytest.mark.parametrize("scenario", ["hint_right", "hint_wrong", "confirm_right", "confirm_wrong"])
def test_claims_are_right_or_wrong_as_named_and_in_the_clinicians_words(scenario):
    for seed in range(40):
        dialogue = writer(seed=seed).dialogue(scenario)
        claims = [(k, turn) for k, turn in enumerate(dialogue.turns) if turn.claim]
        assert claims
        for k, turn in claims:
            about = dialogue.turns[k - 1] if scenario.startswith("hint") else turn
            assert turn.claim.node == about.node
            assert turn.claim.right == (turn.claim.symbol == about.gold) == scenario.endswith("right")
            node = MARROW.decision.nodes[about.node]
            assert any(said in turn.question for said in node.answers[turn.claim.symbol].say.train)
            assert any(turn.question.endswith(ask) for ask in MARROW.decision.nodes[turn.node].ask.train)


def test_the_mixture_is_drawn_by_weight():
    rng = random.Random(1)
    drawn = Counter(drawn_scenario({"standard": 3.0, "single": 1.0, "subset": 0.0}, rng) for _ in range(4000))
    assert drawn["subset"] == 0
    assert 0.72 < drawn["standard"] / 4000 < 0.78


def test_training_words_are_never_test_words():
    def words(wording):
        drawn = [writer(seed=s, wording=wording).dialogue("confirm_wrong") for s in range(60)]
        return {text for d in drawn for t in d.turns for text in (t.question, t.answer)}

    assert not words("train") & words("test")


def test_what_is_told_depends_on_the_answer_before_and_not_on_the_truth():
    turns = writer(STEMI, ECG).dialogue("standard").turns
    assert clinician_says(turns[3], {"troponin": "order"}).startswith("The troponin is 2.1 ng/ml. ")
    assert clinician_says(turns[3], {"troponin": "do not order"}) == turns[3].question
    assert clinician_says(turns[3], {}) == turns[3].question
    assert "2.1" in message_text(transcript(writer(STEMI, ECG).dialogue("standard")))


def test_a_value_that_was_never_measured_is_not_told():
    unmeasured = Facts(rule_set="ecg_mi@1", values={"report": "normal", "codes": [], "troponin_measured": False})
    dialogue = writer(unmeasured, ECG).dialogue("standard")
    assert clinician_says(dialogue.turns[3], {"troponin": "order"}) == dialogue.turns[3].question


@pytest.mark.parametrize(
    ("facts", "rules", "want"),
    [
        (AML, MARROW, None),
        (Facts(rule_set="bone_marrow@1", values={"field": "cells"}), MARROW, "node 'quality' has no answer"),
        (Facts(rule_set="chest_triage@1", values={"label": "tumour"}), CHEST, "node 'abnormality' has no answer"),
        (Facts(rule_set="ecg_mi@1", values={"report": "ST elevation", "codes": ["I21"]}), ECG, "lacks a value"),
        (Facts(rule_set="chest_xray@1"), load_rule_set("chest_xray"), "has no decision section"),
    ],
)
def test_facts_that_give_no_dialogue_say_why(facts, rules, want):
    fault = dialogue_fault(facts, rules)
    assert fault is None if want is None else want in fault


def test_a_paraphrase_is_used_where_it_keeps_the_symbol_and_refused_where_not():
    counts = Counter()
    kept = writer(paraphrase=lambda text: f"I would say this: {text}", counts=counts).dialogue("standard")
    assert all(turn.answer.startswith("I would say this: ") for turn in kept.turns)
    assert counts == {"used": 5}
    refused = Counter()
    plain = writer(paraphrase=lambda text: f"Perhaps: {text[0].lower()}{text[1:]}", counts=refused).dialogue("standard")
    assert not any("Perhaps" in turn.answer for turn in plain.turns)
    assert sum(refused.values()) == 5
    assert refused["used"] == 0


def test_a_paraphrase_never_reaches_the_gold():
    def contrary(text):
        return "It is a clot of poor quality, inadequate and inconclusive."

    dialogue = writer(paraphrase=contrary).dialogue("standard")
    assert dialogue.gold["diagnosis"] == "AML"
    assert all(read_symbol(t.answer, MARROW.decision.nodes[t.node]).stated == t.gold for t in dialogue.turns)


def test_images_open_the_turns_that_they_are_placed_in():
    dialogue = writer(image_turns=(1, 3)).dialogue("standard")
    assert [turn.images for turn in dialogue.turns] == [1, 0, 1, 0, 0]
    late = writer(image_turns=(1, 3)).dialogue("single")
    assert [turn.images for turn in late.turns] == [2]
    users = [m for m in transcript(dialogue) if m["role"] == "user"]
    assert [sum(block["type"] == "image" for block in m["content"]) for m in users] == [1, 0, 1, 0, 0]


def test_a_transcript_is_cut_whole_or_by_turn():
    messages = transcript(writer().dialogue("standard"))
    ((prompt, completion),) = halves(messages, by_turn=False)
    assert (len(prompt), len(completion)) == (1, 9)
    parts = list(halves(messages, by_turn=True))
    assert [(len(p), len(c)) for p, c in parts] == [(1, 1), (3, 1), (5, 1), (7, 1), (9, 1)]
    assert [c[0]["role"] for _, c in parts] == ["assistant"] * 5


CONTENT = {
    "source": {"name": "phantom_marrow", "patients": 30, "images_per_patient": 1, "size": 64},
    "splits": {"sft": 0.5, "align": 0.3, "test": 0.2},
    "rows": {"instruction": ["sft"], "prompt": ["align", "test"]},
    "tasks": {},
    "dialogues": {
        "mixture": {"improvised": 1.0, "hint_wrong": 1.0},
        "test_wording": ["test"],
        "eval_mixture": ["standard", "confirm_wrong"],
        "epochs": 2,
    },
}


def built(tmp_path, name="data", paraphrase=None, **changes):
    content = {**CONTENT, "output": str(tmp_path / name), **changes}
    return build(BuildSpec.model_validate(content), progress=lambda records: records, paraphrase=paraphrase)


def rows(folder, entry):
    return list(Dataset.from_parquet(str(folder / f"{entry}.parquet"), cache_dir=str(folder / ".cache")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return built(tmp_path_factory.mktemp("dialogues"))


def test_the_same_spec_gives_the_same_bytes(tmp_path, folder):
    again = built(tmp_path)
    for file in sorted(folder.glob("*/*.parquet")):
        assert file.read_bytes() == (again / file.relative_to(folder)).read_bytes()


def test_prompt_rows_hold_the_first_turn_and_the_whole_script(folder):
    for row in rows(folder, "prompt/align"):
        assert row["target"] is None
        assert len(row["image_size"]) >= 1
        dialogue = read_dialogue(row["dialogue"])
        assert row["task"] == "dialogue"
        assert row["rule_set"] == dialogue.rule_set == "phantom_marrow@1"
        assert [b["type"] for b in row["prompt"][0]["content"]] == ["image", "text"]
        assert message_text(row["prompt"]) == clinician_says(dialogue.turns[0], {})
        truth = load_rule_set(row["rule_set"]).decision.derived(Facts.model_validate_json(row["facts"]).record())
        assert dialogue.gold.items() <= truth.items()


def test_each_epoch_draws_its_order_afresh(folder):
    by_image = {}
    for row in rows(folder, "prompt/align"):
        image = row["id"].split("-prompt")[0]
        by_image.setdefault(image, []).append(tuple(t.node for t in read_dialogue(row["dialogue"]).turns))
    assert {len(orders) for orders in by_image.values()} == {2}
    assert sum(len(set(orders)) == 2 for orders in by_image.values()) >= len(by_image) / 2


def test_tested_splits_have_one_dialogue_of_each_scenario_in_test_words(folder):
    found = [read_dialogue(row["dialogue"]) for row in rows(folder, "prompt/test")]
    assert Counter(d.scenario for d in found) == {"standard": len(found) // 2, "confirm_wrong": len(found) // 2}
    assert {d.wording for d in found} == {"test"}


def test_instruction_rows_alternate_between_clinician_and_model(folder):
    for row in rows(folder, "instruction/sft"):
        messages = [*row["prompt"], *row["completion"]]
        assert [m["role"] for m in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert len(messages) == 2 * len(read_dialogue(row["dialogue"]).turns)


def test_instruction_rows_may_be_one_answer_each(tmp_path):
    by_turn = built(tmp_path, dialogues={"sft_rows": "turns"}, rows={"instruction": ["sft"]})
    found = rows(by_turn, "instruction/sft")
    assert {len(row["completion"]) for row in found} == {1}
    assert Counter(len(row["prompt"]) for row in found).keys() == {1, 3, 5, 7, 9}
    assert len({row["id"] for row in found}) == len(found)


def test_the_card_counts_scenarios_and_refused_paraphrases(tmp_path, folder):
    card = json.loads((folder / "card.json").read_text())
    total = sum(n for kinds in card["counts"].values() for tasks in kinds.values() for n in tasks.values())
    assert sum(card["scenarios"].values()) == total
    shouted = built(tmp_path, paraphrase=lambda text: "Perhaps so.")
    refused = json.loads((shouted / "card.json").read_text())["paraphrases"]
    assert set(refused) == {"refused: unparsed"}


def test_the_gallery_shows_whole_dialogues(folder):
    page = (folder / "gallery.html").read_text()
    turns = read_dialogue(rows(folder, "prompt/test")[0]["dialogue"]).turns
    assert all(escape(turn.question) in page and escape(turn.answer) in page for turn in turns)


@pytest.mark.parametrize(
    ("dialogues", "want"),
    [
        ({"mixture": {"standard": 0.0}}, "every weight is 0"),
        ({"mixture": {"standrad": 1.0}}, "standrad"),
        ({"eval_mixture": ["standard"]}, "eval_mixture has no effect"),
        ({"test_wording": ["tset"]}, "no split named 'tset'"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, dialogues, want):
    with pytest.raises(ValueError, match=want):
        built(tmp_path, dialogues=dialogues)


def labels(tmp_path, records, images=("a.png", "b.png")):
    from PIL import Image

    root = tmp_path / "source"
    root.mkdir(exist_ok=True)
    for k, name in enumerate(images):
        Image.new("RGB", (32, 32), (40 * k, 90, 120)).save(root / name)
    (root / "labels.jsonl").write_text("\n".join(json.dumps(r) for r in records), encoding="utf-8")
    return root


GOOD = {"id": "g", "patient": "p", "images": ["a.png"], "field": "clot"}


def from_labels(tmp_path, records, rule_set="bone_marrow", **changes):
    root = labels(tmp_path, records)
    changes = {
        "source": {"name": "labelled", "root": str(root), "rule_set": rule_set},
        "splits": {"all": 1.0},
        "rows": {"prompt": ["all"]},
        "dialogues": {"mixture": {"standard": 1.0}},
        "max_quarantined": 0.99,
        **changes,
    }
    out = built(tmp_path, **changes)
    return rows(out, "prompt/all"), json.loads((out / "card.json").read_text())["quarantined"]["records"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"field": "blod"}, "node 'quality' has no answer (from field: 'blod')"),
        ({"field": None}, "nothing is known of it"),
        ({"field": "adequate", "blast_fraction": 0.1}, "node 'abnormality' has no answer"),
        ({"images": ["a.png", "gone.png"], "image_turns": [3]}, "image of turn 3: gone.png: no such file"),
        ({"images": ["../secret.png"]}, "leaves the data root"),
        ({"images": []}, "it has no 'images'"),
        ({"patient": ""}, "it has no 'patient'"),
        ({"images": ["a.png", "b.png"], "image_turns": [0]}, "image_turns: got [0]"),
        ({"nested": {"a": 1}}, "column 'nested'"),
    ],
)
def test_a_record_that_cannot_be_used_is_quarantined_with_its_reason(tmp_path, record, reason):
    kept, refused = from_labels(tmp_path, [GOOD, {**GOOD, "id": "bad", "patient": "q", **record}])
    assert len(kept) == 1
    assert refused[0]["id"] == "bad"
    assert reason in refused[0]["reason"]


def test_a_line_that_is_not_json_is_quarantined(tmp_path):
    root = labels(tmp_path, [GOOD])
    (root / "labels.jsonl").write_text(json.dumps(GOOD) + "\n{oops\n[1]\n", encoding="utf-8")
    out = built(
        tmp_path,
        source={"name": "labelled", "root": str(root), "rule_set": "bone_marrow"},
        splits={"all": 1.0}, rows={"prompt": ["all"]}, dialogues={}, max_quarantined=0.9,
    )  # fmt: skip
    records = json.loads((out / "card.json").read_text())["quarantined"]["records"]
    assert [r["id"] for r in records] == ["labels.jsonl record 2", "labels.jsonl record 3"]


def test_several_images_are_kept_in_order_with_their_turns(tmp_path):
    (row,), refused = from_labels(tmp_path, [{**GOOD, "images": ["b.png", "a.png"], "image_turns": [3]}])
    assert not refused
    assert [image.getpixel((0, 0))[0] for image in row["images"]] == [40, 0]
    assert [turn.images for turn in read_dialogue(row["dialogue"]).turns] == [1, 0, 1, 0, 0]


def test_a_table_in_csv_is_read_with_numbers_and_lists(tmp_path):
    root = labels(tmp_path, [])
    (root / "t.csv").write_text(
        "id,patient,images,report,codes,troponin_value\n7,1,a.png;b.png,ST elevation,I214,2.5\n", encoding="utf-8"
    )
    out = built(
        tmp_path,
        source={"name": "labelled", "root": str(root), "rule_set": "ecg_mi", "table": "t.csv"},
        splits={"all": 1.0}, rows={"prompt": ["all"]}, dialogues={},
    )  # fmt: skip
    (row,) = rows(out, "prompt/all")
    assert (row["patient"], len(row["images"])) == ("1", 2)
    assert read_dialogue(row["dialogue"]).gold["diagnosis"] == "stemi"


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(InputError, match=r"labels\.jsonl: no such file"):
        built(tmp_path, source={"name": "labelled", "root": str(tmp_path), "rule_set": "bone_marrow"})
