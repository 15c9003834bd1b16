"""Another program's answers are judged as a model's are, by the ids of their rows."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from alignment.cli.app import app
from alignment.config.generation_section import GenerationSection
from alignment.evaluation.evaluate import evaluate
from alignment.evaluation.evaluation_file import Evaluation
from alignment.evaluation.judgement import judge_answers
from alignment.evaluation.kept_answers import beside
from alignment.models.loading import load_for_inference
from alignment.models.prepared import built_texts
from alignment.models.tiny import build_tiny
from rewards.config.input_error import InputError

LIMIT = 12


@pytest.fixture(scope="module")
def answered(data, tmp_path_factory):
    """A folder with the evaluation of a tiny model, and its answers as another program would write them."""
    out = tmp_path_factory.mktemp("judged")
    texts = list(built_texts(str(data / "prompt/test")))
    model, processor = load_for_inference(str(build_tiny(texts, out / "tiny", image_size=64)))
    how = GenerationSection(max_new_tokens=6)
    evaluate(model, processor, data / "prompt/test", out=out / "whole", limit=LIMIT, generation=how, num_resamples=1000)
    lines = [json.loads(line) for line in (out / "whole" / "answers.jsonl").read_text().splitlines()]
    write(out / "answers.jsonl", [{"id": line["id"], "response": line["responses"]["clean"]} for line in lines])
    return out


def write(path, lines):
    """JSON Lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def lines_of(folder):
    """The answers as they were written."""
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


def test_a_models_answers_in_a_file_have_the_models_figures(answered, data, tmp_path):
    """In any order: answers go to rows by their ids."""
    file = write(tmp_path / "theirs.jsonl", lines_of(answered)[::-1])
    found = judge_answers(file, data / "prompt/test", out=tmp_path / "out", limit=LIMIT)
    assert found.metrics == {"clean": Evaluation.read(answered / "whole").metrics["clean"]}
    assert (found.model_sha256, found.generation, found.max_new_tokens) == (None, {}, {})
    assert Evaluation.read(tmp_path / "out").metrics == found.metrics
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        (lambda lines: lines[1:], r"no answer to 1 of 12 rows of .*, such as "),
        (lambda lines: [*lines, lines[0]], r"theirs.jsonl:13: '.*' has an answer already"),
        (lambda lines: [*lines, {"id": "nobody", "response": "x"}], r"1 answers to no row of .*, such as 'nobody'"),
        (lambda lines: [lines[0] | {"response": None}, *lines[1:]], "theirs.jsonl:1: no 'response'"),
        (lambda lines: [{"response": "x"}, *lines], "theirs.jsonl:1: no 'id'"),
        (lambda lines: [lines[0] | {"response": 3}, *lines[1:]], "theirs.jsonl:1: 'response': got int 3"),
        (lambda lines: [lines[0] | {"response": ["Yes"]}, *lines[1:]], "expected one text"),
    ],
)
def test_answers_that_do_not_fit_the_rows_are_named(answered, data, tmp_path, changed, fault):
    file = write(tmp_path / "theirs.jsonl", changed(lines_of(answered)))
    with pytest.raises(InputError, match=fault):
        judge_answers(file, data / "prompt/test", out=tmp_path / "out", limit=LIMIT)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there_is_named(data, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        judge_answers(tmp_path / "none.jsonl", data / "prompt/test", out=tmp_path / "out")


def test_answers_are_judged_on_a_users_own_questions_by_their_own_ids(tmp_path, monkeypatch):
    """From a CSV of questions and a file of answers, with nothing built by hand."""
    monkeypatch.chdir(tmp_path)
    Image.new("L", (32, 32), 90).save("film.png")
    rows = ["q1,film.png,Is there an effusion?,yes", "q2,film.png,Is there a mass?,no", "q3,film.png,Where?,left base"]
    Path("own.csv").write_text("\n".join(["id,image,question,answer", *rows]), encoding="utf-8")
    given = {"q3": "at the left base", "q1": "Yes.", "q2": "Yes, a small one."}
    write(Path("theirs.jsonl"), [{"id": name, "response": text} for name, text in given.items()])
    done = CliRunner().invoke(app, ["eval", "theirs.jsonl", "own.csv", "--json"])
    assert done.exit_code == 0, done.output
    found = Evaluation.read(Path("evaluations/theirs")).metrics["clean"]
    figures = {name: found[name].value for name in ("closed_accuracy", "closed_accuracy_read", "open_recall")}
    assert figures == {"closed_accuracy": 0.5, "closed_accuracy_read": 0.5, "open_recall": 1.0}
    assert Evaluation.read(Path("evaluations/theirs")).data_card["split"] == "test"
    assert found["rouge_l[open]"].value == pytest.approx(2 * (2 / 4) / (2 / 4 + 1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluations", "film.png", "own.csv", "theirs.jsonl"]


def test_answers_of_another_file_do_not_replace_an_evaluation(answered, data, tmp_path):
    first, second = (write(tmp_path / name, lines_of(answered)) for name in ("a.jsonl", "b.jsonl"))
    judge_answers(first, data / "prompt/test", out=tmp_path / "out", limit=LIMIT)
    judge_answers(first, data / "prompt/test", out=tmp_path / "out", limit=LIMIT)
    with pytest.raises(InputError, match=r"holds the evaluation of .*a\.jsonl\. Name another --out"):
        judge_answers(second, data / "prompt/test", out=tmp_path / "out", limit=LIMIT)


def test_an_evaluation_is_not_compared_with_itself(answered, data, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    file, whole = answered / "answers.jsonl", str(answered / "whole")
    done = CliRunner().invoke(app, ["eval", str(file), str(data / "prompt/test"), "--out", whole, "--against", whole])
    assert done.exit_code == 2
    assert "is where this evaluation goes" in done.stderr
    done = CliRunner().invoke(app, ["eval", str(file), str(data / "prompt/test"), "--against", "nowhere"])
    assert "nowhere" in done.stderr


@pytest.mark.parametrize(
    ("name", "folder"), [("released/x", "evaluations/released--x"), ("Org/M-7B.v2", "evaluations/Org--M-7B.v2")]
)
def test_nothing_is_written_into_a_release_or_a_model_of_others(name, folder, monkeypatch, tmp_path):
    """Its folder may be handed on, and answers hold patients."""
    monkeypatch.chdir(tmp_path)
    Path("released/x").mkdir(parents=True)
    Path("released/x/config.json").write_text("{}")
    assert beside(name) == Path(folder)
    Path("runs/own").mkdir(parents=True)
    Path("runs/own/recipe.resolved.yaml").write_text("{}")
    assert beside("runs/own") == Path("runs/own")
