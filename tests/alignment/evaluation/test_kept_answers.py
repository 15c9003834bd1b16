"""An evaluation that cannot be written is refused before it is made; an interrupted one goes on to the same bytes."""

import errno
import json

import pytest
import torch
from safetensors.torch import save as tensors
from transformers import AutoModelForImageTextToText
from typer.testing import CliRunner

from alignment.cli.app import app
from alignment.config.generation_section import GenerationSection
from alignment.evaluation import answers as module
from alignment.evaluation.evaluate import evaluate
from alignment.evaluation.kept_answers import FILE, check_out, evaluation_folder, is_finished
from alignment.models.processors import load_processor
from alignment.models.tiny import build_tiny
from data_builders.interruptions import Stopped
from data_builders.locks import only_one
from rewards.config.input_error import InputError
from tests.alignment.evaluation.test_evaluate import TEXTS, save, some_rows

SHORT = GenerationSection(batch_size=2, max_new_tokens=6)
OPTIONS = {"generation": SHORT, "num_resamples": 20}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny(TEXTS, folder, image_size=32, hidden_size=32, vision_hidden_size=32)
    return AutoModelForImageTextToText.from_pretrained(folder), load_processor(str(folder))


def asked(monkeypatch, *, until=None, fault=None):
    """The ids that the model is asked from here on; call ``until`` fails."""
    ids, generate = [], module.generate

    def watched(model, processor, rows, **how):
        if until is not None and len(ids) >= until:
            raise fault
        ids.extend(row["id"] for row in rows)
        return generate(model, processor, rows, **how)

    monkeypatch.setattr(module, "generate", watched)
    return ids


def results(out):
    return {p.relative_to(out): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file() and p.suffix != ".html"}


def interrupted(tiny, data, out, monkeypatch, fault, until=14):
    with monkeypatch.context() as patch:
        asked(patch, until=until, fault=fault)
        with pytest.raises((Stopped, KeyboardInterrupt, InputError)) as caught:
            evaluate(*tiny, data, out=out, **OPTIONS)
    return caught.value


@pytest.mark.parametrize("fault", [Stopped(15), KeyboardInterrupt()], ids=["SIGTERM", "Ctrl-C"])
def test_an_interrupted_evaluation_goes_on_and_equals_a_whole_one_byte_for_byte(tiny, tmp_path, monkeypatch, fault):
    data = save(some_rows(), tmp_path / "data" / "prompt")
    evaluate(*tiny, data, out=tmp_path / "whole", **OPTIONS)
    interrupted(tiny, data, tmp_path / "broken", monkeypatch, fault)
    assert not is_finished(tmp_path / "broken")
    with (tmp_path / "broken" / FILE).open("ab") as log:
        log.write(b"00000000 torn in mid wri")
    ids = asked(monkeypatch)
    evaluate(*tiny, data, out=tmp_path / "broken", **OPTIONS)
    assert len(ids) == 3 * 12 - 14  # clean, noise, shuffled; 14 were answered before
    assert results(tmp_path / "broken") == results(tmp_path / "whole")
    assert is_finished(tmp_path / "broken")


def test_what_stands_is_said(tiny, tmp_path, monkeypatch):
    data = save(some_rows(), tmp_path / "data" / "prompt")
    stopped = interrupted(tiny, data, tmp_path / "out", monkeypatch, Stopped(15))
    assert stopped.exit_code == 143
    assert stopped.stands.endswith(f"{FILE}: 12 clean, 2 noise; the same command goes on.")


def test_a_full_disk_is_one_sentence_and_what_was_answered_stands(tiny, tmp_path, monkeypatch):
    data = save(some_rows(), tmp_path / "data" / "prompt")
    full = interrupted(tiny, data, tmp_path / "out", monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    assert isinstance(full, InputError)
    assert "the disk is full" in str(full)
    assert "12 clean, 2 noise" in str(full)


@pytest.mark.parametrize("change", ["data", "settings", "model"])
def test_answers_of_another_model_data_or_settings_are_not_taken(tiny, tmp_path, monkeypatch, change, caplog):
    data, options, (model, processor) = save(some_rows(), tmp_path / "data" / "prompt"), dict(OPTIONS), tiny
    interrupted(tiny, data, tmp_path / "out", monkeypatch, Stopped(15))
    if change == "data":
        rows = some_rows()
        rows[0]["prompt"][0]["content"][-1]["text"] = "Is there an effusion?"
        save(rows, tmp_path / "data" / "prompt")
    elif change == "settings":
        options["generation"] = GenerationSection(batch_size=2, max_new_tokens=5)
    else:
        config = next(iter((tmp_path / "data").parent.glob("config.json")), None) or tmp_path / "config.json"
        config.write_text("{}")
        monkeypatch.setattr(model.config, "name_or_path", str(tmp_path), raising=False)
        monkeypatch.setattr(model.config, "_name_or_path", str(tmp_path), raising=False)
    ids = asked(monkeypatch)
    evaluate(model, processor, data, out=tmp_path / "out", **options)
    assert len(ids) == 36
    assert "asked anew" in caplog.text


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_an_out_that_cannot_be_written_is_told_before_a_model_is_loaded_or_asked(tiny, tmp_path, monkeypatch, out):
    data = save(some_rows(1), tmp_path / "data" / "prompt")
    (tmp_path / "file").write_text("mine")
    ids = asked(monkeypatch)
    with pytest.raises(InputError, match="nothing can be written there"):
        evaluate(*tiny, data, out=tmp_path / out)
    assert ids == []
    monkeypatch.setattr("alignment.models.loading.load_for_inference", lambda run: pytest.fail("loaded"))
    name = str(tiny[0].config.name_or_path)
    done = CliRunner().invoke(app, ["eval", name, str(data), "--out", str(tmp_path / out)])
    assert done.exit_code == 2, done.output
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["pictures/holiday.png", "report.html", "answers.jsonl"])
def test_results_of_something_else_are_not_replaced(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="no evaluation and is not replaced"):
        check_out(tmp_path)
    (tmp_path / "evaluation.json").write_text("{}")
    check_out(tmp_path)


def test_a_picture_of_the_users_stays(tiny, tmp_path):
    data = save(some_rows(1), tmp_path / "data" / "prompt")
    evaluate(*tiny, data, out=tmp_path / "out", blind_controls=False, **OPTIONS)
    (tmp_path / "out/pictures/holiday.png").write_text("mine")
    evaluate(*tiny, data, out=tmp_path / "out", blind_controls=False, **OPTIONS)
    assert len(list((tmp_path / "out/pictures").glob("*.png"))) == 2


def test_a_second_evaluation_at_one_output_is_told_at_once(tiny, tmp_path):
    data = save(some_rows(1), tmp_path / "data" / "prompt")
    with only_one(tmp_path / "out"):
        done = CliRunner().invoke(
            app, ["eval", str(tiny[0].config.name_or_path), str(data), "--out", str(tmp_path / "out")]
        )
    assert "is writing there now" in done.stderr


def test_the_evaluation_of_a_hub_name_or_a_folder_of_others_lies_outside_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "x"}')
    (tmp_path / "model.safetensors").write_bytes(tensors({"x": torch.zeros(1)}))
    assert evaluation_folder("Qwen/Qwen2.5-VL").as_posix() == "evaluations/Qwen--Qwen2.5-VL"
    assert evaluation_folder(".").as_posix() == f"evaluations/{tmp_path.name}"
    (tmp_path / "recipe.resolved.yaml").write_text("{}")
    assert evaluation_folder(str(tmp_path)) == tmp_path / "evaluation"
    with pytest.raises(InputError, match="no folder runs/none"):
        evaluation_folder("runs/none")


def test_the_line_of_settings_holds_no_answer(tiny, tmp_path, monkeypatch):
    data = save(some_rows(1), tmp_path / "data" / "prompt")
    interrupted(tiny, data, tmp_path / "out", monkeypatch, Stopped(15), until=2)
    lines = [json.loads(line[9:]) for line in (tmp_path / "out" / FILE).read_text().splitlines()]
    assert [sorted(line) for line in lines] == [["settings"], *[["answers", "condition", "places"]] * 2]
