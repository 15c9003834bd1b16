"""A law over every reader, importer and reward: twice the text takes at most three times the time.

Time is the processor's own, the least of several runs of the short and the long text in turn, so that a busy machine
slows both; what takes under 25 ms for 8,000 characters is linear enough.
"""

import csv
import gc
import json
import re
import time
from functools import partial
from xml.sax.saxutils import escape

import pytest
from PIL import Image

from alignment.release.released_model import without_comments
from data_builders.build.build_spec import read_spec
from data_builders.build.gallery import marked
from data_builders.curriculum.checks import agreed, opinion
from data_builders.curriculum.item_checks import ItemChecks
from data_builders.formats.pairs import Pair, survey
from data_builders.formats.preference_formats import FORMATS, read_pairs
from data_builders.pairs.hallucination_checks import fault_of_rejected
from data_builders.rendering.report_facts import report_facts
from data_builders.schema import Written
from data_builders.sources.images.bccd import bccd
from data_builders.sources.images.iu_xray import iu_xray
from data_builders.sources.images.labelled import labelled
from data_builders.sources.images.open_i import open_i
from data_builders.sources.questions.path_vqa import SPLITS, path_vqa
from data_builders.sources.questions.slake import slake
from data_builders.sources.questions.vqa_rad import vqa_rad
from data_builders.sources.tables.table import column_map, table
from rewards.answers.choice_answer import option_named
from rewards.answers.declining import declines, doubts, turns_round
from rewards.answers.final_answer import answer_region, num_words
from rewards.answers.label_accuracy import labels, polarity
from rewards.answers.measurements import is_number, measurements, number_matches
from rewards.boxes.reading import read_boxes
from rewards.config.input_error import InputError
from rewards.config.json_lines import json_lines, json_reply
from rewards.config.printable import printable
from rewards.config.yaml_nodes import bounded_yaml, yaml
from rewards.dialogues.dialogue import decision_of
from rewards.judges.consultation import read_cmtmedqa, read_dialogue, read_meddiagnose
from rewards.judges.debate import read_score
from rewards.judges.judging import quoted, read_verdict
from rewards.llm.item_lists import Item, parse_items
from rewards.llm.reply import completion_from
from rewards.loading import available, load_reward
from rewards.reading.assertion import lowered, lowered_assertions
from rewards.reading.box_text import is_empty_list, labelled_boxes, parse_boxes
from rewards.reading.closed_options import chosen, level_options
from rewards.reading.laterality import near_words, side_of
from rewards.reading.normal_phrases import normal_pattern, phrases_in
from rewards.reading.reading import phrase_pattern, read
from rewards.reading.sections import sentences
from rewards.reports.cider import cider_d
from rewards.reports.report_metrics import rouge_l_f1
from rewards.rules.guidelines import together
from rewards.rules.rule_set import load_rule_set
from rewards.rules.symbols import read_symbol

CHEST, RETINA = load_rule_set("chest_xray"), load_rule_set("retina_amd")
REFERRAL = level_options(together(("retina_amd@1", "retina_referral@2"))[0].scales["referral"])
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


WORDS = {
    "mmedpo": lambda text: {
        "id": "a", "image": "a.png", "weighted_score": 1.0,
        "conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": text}],
        "rejected_conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": f"{text}x"}],
    },
    "ms_swift": lambda text: {
        "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}],
        "rejected_response": f"{text}x", "images": ["a.png"],
    },
    "trl": lambda text: {"prompt": text, "chosen": text, "rejected": f"{text}x", "images": ["a.png"]},
}  # fmt: skip
WORDS["llava"] = WORDS["mmedpo"]


def imported_pairs(shape, folder, text):
    """A file of pairs whose words are all this text."""
    file = folder / "pairs.jsonl"
    file.write_text(json.dumps(WORDS[shape](text)))
    return survey([pair for pair in read_pairs(file, shape)[1] if isinstance(pair, Pair)])


def as_csv(file, row):
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, list(row))
        writer.writeheader()
        writer.writerow(row)


def from_table(folder, text):
    row = {"id": "a", "patient": "p", "image": "a.png", "report": text, "nodule": "", "note": text}
    as_csv(folder / "table.csv", row)
    return list(table(root=folder, rule_set="chest_xray"))


def from_cells(folder, text):
    """A column's cell of which the map knows no entry, and numbers that are none."""
    (folder / "map.yaml").write_text("means: {said: {a: {nodule: present}}}\n")
    as_csv(folder / "table.csv", {"id": "a", "patient": "p", "image": "a.png", "said": f"{text};{text}"})
    return list(table(root=folder, rule_set="chest_xray", columns=str(folder / "map.yaml")))


def from_labels(folder, text):
    row = {"id": "a", "patient": "p", "images": "a.png", "note": text}
    as_csv(folder / "labels.csv", row)
    (folder / "labels.jsonl").write_text(json.dumps(row | {"images": ["a.png"]}))
    return [list(labelled(root=folder, rule_set="chest_xray", table=f"labels.{kind}")) for kind in ("csv", "jsonl")]


def from_xml(text):
    return escape("".join(c for c in text if c.isprintable() or c in "\t\n"))


def from_open_i(folder, text):
    said = from_xml(text)
    (folder / "xml").mkdir(exist_ok=True)
    (folder / "xml" / "1.xml").write_text(
        f'<a><AbstractText Label="FINDINGS">{said}.</AbstractText><major>{said}a</major><major>{said}/b</major></a>'
    )
    (report,) = open_i(folder / "xml")
    return report.findings, report.text


def from_iu_xray(folder, text):
    for name in ("ecgen-radiology", "NLMCXR_png"):
        (folder / name).mkdir(exist_ok=True)
    picture = (folder / "a.png").read_bytes()
    (folder / "NLMCXR_png" / "a.png").write_bytes(picture)
    (folder / "ecgen-radiology" / "1.xml").write_text(
        f'<a><AbstractText Label="FINDINGS">{from_xml(text)}.</AbstractText><parentImage id="a"/></a>'
    )
    (row,) = iu_xray(root=folder)
    assert isinstance(row, Written)
    return row


def from_bccd(folder, text):
    for name in ("Annotations", "JPEGImages"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "JPEGImages" / "a.jpg").write_bytes((folder / "a.png").read_bytes())
    (folder / "Annotations" / "a.xml").write_text(
        f"<annotation><filename>a.jpg</filename><object><name>RBC</name><bndbox><xmin>{from_xml(text)}</xmin>"
        "<ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object></annotation>"
    )
    return list(bccd(root=folder))


def from_questions(folder, text):
    pictures = ("VQA_RAD Image Folder/a.png", "imgs/a.png", *(f"images/{split}/a.jpg" for split in SPLITS))
    for name in (*pictures, *(f"qas/{split}/x" for split in SPLITS)):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes((folder / "a.png").read_bytes())
    record = {"image_name": "a.png", "img_name": "a.png", "image": "a", "question": text, "answer": text}
    record |= {"q_lang": "en", "answer_type": text, "phrase_type": text}
    content = json.dumps([record])
    for name in ("VQA_RAD Dataset Public", "train", "validate", "test"):
        (folder / f"{name}.json").write_text(content)
    for split in SPLITS:
        (folder / "qas" / split / f"{split}_qa.json").write_text(content)
    found = [row for reader in (vqa_rad, slake, path_vqa) for row in reader(root=folder)]
    assert [type(row) for row in found] == [Written] * 7  # a row set aside would be read half
    return found


def from_consultations(folder, text):
    (folder / "c.json").write_text(json.dumps([{"instruction": text, "output": text, "history": [[text, text]]}]))
    as_csv(folder / "c.csv", {"Id": "a", "Response": f"Patient: {text}\nDoctor: {text}"})
    return list(read_cmtmedqa(folder / "c.json")), list(read_meddiagnose(folder / "c.csv"))


def refused(read):
    try:
        return read()
    except InputError as fault:
        return str(fault)


def from_nonsense(folder, text):
    """The text itself as the file that each importer reads."""
    names = ("t.json", "t.jsonl", "t.csv", "t.tsv", "spec.yaml")
    for name in names:
        (folder / name).write_text(text, encoding="utf-8")
    tabled = partial(table, root=folder, rule_set="chest_xray")
    readers = [
        *(lambda name=name: list(tabled(table=name)) for name in names[:4]),
        *(lambda name=name: list(labelled(root=folder, rule_set="chest_xray", table=name)) for name in names[1:3]),
        *(lambda shape=shape: read_pairs(folder / "t.json", shape) for shape in FORMATS),
        lambda: list(read_cmtmedqa(folder / "t.json")),
        lambda: list(read_meddiagnose(folder / "t.csv")),
        lambda: column_map(str(folder / "spec.yaml")),
        lambda: read_spec(folder / "spec.yaml", []),
    ]
    return [refused(read) for read in readers]


IMPORTERS = {
    **{f"pairs of {shape}": partial(imported_pairs, shape) for shape in FORMATS},
    "table": from_table, "table's cells": from_cells, "labelled": from_labels, "open_i": from_open_i,
    "iu_xray": from_iu_xray, "bccd": from_bccd, "vqa_rad, slake, path_vqa": from_questions,
    "consultations": from_consultations, "nonsense": from_nonsense,
}  # fmt: skip
"""Each reads from a folder in which it first writes the text where that importer's files have words."""


READERS = {
    "read": lambda text: read(text, CHEST),
    "read of the retina": lambda text: read(text, RETINA),
    "sentences": lambda text: list(sentences(text)),
    "assertions": lambda text: lowered_assertions(lowered(text), [(0, 1)]),
    "phrases_in": lambda text: list(phrases_in(text, NORMAL)),
    "side_of": lambda text: side_of(near_words(text, text, first=True, last=False), ["left", "right"]),
    "read_symbol": lambda text: read_symbol(text, DIAGNOSIS),
    "chosen": lambda text: chosen(text, REFERRAL),
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
    "rouge_l_f1": lambda text: rouge_l_f1(text, f"{text} x"),
    "gallery": lambda text: marked(text, f"x {text}"),
    "json of a reply": json_reply,
    "template": without_comments,
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


ENOUGH_S = 0.025


def seconds(reader, text):
    gc.disable()
    try:
        started = time.process_time()
        reader(text)
        return time.process_time() - started
    finally:
        gc.enable()


def text_of(shape, size):
    before, unit, behind = shape
    return before + (unit * (size // len(unit) + 1))[:size] + behind


def growth(reader, shape, size, *, rounds=10):
    """How many times longer twice the text takes, by the least time of each; measured on while it seems too much."""
    short, long = text_of(shape, size), text_of(shape, 2 * size)
    for_long, for_short = seconds(reader, long), float("inf")
    for done in range(rounds):
        if for_long < ENOUGH_S:
            return 1.0
        for_short = min(for_short, seconds(reader, short))
        for_long = min(for_long, seconds(reader, long))
        if done >= 2 and for_long <= 2.5 * for_short:
            break
    return for_long / for_short


def too_slow(reader, shapes):
    reader("warm")
    return {shape: times for shape in shapes if (times := growth(reader, shape, 4000)) > 3}


@pytest.fixture
def reader_of(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    return lambda name: READERS[name] if name in READERS else partial(IMPORTERS[name], tmp_path)


@pytest.mark.parametrize("name", [*READERS, *IMPORTERS])
def test_twice_the_text_takes_at_most_three_times_as_long(name, reader_of):
    assert not too_slow(reader_of(name), SHAPES)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*READERS, *IMPORTERS])
def test_no_text_of_any_shape_takes_more_than_three_times_as_long_at_twice_its_size(name, reader_of):
    shapes = [(before, unit, behind) for unit in UNITS for before, behind in AROUND]
    pairs = [(a * 2000, b, "x") for a in UNITS[:20] for b in UNITS[:20]]
    assert not too_slow(reader_of(name), (*shapes, *pairs))


@pytest.mark.parametrize(("expression", "size"), [(r"[ ]+x$", 12_000), (r"[ ]+[ ]+x$", 400)])
def test_the_law_sees_an_expression_that_is_quadratic_or_worse(expression, size):
    assert growth(re.compile(expression).search, ("", " ", "y"), size) > 3


@pytest.mark.parametrize("metric", ["rouge_l", "bleu"])
def test_a_report_of_100_000_words_against_as_many_is_rewarded_within_seconds(metric):
    said, true = " ".join(f"a{k}" for k in range(100_000)), "a1 " * 100_000
    started = time.process_time()
    assert load_reward("report_overlap", metric=metric)(said, answer=true, facts=None) < 0.01
    rouge_l_f1(said, true)
    assert time.process_time() - started < 20
