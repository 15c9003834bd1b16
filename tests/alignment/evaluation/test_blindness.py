"""The probe on models that look, and that do not: a tiny random VLM, and the same with its eyes closed."""

import json
from collections import Counter
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from alignment.data.prompt_rows import read_rows
from alignment.evaluation import answers as answers_module
from alignment.evaluation import blindness as module
from alignment.evaluation import evaluate as evaluate_module
from alignment.evaluation.blindness import blindness, check_probed, shown, truth_logps
from alignment.evaluation.evaluate import evaluate
from alignment.evaluation.kept_answers import FILE
from alignment.models.generation import model_inputs
from alignment.models.loading import load_for_inference
from alignment.models.prepared import built_texts
from alignment.models.tiny import build_tiny
from data_builders.interruptions import Stopped
from data_builders.pairs.settings import NoiseSettings
from rewards.config.input_error import InputError

pytestmark = pytest.mark.filterwarnings("default")  # third-party deprecations


@pytest.fixture(scope="module")
def tiny(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return load_for_inference(str(build_tiny(built_texts(str(data / "prompt/test")), folder, image_size=64)))


@pytest.fixture(scope="module")
def rows(data):
    return read_rows(data / "prompt/test")


@pytest.fixture(scope="module")
def probe(tiny, rows):
    return blindness(*tiny, rows, batch_size=8)


def pixels_of(row):
    image = row["images"][0]
    return np.asarray(image if isinstance(image, Image.Image) else Image.open(BytesIO(image["bytes"])))


def test_every_condition_is_judged_on_the_same_rows(probe, rows):
    changed = {"background_noised", "lesion_noised", "shuffled", "blank"}
    assert set(probe.metrics) == {"clean", *changed}
    assert set(probe.drops) == changed
    assert probe.num_rows + probe.without_lesion == len(rows)
    assert len({m["truth_logp"].num_rows for m in probe.metrics.values()}) == 1
    assert 0 < probe.noised_share < 0.5


def test_a_drop_is_the_difference_to_the_clean_image(probe):
    for name, drop in probe.drops.items():
        change = probe.metrics[name]["truth_logp"].value - probe.metrics["clean"]["truth_logp"].value
        assert drop["truth_logp"].value == pytest.approx(change)


@pytest.mark.slow
def test_a_model_that_looks_is_moved_and_one_with_closed_eyes_is_not(tiny, rows, probe):
    assert any(abs(drop["truth_logp"].value) > 1e-4 for drop in probe.drops.values())
    model, processor = tiny

    class Blind(torch.nn.Module):
        """The same language model, shown a grey image whatever it is given."""

        config, device, generation_config = model.config, model.device, model.generation_config
        training = False

        def forward(self, pixel_values, **inputs):
            return model(pixel_values=torch.full_like(pixel_values, 0.5), **inputs)

        def generate(self, pixel_values, **inputs):
            return model.generate(pixel_values=torch.full_like(pixel_values, 0.5), **inputs)

    blind = blindness(Blind(), processor, rows, batch_size=8)
    for drop in blind.drops.values():
        assert drop["truth_logp"].value == pytest.approx(0.0, abs=1e-6)
        assert all(metric.value == pytest.approx(0.0, abs=1e-6) for metric in drop.values())


def test_the_log_probability_is_the_one_worked_out_token_by_token(tiny, rows):
    model, processor = tiny
    row = next(row for row in rows if row["task"] == "presence")
    ((logp, num_tokens),) = truth_logps(model, processor, [row])
    image = Image.open(BytesIO(row["images"][0]["bytes"])).convert("RGB")
    inputs = model_inputs(processor, [{"prompt": row["prompt"], "images": [image]}])
    want = 0.0
    answer = processor.tokenizer(row["answer"] + processor.tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    for token in answer:
        with torch.inference_mode():
            want += float(model(**inputs).logits[0, -1].log_softmax(-1)[token])
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[token]])], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    assert num_tokens == len(answer)
    assert logp == pytest.approx(want, abs=1e-3)


def test_padding_changes_no_log_probability(tiny, rows):
    together = truth_logps(*tiny, rows[:12], batch_size=12)
    alone = truth_logps(*tiny, rows[:12], batch_size=1)
    assert [n for _, n in together] == [n for _, n in alone]
    assert [logp for logp, _ in together] == pytest.approx([logp for logp, _ in alone], abs=1e-3)


def test_lesion_and_background_noise_touch_as_much_and_never_the_same_pixels(rows):
    row = next(row for row in rows if row["task"] == "box")
    mask = np.zeros((64, 64), bool)
    mask[10:20, 30:40] = True
    views = {
        name: pixels_of(shown([(row, mask)], name, noise=NoiseSettings(step=999), seed=0)[0])
        for name in ("clean", "lesion_noised", "background_noised", "blank")
    }
    clean = views["clean"]
    lesion, background = (views[name] != clean for name in ("lesion_noised", "background_noised"))
    assert not lesion[~mask].any()
    assert not background[mask].any()
    assert abs(int(lesion.sum()) - int(background.sum())) < 10
    assert len(np.unique(views["blank"])) == 1


def test_every_model_is_shown_the_same_images(rows):
    row = next(row for row in rows if row["task"] == "box")
    mask = np.zeros((64, 64), bool)
    mask[10:20, 30:40] = True
    one, two = (shown([(row, mask)], "background_noised", noise=NoiseSettings(), seed=3)[0] for _ in range(2))
    assert np.array_equal(pixels_of(one), pixels_of(two))


def test_rows_without_a_lesion_cannot_be_probed(tiny, rows):
    absent = [row for row in rows if row["task"] == "presence" and row["answer"] == "No"]
    with pytest.raises(InputError, match=f"none of {len(absent)} rows"):
        blindness(*tiny, absent)


def without_boxes(row):
    facts = json.loads(row["facts"])
    bare = {name: {**found, "boxes": []} for name, found in facts["findings"].items()}
    return row | {"facts": json.dumps(facts | {"findings": bare})}


@pytest.mark.parametrize(
    ("changed", "lacking"),
    [
        (lambda row: row | {"images": []}, "an image"),
        (lambda row: row | {"answer": ""}, "an answer"),
        (lambda row: row | {"rule_set": ""}, "facts of a known rule set"),
        (lambda row: row | {"box_grid": None, "image_size": None}, "box_grid or image_size"),
        (without_boxes, "boxes of their findings"),
    ],
)
def test_what_no_row_has_is_named(rows, changed, lacking):
    with pytest.raises(InputError, match=f"they lack {lacking}"):
        check_probed([changed(row) for row in rows])


def test_a_set_that_cannot_be_probed_is_told_before_the_first_answer(tiny, rows, data, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate_module, "read_rows", lambda place: [without_boxes(row) for row in rows])
    monkeypatch.setattr(evaluate_module, "generate_answers", lambda *given, **named: pytest.fail("asked"))
    with pytest.raises(InputError, match="they lack boxes of their findings"):
        evaluate(*tiny, data / "prompt/test", out=tmp_path / "out", probe=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_evaluation_writes_the_probe_where_it_is_asked_for(tiny, data, tmp_path):
    evaluate(*tiny, data / "prompt/test", out=tmp_path, limit=20, blind_controls=False, probe=True, batch_size=8)
    content = json.loads((tmp_path / "blindness.json").read_text())
    assert set(content["metrics"]) == {"clean", "background_noised", "lesion_noised", "shuffled", "blank"}
    assert content["metrics"]["clean"]["truth_logp"]["value"] < 0


@pytest.fixture(scope="module")
def run(tiny, data):
    """A function that evaluates with the probe, and gives how many batches it asked; ended at one of the probe's."""
    options = {"limit": 10, "blind_controls": False, "probe": True, "batch_size": 2}

    def go(out, asked, stop_at=None):
        def watched(name, inner):
            def call(model, processor, rows, **how):
                if name == "truths" and asked[name] == stop_at:
                    raise Stopped(15)
                asked[name] += 1
                return inner(model, processor, rows, **how)

            return call

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(answers_module, "generate", watched("answers", answers_module.generate))
            patch.setattr(module, "_batch_logps", watched("truths", module._batch_logps))
            evaluate(*tiny, data / "prompt/test", out=out, **options)

    return go


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """The folder of an evaluation that nothing interrupted, and the batches it asked."""
    out, asked = tmp_path_factory.mktemp("whole"), Counter()
    run(out, asked)
    return out, asked


@pytest.mark.parametrize("until", [1, 4], ids=["in the first condition", "in a later one"])
def test_a_probe_that_was_interrupted_goes_on_and_equals_a_whole_one(run, whole, tmp_path, until):
    asked = Counter()
    with pytest.raises(Stopped) as stopped:
        run(tmp_path / "out", asked, until)
    assert "(probe: clean)" in stopped.value.stands
    assert asked["truths"] == until
    run(tmp_path / "out", asked)
    assert asked == whole[1]  # nothing is asked twice
    for name in ("blindness.json", "answers.jsonl", "evaluation.json"):
        assert (tmp_path / "out" / name).read_bytes() == (whole[0] / name).read_bytes()
    assert not (tmp_path / "out" / FILE).exists()
