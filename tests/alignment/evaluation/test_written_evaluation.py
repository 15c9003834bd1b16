"""Published questions, whose facts are not known, judged by their words."""

import json

import numpy as np
import pytest
from PIL import Image

from alignment.evaluation.evaluate import evaluate
from alignment.metrics.intervals import summarise
from alignment.metrics.outcomes import score_answers
from alignment.metrics.text_overlap import BLEUS
from alignment.models.loading import load_for_inference
from alignment.models.tiny import build_tiny
from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec


def row(task, answer):
    return {"id": answer, "patient": answer, "task": task, "answer": answer, "rule_set": "", "boxes": None}


@pytest.mark.parametrize(
    ("task", "answer", "said", "metric", "want"),
    [
        ("closed", "Yes", "yes.", "closed_accuracy", 1.0),
        ("closed", "Yes", "Yes, there is", "closed_accuracy", 0.0),
        ("open", "left lower lobe", "It is the lower left lobe.", "open_recall", 1.0),
        ("open", "left lower lobe", "lower", "open_recall", 1 / 3),
        ("open", "left lower lobe", "", "open_recall", 0.0),
        ("open", "MRI", "<answer>MRI</answer>", "open_recall", 1.0),
    ],
)
def test_a_written_answer_is_judged_by_its_words(task, answer, said, metric, want):
    found = summarise(score_answers([row(task, answer)], [said]))
    beside = {name.partition("[")[0] for name in found} - {metric}
    assert beside == ({*BLEUS, "rouge_l"} if task == "open" else {"closed_accuracy_read", "closed_unread"})
    assert found[metric].value == pytest.approx(want)


def test_a_report_without_facts_is_judged_by_its_wording_alone():
    found = summarise(score_answers([row("report", "No acute disease.")], ["No acute disease."]))
    assert {name: metric.value for name, metric in found.items()} == {
        **{f"{name}[report]": pytest.approx(1.0) for name in BLEUS},
        "rouge_l[report]": 1.0,
    }


@pytest.mark.filterwarnings("default")
def test_a_published_set_can_be_evaluated(tmp_path):
    folder = tmp_path / "rad"
    (folder / "VQA_RAD Image Folder").mkdir(parents=True)
    records = []
    for k in range(4):
        values = np.random.default_rng(k).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / "VQA_RAD Image Folder" / f"{k}.jpg")
        kind, answer = ("CLOSED", "Yes") if k % 2 else ("OPEN", "left lung")
        records.append(
            {"qid": k, "image_name": f"{k}.jpg", "question": "What is it?", "answer": answer, "answer_type": kind}
        )
    (folder / "VQA_RAD Dataset Public.json").write_text(json.dumps(records))
    built = build(
        BuildSpec.model_validate(
            {"source": {"name": "vqa_rad", "root": str(folder)}, "output": str(tmp_path / "built"), "tasks": {},
             "splits": {"test": 1.0}, "rows": {"prompt": ["test"]}}
        )
    )  # fmt: skip
    model, processor = load_for_inference(str(build_tiny(["Yes No left lung"], tmp_path / "tiny", image_size=64)))
    evaluation = evaluate(model, processor, built / "prompt" / "test", out=tmp_path / "out", num_resamples=50)
    assert {"closed_accuracy", "open_recall"} <= set(evaluation.metrics["clean"])
    assert "noise" in evaluation.metrics
    assert "closed_accuracy" in (tmp_path / "out" / "report.html").read_text()
