import json
import re

import pytest
from PIL import Image

from alignment.evaluation.report import write_report
from rewards.config.input_error import InputError

KEY = "00ff00ff00ff00ff"


def metric(value):
    return {
        "value": value,
        "low": max(0.0, value - 0.1),
        "high": value + 0.1,
        "num_rows": 9,
        "num_patients": 3,
    }


def line(task, *, response, **more):
    return {
        "id": task, "patient": "p1", "task": task, "finding": "nodule", "question": f"{task}?", "image": KEY,
        "answer": None, "true_boxes": None, "facts": {"findings": {"nodule": {"polarity": "present"}}},
        "responses": {"clean": response}, "counts": {}, "boxes": [], "sentences": [], **more,
    }  # fmt: skip


def evaluation(folder, *, value, response="There is an <b>effusion</b>.", data="d" * 64):
    (folder / "pictures").mkdir(parents=True)
    Image.new("RGB", (64, 32)).save(folder / "pictures" / f"{KEY}.png")
    metrics = {
        "clean": {
            "hallucination_rate": metric(value),
            "mean_iou": metric(0.6),
            "mean_iou[nodule]": metric(0.4),
        },
        "noise": {"mean_iou": metric(0.2) | {"low": None, "high": None}},
    }
    about = {
        "metrics": metrics,
        "num_rows": 9,
        "num_patients": 3,
        "data_sha256": data,
        "seed": 0,
    }
    (folder / "evaluation.json").write_text(json.dumps(about))
    lines = [
        line("box", response="[[0,0,50,50]]", true_boxes=[[10, 10, 60, 60]], boxes=[[0, 0, 50, 50]], box_grid=100),
        line("report", response=response, sentences=[["No nodule.", False], [response, True]]),
        line("presence", response="No", answer="Yes", counts={"closed_correct": 0.0}),
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return folder


def test_stages_stand_side_by_side_with_their_intervals(tmp_path):
    stages = {"before": evaluation(tmp_path / "a", value=0.4), "after": evaluation(tmp_path / "b", value=0.2)}
    page = write_report(stages, tmp_path / "report.html").read_text()
    assert re.search(r"hallucination_rate.*?0\.400.*?\[0\.300, 0\.500\].*?0\.200.*?\[0\.100, 0\.300\]", page, re.S)
    assert "lower is better" in page
    assert "after: with and without the image" in page
    assert "noise instead of the image" in page
    assert "one patient: no interval" in page


def test_true_and_said_boxes_are_drawn_in_pixels_of_the_picture(tmp_path):
    page = write_report({"model": evaluation(tmp_path / "a", value=0.4)}, tmp_path / "report.html").read_text()
    # grid 100 on 64 x 32 pixels: x * .64, y * .32
    assert '<rect class="true" x="6.4" y="3.2" width="32.0" height="16.0">' in page
    assert '<rect class="said" x="0.0" y="0.0" width="32.0" height="16.0">' in page


def test_wrong_words_are_marked_and_right_ones_are_not(tmp_path):
    page = write_report({"model": evaluation(tmp_path / "a", value=0.4)}, tmp_path / "report.html").read_text()
    assert "<mark>No</mark>" in page
    assert "<mark>There is an &lt;b&gt;effusion&lt;/b&gt;.</mark>" in page
    assert "<mark>No nodule.</mark>" not in page


def test_words_of_a_model_cannot_become_markup(tmp_path):
    folder = evaluation(tmp_path / "a", value=0.4, response="<script>alert(1)</script>")
    page = write_report({"<img src=x>": folder}, tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "<img" not in page


def test_the_page_loads_nothing_from_elsewhere(tmp_path):
    page = write_report({"model": evaluation(tmp_path / "a", value=0.4)}, tmp_path / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "http://" not in page.replace("http-equiv", "")
    assert "https://" not in page


def test_stages_on_different_data_are_said_to_be_incomparable(tmp_path):
    stages = {
        "a": evaluation(tmp_path / "a", value=0.4),
        "b": evaluation(tmp_path / "b", value=0.4, data="e" * 64),
    }
    assert "cannot be compared" in write_report(stages, tmp_path / "report.html").read_text()


def test_a_folder_without_an_evaluation_is_refused(tmp_path):
    with pytest.raises(InputError, match="clinalign eval"):
        write_report({"model": tmp_path}, tmp_path / "report.html")
