"""JSON of others: whatever its bytes are, each reader of a file says so in one sentence, and no reader of a reply ends.

``HOSTILE`` are the values that Python's own reader answers with a traceback, or that nobody could write again.
"""

import ast
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignment.checks.trainer_faults import package_faults
from alignment.config.checkpoint_folders import reward_model_folder
from alignment.config.foreign_code import refuse_foreign_code
from alignment.config.model_files import check_model_files
from alignment.evaluation.contests import contests
from alignment.evaluation.evaluation_file import Evaluation
from alignment.evaluation.operating_points import read_points
from alignment.evaluation.report import write_report
from alignment.loop.figures import figures
from alignment.provenance.lineage import run_records
from alignment.release.manifest import verify
from alignment.resuming.checkpoints import MANIFEST as SEAL
from alignment.resuming.checkpoints import fault
from alignment.resuming.ledger import proof
from data_builders.build.preference_set import read_scores
from data_builders.cards import card_of_rows
from data_builders.formats.preference_formats import FORMATS, read_pairs
from data_builders.pairs.llm_hallucinations import Request, written
from data_builders.schema import provenance_of
from data_builders.sources.images.labelled import labelled
from data_builders.sources.questions.slake import slake
from data_builders.sources.questions.vqa_rad import vqa_rad
from data_builders.sources.tables.table import table
from rewards.config.input_error import InputError
from rewards.config.json_lines import MAX_NESTING, json_lines, json_value, read_json, read_json_lines, read_json_list
from rewards.judges.consultation import Consultation, read_cmtmedqa
from rewards.judges.debate import read_score
from rewards.judges.judging import read_verdict
from rewards.llm.client import Transient
from rewards.llm.item_lists import parse_items
from rewards.llm.reply import completion_from
from rewards.llm.reply_cache import AppendLog
from rewards.row_types import row_faults

ROOT = Path(__file__).parents[1]
DEEP = MAX_NESTING + 1
HOSTILE = {
    "nesting without end": b"[" * 100_000,
    "nesting that Python reads": b"[" * DEEP + b"1" + b"]" * DEEP,
    "objects without end": b'{"a":' * 100_000,
    "an integer of 5,000 digits": b"9" * 5000,
    "half a character": b'"\\ud800"',
    "no UTF-8": b'"\xff"',
    "no value": b"",
    "a word": b"oops",
}
OF_PYTHON = {"NaN": b"NaN", "Infinity": b"-Infinity", "beyond a float": b"1e999"}
"""What clinalign itself writes where a figure is not known, and no other program may."""


SAID = ("not JSON", "UTF-8", "half a character", "not readable", "not the manifest of a release", "no safetensors file")
"""What tells a refusal of these bytes from a refusal of anything else."""


def in_object(value):
    return b'{"id": "a", "a": ' + value + b"}"


def in_list(value):
    return b'[{"id": "a", "a": ' + value + b"}]"


def sources(reader, name, folder):
    """A reader of a published set, one of whose files is spoilt."""

    def read(path, content):
        (path / folder).mkdir()
        for file in ("train.json", "validate.json", "test.json"):
            (path / file).write_bytes(b"[]")
        (path / name).write_bytes(content)
        return list(reader(root=path))

    return read


def of_file(reader, name="pairs.json"):
    def read(path, content):
        (path / name).write_bytes(content)
        return reader(path / name)

    return read


def of_folder(reader, name, **others):
    """A reader of a folder in which file ``name`` is spoilt and the others are sound."""

    def read(path, content):
        for other, text in others.items():
            (path / other.replace("__", ".")).write_text(text)
        (path / name).write_bytes(content)
        return reader(path)

    return read


def tabled(path, content):
    (path / "t.jsonl").write_bytes(content)
    return list(table(root=path, rule_set="chest_xray", table="t.jsonl"))


def set_aside(path, content):
    """A record that cannot be read is set aside, with the reason."""
    (path / "labels.jsonl").write_bytes(content)
    (record,) = labelled(root=path, rule_set="chest_xray")
    raise InputError(f"labels.jsonl: {record.reason}")


def header(path, content):
    (path / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)
    check_model_files(path)


def config_of_deepspeed(path, content):
    (path / "zero2.json").write_bytes(content)
    (found,) = package_faults({"deepspeed": str(path / "zero2.json")})
    raise InputError(found)


def seal_of_checkpoint(path, content):
    (path / SEAL).write_bytes(content)
    raise InputError(str(fault(path)))


def data_cards(path, content):
    (path / "card.json").write_bytes(content)
    pq.write_table(pa.table({"id": ["a"]}), path / "x.parquet")
    return card_of_rows(path / "x.parquet")


def probed(path, content):
    (path / "blindness.json").write_bytes(content)
    return figures("probe/clean/closed_accuracy", path, path)


def trained(path, content):
    (path / "stage").mkdir()
    (path / "log.jsonl").write_bytes(content)
    return figures("train/loss", path / "stage", path / "stage")


OTHERS_OBJECTS = {
    "table": tabled,
    "labelled": set_aside,
    **{f"pairs, {shape} lines": of_file(lambda file, shape=shape: read_pairs(file, shape)) for shape in FORMATS},
    "scores": of_file(read_scores, "scores.json"),
    "lines": of_file(lambda file: list(json_lines(file.read_bytes().split(b"\n"), location=f"{file}:"))),
    "DeepSpeed": config_of_deepspeed,
    "header of weights": header,
}
"""Readers of what other programs wrote, an object each (or one a line)."""
OTHERS_LISTS = {
    "vqa_rad": sources(vqa_rad, "VQA_RAD Dataset Public.json", "VQA_RAD Image Folder"),
    "slake": sources(slake, "test.json", "imgs"),
    **{f"pairs, {shape} list": of_file(lambda file, shape=shape: read_pairs(file, shape)) for shape in FORMATS},
    "cmtmedqa": of_file(lambda file: list(read_cmtmedqa(file))),
    "a list": of_file(lambda file: read_json_list(file, "Mend it.")),
}
OWN_OBJECTS = {
    "an object": of_file(lambda file: read_json(file, "Mend it.")),
    "own lines": of_file(lambda file: read_json_lines(file, "Mend it.")),
    "evaluation": of_folder(Evaluation.read, "evaluation.json"),
    "report": of_folder(lambda path: write_report({"a": path}, path / "r.html"), "evaluation.json", answers__jsonl=""),
    "answers": of_folder(lambda path: write_report({"a": path}, path / "r"), "answers.jsonl", evaluation__json="{}"),
    "contest": of_folder(lambda path: contests((path, "clean"), [(path, "clean")]), "answers.jsonl"),
    "probe": probed,
    "log": trained,
    "manifest of a release": of_folder(verify, "manifest.json"),
    "provenance of a run": of_folder(
        run_records, "provenance.json", recipe__resolved__yaml="{method: sft, model: {path: tiny}}"
    ),
    "code of a model": of_folder(refuse_foreign_code, "tokenizer_config.json"),
    "config of a model": of_folder(check_model_files, "config.json"),
    "shards of a model": of_folder(check_model_files, "model.safetensors.index.json"),
    "reward model": of_folder(lambda path: reward_model_folder(str(path)), "config.json"),
    "adapter of a reward model": of_folder(lambda path: reward_model_folder(str(path)), "adapter_config.json"),
    "seal of a checkpoint": seal_of_checkpoint,
    "card of a data set": data_cards,
}
"""Readers of what clinalign or a library wrote, in a folder that anybody may have changed."""


def cases(readers, wrap, values):
    return [
        pytest.param(reader, wrap(value), id=f"{name}: {what}")
        for name, reader in readers.items()
        for what, value in values.items()
    ]


@pytest.mark.parametrize(
    ("reader", "content"),
    [
        *cases(OTHERS_OBJECTS, in_object, HOSTILE | OF_PYTHON),
        *cases(OTHERS_LISTS, in_list, HOSTILE | OF_PYTHON),
        *cases(OWN_OBJECTS, in_object, HOSTILE),
        *cases({"points": of_folder(read_points, "operating_points.json")}, in_list, HOSTILE),
    ],
)
def test_a_file_is_refused_in_one_sentence_that_names_it(reader, content, tmp_path):
    with pytest.raises(InputError) as told:
        reader(tmp_path, content)
    (sentence,) = str(told.value).splitlines()
    assert sentence.isprintable()
    assert len(sentence) < 500
    assert any(name in sentence for name in (str(tmp_path), "labels.jsonl", SEAL))
    assert any(sign in sentence for sign in SAID)


def test_a_fault_of_json_lines_is_told_with_its_line(tmp_path):
    (tmp_path / "p.jsonl").write_bytes(b'{"prompt": "a"}\n\n{"id": ' + b"9" * 5000 + b"}\n")
    _, found = read_pairs(tmp_path / "p.jsonl", "trl")
    assert [one.location for one in found] == ["line 1", "line 3"]
    (tmp_path / "p.jsonl").write_bytes(b'\n\n{"id": ' + b"9" * 5000 + b"}\n")
    with pytest.raises(InputError, match=r"p\.jsonl: line 3: not JSON \(Exceeds the limit"):
        read_pairs(tmp_path / "p.jsonl", "trl")


def test_a_fault_of_a_list_is_told_with_its_line(tmp_path):
    (tmp_path / "p.json").write_bytes(b'[{"id": 1},\n{"id": oops}]\n')
    with pytest.raises(InputError, match=r"p\.json: not JSON \(Expecting value, line 2\)"):
        read_pairs(tmp_path / "p.json", "trl")


def test_a_line_separator_within_words_ends_no_line(tmp_path):
    record = {"prompt": "a\u2028b", "chosen": "c", "rejected": "d", "images": ["a.png"]}
    (tmp_path / "p.jsonl").write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    _, (pair,) = read_pairs(tmp_path / "p.jsonl", "trl")
    assert pair.question == "a\u2028b"


def test_nesting_up_to_the_limit_is_read():
    text = "[" * MAX_NESTING + "]" * MAX_NESTING
    assert json.dumps(json_value(text, "", "")) == text
    assert json_value(json.dumps([[1]] * 5000), "", "") == [[1]] * 5000
    with pytest.raises(InputError, match="nested too deeply"):
        json_value(f"[{text}]", "", "")


def test_a_csv_of_labels_that_cannot_be_read_is_named(tmp_path):
    for content in (b"id,patient,images\n\xff,1,\n", b"id,patient,images\n" + b"x" * 200_000):
        (tmp_path / "t.csv").write_bytes(content)
        with pytest.raises(InputError, match=r"t\.csv: line 2: not "):
            list(labelled(root=tmp_path, rule_set="chest_xray", table="t.csv"))


@pytest.mark.parametrize("value", [*HOSTILE.values(), *OF_PYTHON.values(), b"null", b"[]", b"{}", b"1"])
def test_no_reply_ends_its_reader(value):
    for body in (value, in_object(value), in_list(value), b'{"choices": ' + value + b"}"):
        with pytest.raises(Transient):
            completion_from(body)
        text = body.decode("utf-8", "replace")
        assert read_verdict(f"VERDICT 0f {text}", "0f", ["accuracy"]) is None
        assert read_score(text) is None
        assert parse_items(text).items == []
        request = Request(id="a", question="?", truth="No nodule.", facts=None)
        assert written(request, text) == ("", "no JSON with an answer")


@pytest.mark.parametrize("value", HOSTILE.values())
def test_what_a_row_tells_of_itself_is_judged_before_it_is_read(value):
    row = {"id": "p1", "provenance": in_object(value).decode("utf-8", "replace"), "capability": "yes_no"}
    if b"\xff" in value:
        return  # a text is never that
    with pytest.raises(InputError, match=r"^row p1: 'provenance': "):
        provenance_of(row)
    assert any("'provenance'" in told for told in row_faults(row))
    assert not list(row_faults(row | {"capability": None}))


def test_an_entry_of_a_cache_that_nobody_can_read_counts_as_damaged(tmp_path):
    from zlib import crc32

    lines = [b'{"a": ' + b"9" * 5000 + b"}", b"[1]", b"[" * 100_000, b'{"a": 1}']
    (tmp_path / "log").write_bytes(b"".join(f"{crc32(body):08x} ".encode() + body + b"\n" for body in lines))
    log = AppendLog(tmp_path / "log")
    assert (list(log.unread()), log.damaged) == ([{"a": 1}], 3)


def test_a_ledger_that_was_damaged_names_its_file(tmp_path):
    folder = tmp_path / "ledger"
    folder.mkdir()
    (folder / "plan.json").write_text('{"processes": 1}')
    (folder / "rank0.jsonl").write_text("oops\n")
    with pytest.raises(InputError, match=r"rank0\.jsonl:1: not JSON"):
        proof(tmp_path)


def test_consultations_are_still_read(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps([{"instruction": "a", "output": "b", "history": []}]))
    (one,) = read_cmtmedqa(tmp_path / "c.json")
    assert isinstance(one, Consultation)


READS_ITS_OWN = {
    ("kept_state.py", "json.loads"): "the tree in a checkpoint's state, whose seal was checked",
    ("ranks.py", "json.loads"): "what a process of the same launch wrote",
    ("side_by_side.py", "json.loads"): "a line through a pipe from the process that it started",
    ("worker.py", "json.loads"): "the settings that side_by_side.py wrote for it",
    ("item_lists.py", "json.JSONDecoder"): "the objects within a reply, whose every fault it passes over",
}


def test_json_is_parsed_in_the_shared_reader_and_in_named_places_alone():
    """A new reader cannot forget; pydantic's own parser names its faults itself."""
    found = set()
    for file in [f for floor in ("alignment", "data_builders", "rewards") for f in (ROOT / floor).rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "json":
                found.add((file.name, "from json import"))
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("json.loads", "json.load", "json.JSONDecoder"):
                found.add((file.name, ast.unparse(node)))
            if isinstance(node, ast.Import) and any(a.name in ("simplejson", "orjson", "ujson") for a in node.names):
                found.add((file.name, "another parser"))
    assert found == {*READS_ITS_OWN, ("json_lines.py", "json.loads")}
