"""A law over every reader, importer and reward: twice the text takes at most three times the time.

Time is the processor's own, the least of several runs; what takes under 25 ms for 8,000 characters is linear enough.
"""

import json
import re
import time
from functools import partial

import pytest

from data_builders.curriculum_checks import agreed, opinion
from data_builders.hallucination_checks import fault_of_rejected
from data_builders.preference_formats import read_pairs
from data_builders.report_facts import report_facts
from rewards.assertion import assertions
from rewards.box_reading import read_boxes
from rewards.box_text import is_empty_list, labelled_boxes, parse_boxes
from rewards.choice_answer import option_named
from rewards.cider import cider_d
from rewards.closed_options import chosen, presence_options
from rewards.consultation import read_dialogue
from rewards.debate import read_score
from rewards.declining import declines, doubts, turns_round
from rewards.dialogue import decision_of
from rewards.json_lines import json_lines
from rewards.judging import quoted, read_verdict
from rewards.label_accuracy import labels, polarity
from rewards.laterality import near_words, side_of
from rewards.llm_checks import ItemChecks
from rewards.llm_lists import Item, parse_items
from rewards.llm_reply import completion_from
from rewards.loading import available, load_reward
from rewards.measurements import is_number, measurements, number_matches
from rewards.normal_phrases import normal_pattern, phrases_in
from rewards.printable import printable
from rewards.reading import phrase_pattern, read
from rewards.rule_set import FindingRule, load_rule_set
from rewards.sections import sentences
from rewards.symbols import read_symbol
from rewards.text import answer_region, num_words
from rewards.yaml_nodes import bounded_yaml, yaml

CHEST, RETINA = load_rule_set("chest_xray"), load_rule_set("retina_amd")
PRESENCE = presence_options(FindingRule(phrases=["nodule", "nodules"]))
DIAGNOSIS = decision_of("ecg_mi").nodes["diagnosis"]
NORMAL = normal_pattern({"no acute disease": ["effusion"], "lungs are clear": ["effusion"]})
TRUTH = (
    '{"rule_set":"chest_xray@1","findings":{"nodule":{"polarity":"present","side":"left","size":"small"},'
    '"effusion":{"polarity":"absent"}}}'
)
DIALOGUE = (
    '{"rule_set":"bone_marrow@1","scenario":"standard","wording":"train","turns":['
    '{"node":"quality","gold":"high","question":"?","answer":"The image is of high quality."},'
    '{"node":"region","gold":"adequate","question":"?","answer":"The region is adequate."}]}'
)
COLUMNS = {
    "answer": "left", "boxes": [[0, 0, 10, 10]], "box_images": [1], "facts": TRUTH, "options": ["left", "no"],
    "task": "report", "completion_ids": None, "dialogue": DIALOGUE, "box_grid": 100,
}  # fmt: skip


def rewarded(name, text):
    reward = load_reward(name)
    return reward(
        text, **{column: COLUMNS[column] for column in (*reward.columns, *reward.optional) if column in COLUMNS}
    )


def read_json(text):
    return list(json_lines([json.dumps({"text": text})])), completion_from(
        json.dumps({"choices": [{"message": {"content": text}}]}).encode()
    )


def read_yaml_text(text):
    try:
        return bounded_yaml(f"a: {text}")
    except yaml.YAMLError:
        return None


def imported_pairs(folder, text):
    """A file of pairs whose words are all this text."""
    file = folder / "pairs.jsonl"
    file.write_text(json.dumps({"prompt": text, "chosen": text, "rejected": f"{text}x", "images": ["a.png"]}))
    return read_pairs(file, "trl")


READERS = {
    "read": lambda text: read(text, CHEST),
    "read of the retina": lambda text: read(text, RETINA),
    "sentences": lambda text: list(sentences(text)),
    "assertions": lambda text: assertions(text, [(0, 1)]),
    "phrases_in": lambda text: list(phrases_in(text, NORMAL)),
    "side_of": lambda text: side_of(near_words(text, text, first=True, last=False), ["left", "right"]),
    "read_symbol": lambda text: read_symbol(text, DIAGNOSIS),
    "chosen": lambda text: chosen(text, PRESENCE),
    "declines": lambda text: (declines(text), doubts(text), turns_round(text)),
    "option_named": lambda text: option_named(text, ["yes", "no", "CT scan"]),
    "measurements": lambda text: (measurements(text, bare=True), is_number(text)),
    "number_matches": lambda text: number_matches(text, "5 mg", tolerance=0.1),
    "parse_boxes": lambda text: (parse_boxes(text), is_empty_list(text)),
    "read_boxes": read_boxes,
    "labelled_boxes": lambda text: labelled_boxes(text, phrase_pattern(CHEST)),
    "labels": lambda text: (labels(text, {}), polarity(text)),
    "parse_items": parse_items,
    "read_verdict": lambda text: (read_verdict(text, "0f", ["accuracy"]), quoted(text)),
    "read_score": read_score,
    "item checks": lambda text: ItemChecks()(Item(text, text), [Item(text, "x")]),
    "answer_region": lambda text: (answer_region(text), num_words(text), printable(text)),
    "consultation": lambda text: read_dialogue(f"Patient: {text}"),
    "json": read_json,
    "yaml": read_yaml_text,
    "report_facts": lambda text: report_facts(text, RETINA, eye="left"),
    "curriculum checks": lambda text: (opinion(text), agreed(text, False, "retina_amd")),
    "fault_of_rejected": lambda text: fault_of_rejected(text, f"{text} x"),
    "cider_d": lambda text: cider_d([text, "a"], [text, "b"]),
    **{f"reward {name}": partial(rewarded, name) for name in available()},
}
SHAPES = [
    ("findings.", " ", "x"), ("no nodule", "\n ", "x"), ("answer: a", " ", "x" * 401), ("1", " ", "! x"),
    ("", ".", "x"),
    ("a", "*", "b"), ("x\n", "\n", "x"), ("", "past ", "x"), ("", "no ", "x"), ("", "[[", ""), ("", "1,", ""),
    ("<think>", "</think><answer>", ""), ("", "(", ""), ("", '"', ""), ("{", "{", "}"), ("", "nodule, ", ""),
]  # fmt: skip
UNITS = [
    " ", "\t", "\n", " \n", ", ", ",\n", "x\n", "(", "[", "{", "<", '"', "'", "a", "1", "1 ", "1.", "1,", "-", "*",
    "_", ":", "?", ". ", ".\n", "not ", "n't ", "and ", "or\n", "left ", "the left and ", "nodule ", "no nodule, ",
    "history ", "there is no ", "without any ", "findings: ", "<think>", "</think>", "<answer>", "<box>",
    "[1,2,3,4]", "(1,2),", "x1:", "```", "Q: ", "A: ", "answer ", "answer: a ", "1 mm ", "heart ", "image 2 ",
    "{'a': 1} ", "\u00e9", "\u00a0", "either ",
]  # fmt: skip
AROUND = [("", ""), (".", "x"), ("\n", "x"), ("no nodule", "x"), ("<answer>", "</answer>"), ("1", "!"), ("of", "\nx")]


def seconds(reader, text, runs):
    least = float("inf")
    for _ in range(runs):
        started = time.process_time()
        reader(text)
        least = min(least, time.process_time() - started)
    return least


def text_of(shape, size):
    before, unit, behind = shape
    return before + (unit * (size // len(unit) + 1))[:size] + behind


def growth(reader, shape, size):
    """How many times longer twice the text takes; the least of three measurements where it seems too much."""
    short, long = text_of(shape, size), text_of(shape, 2 * size)
    if (took := seconds(reader, long, 1)) < 0.025:
        return 1.0
    found = took / seconds(reader, short, 1)
    for _ in range(3):
        found = min(found, seconds(reader, long, 2) / seconds(reader, short, 2)) if found > 3 else found
    return found


@pytest.mark.parametrize("name", READERS)
def test_twice_the_text_takes_at_most_three_times_as_long(name):
    READERS[name]("warm")
    slow = {shape: growth for shape in SHAPES if (growth := growth_of(name, shape, 4000)) > 3}
    assert not slow


def growth_of(name, shape, size):
    return growth(READERS[name], shape, size)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_no_text_of_any_shape_takes_more_than_three_times_as_long_at_twice_its_size(name):
    shapes = [(before, unit, behind) for unit in UNITS for before, behind in AROUND]
    pairs = [(a * 2000, b, "x") for a in UNITS[:20] for b in UNITS[:20]]
    slow = {shape: growth for shape in (*shapes, *pairs) if (growth := growth_of(name, shape, 4000)) > 3}
    assert not slow


@pytest.mark.parametrize("shape", SHAPES)
def test_pairs_of_a_file_are_imported_in_linear_time(tmp_path, shape):
    assert growth(partial(imported_pairs, tmp_path), shape, 4000) <= 3


def test_the_law_sees_a_quadratic_expression():
    quadratic = re.compile(r"[ ]+x$")
    assert growth(quadratic.search, ("", " ", "y"), 4000) > 3
