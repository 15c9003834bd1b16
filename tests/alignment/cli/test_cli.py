"""The command line as a user meets it: one clear sentence and exit code 2 on bad input, never a traceback."""

import json
import os
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.alignment.resuming.test_resume_after_kill import SERVER

TRUTH = {
    "rule_set": "chest_xray@1",
    "findings": {"nodule": {"polarity": "present", "side": "left", "size": "small"}},
}


def alone(*arguments, stdin=""):
    """What the command says, started as a user starts it."""
    command = [sys.executable, "-m", "alignment", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)


def clinalign(*arguments, stdin=""):
    """The same, in a process of the server's, which has imported torch and trl once for all."""
    with tempfile.TemporaryDirectory() as folder:
        given, out, err = (Path(folder) / name for name in ("stdin", "stdout", "stderr"))
        given.write_text(stdin)
        process = SERVER.Process(target=work, args=([*map(str, arguments)], given, out, err, dict(os.environ)))
        process.start()
        process.join(120)
        assert process.exitcode is not None
        return SimpleNamespace(returncode=process.exitcode, stdout=out.read_text(), stderr=err.read_text())


def work(words, given, out, err, env):
    """A process's whole work: the command, whose standard streams are files."""
    os.environ.update(env)
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    sys.stdin, sys.argv = given.open(), ["clinalign", *words]
    from alignment.cli.app import main

    try:
        main()
    finally:
        sys.__stdout__.flush()


def refused(*arguments, stdin="", by=clinalign):
    """The one sentence of a refusal."""
    done = by(*arguments, stdin=stdin)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    return done.stderr


def test_score_adds_score_and_components_to_each_row():
    row = {"response": "There is a small nodule on the left.", "facts": json.dumps(TRUTH)}
    done = alone("score", "finding_f1", stdin=json.dumps(row) + "\n")
    scored = json.loads(done.stdout)
    assert scored["score"] == 1.0
    assert scored["components"]


def test_read_adds_facts_and_the_words_they_were_read_from():
    done = clinalign("read", "chest_xray", stdin='{"text": "No effusion. Small nodule on the left."}\n')
    row = json.loads(done.stdout)
    assert row["facts"]["findings"]["effusion"]["polarity"] == "absent"
    assert row["facts"]["findings"]["nodule"] == {"polarity": "present", "side": "left", "size": "small"}
    assert row["evidence"]["nodule"] == [{"words": "Small nodule on the left.", "cue": ""}]
    assert row["evidence"]["effusion"] == [{"words": "No effusion.", "cue": "no"}]


@pytest.mark.parametrize(
    ("command", "column"), [(["read", "chest_xray"], "text"), (["score", "judge_score"], "response")]
)
@pytest.mark.parametrize("nothing", ["", "\n\n"])
def test_a_filter_that_is_given_no_row_says_so(command, column, nothing):
    wanted = f"standard input holds no row. Write JSON to it, one object a line, each with a '{column}'."
    assert wanted in " ".join(refused(*command, stdin=nothing).split())


def test_read_gives_the_symbol_of_an_answer_to_a_node():
    done = clinalign("read", "ecg_mi", stdin='{"text": "Not a STEMI.", "node": "diagnosis"}\n')
    row = json.loads(done.stdout)
    assert (row["reading"], row["symbol"], row["words"]) == ("not", "stemi", ["STEMI"])


def test_score_judges_the_turns_of_a_dialogue():
    turn = {"node": "region", "gold": "clot", "question": "Which region?", "answer": "A clot."}
    dialogue = {"rule_set": "bone_marrow@1", "scenario": "single", "wording": "train", "turns": [turn]}
    row = {"response": ["It is a clot."], "dialogue": json.dumps(dialogue)}
    done = clinalign("score", "dialogue_consistency", stdin=json.dumps(row) + "\n")
    assert json.loads(done.stdout)["score"] == pytest.approx(0.8)


def test_check_rules_prints_what_a_sound_file_rules():
    shown = json.loads(clinalign("check-rules", "bone_marrow", "--json").stdout)
    assert (shown["valid_tuples"], shown["all_tuples"]) == (5, 288)


def test_check_rules_names_every_fault_with_its_line(tmp_path):
    text = (resources.files("rewards.rule_sets") / "ecg_mi.yaml").read_text(encoding="utf-8")
    broken = tmp_path / "ecg.yaml"
    broken.write_text(
        text.replace("final: diagnosis", "final: diagnose").replace("may_contain: [stemi]", "may_contain: []")
    )
    lines = refused("check-rules", broken, by=alone).splitlines()
    assert any("ecg.yaml, line 9: decision.final: no node named 'diagnose'" in line for line in lines)
    assert any("'nstemi' contains 'stemi'" in line for line in lines)


def test_check_rules_counts_labels_outside_the_valid_set(tmp_path):
    data = tmp_path / "labels.jsonl"
    data.write_text('{"id": "a", "field": "clot"}\n{"id": "b", "field": "blod"}\n')
    assert "1 records: node 'quality' has no answer (from field: 'blod'). Records: b" in refused(
        "check-rules", "bone_marrow", "--data", data
    )


def test_rewards_prints_one_json_object():
    listed = json.loads(clinalign("rewards", "--json").stdout)
    assert {"closed_answer", "think_format", "box_overlap", "finding_f1"} <= set(listed)


@pytest.mark.parametrize(
    ("arguments", "stdin", "says"),
    [
        (("score", "finding_f2"), "", "Did you mean 'finding_f1'?"),
        (("score", "box_overlap"), '{"response": "x"}\n', "line 1: 'box_overlap' reads boxes"),
        (("score", "box_overlap"), "{oops\n", "line 1: not JSON"),
        (("read", "chest_xry"), "", "Did you mean 'chest_xray'?"),
        (("read", "ecg_mi"), '{"text": "x", "node": "diagnose"}\n', "Did you mean 'diagnosis'?"),
        (("check-rules", "none.yaml"), "", "no such file"),
        (("check-rules", "chest_xray", "--data", "none.jsonl"), "", "has no decision section"),
        (("train", "recipes/sft/none.yaml"), "", "no such file"),
        (("build", "recipes/data/phantom_chset.yaml"), "", "Did you mean 'phantom_chest.yaml'?"),
        (("eval", "runs/none", "data/none/prompt/test"), "", "no file data/none/prompt/test.parquet"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(arguments, stdin, says):
    assert says in refused(*arguments, stdin=stdin)


def test_inspect_shows_the_row_that_is_asked_for(data):
    shown = json.loads(clinalign("inspect", data / "instruction/sft", "--row", 3, "--json").stdout)
    row = pq.read_table(data / "instruction/sft.parquet").to_pylist()[3]
    assert {name: row[name] for name in shown} == shown
    assert {"id", "patient", "task", "facts"} <= set(shown)


@pytest.mark.slow
def test_check_prints_steps_parameters_and_memory(write_recipe):
    done = clinalign("check", write_recipe(), "--json")
    plan = json.loads(done.stdout)
    assert plan["steps"] == 2
    assert 0 < plan["trainable_parameters"] <= plan["parameters"]
    assert plan["tokens_per_row"] > 0


@pytest.mark.slow
def test_inspect_with_a_model_counts_image_tokens(write_recipe, data, tmp_path):
    path = write_recipe()
    assert clinalign("train", path).returncode == 0
    picture = tmp_path / "seen.png"
    arguments = (data / "instruction/sft", "--model", tmp_path / "sft", "--out", picture, "--json")
    shown = json.loads(clinalign("inspect", *arguments).stdout)
    assert shown["image_tokens"] == 4
    assert shown["trained_tokens"] > 0
    with Image.open(picture) as seen:
        assert seen.size == (64, 64)


@pytest.mark.slow
def test_eval_tells_what_no_metric_judges_and_refuses_rows_of_which_none_can_be(data, tmp_path):
    from alignment.models.tiny import build_tiny

    model = build_tiny(["Yes No nodule"], tmp_path / "tiny", image_size=64)
    rows = pq.read_table(data / "prompt/test.parquet").to_pylist()
    asked = [row for row in rows if row["task"] in ("presence", "report")][:6]
    unknown = [
        row | {"facts": None, "rule_set": None, "answer": None} if row["task"] == "report" else row for row in asked
    ]
    number = sum(row["task"] == "report" for row in unknown)
    for name, content in (("some", unknown), ("none", [row for row in unknown if row["task"] == "report"])):
        pq.write_table(pa.Table.from_pylist(content), tmp_path / f"{name}.parquet")
    done = clinalign("eval", model, tmp_path / "some.parquet", "--out", tmp_path / "out", "--json")
    told = json.loads(done.stdout)
    assert (told["rows"], told["unjudged"]) == (len(unknown), {"report without facts": number})
    assert {"closed_accuracy", "balanced_accuracy"} & told["metrics"]["clean"].keys()
    fault = refused("eval", model, tmp_path / "none.parquet", "--out", tmp_path / "none")
    assert f"no metric judges any of its {number} rows ({number} x report without facts)" in fault
