"""The published sets read from their official layouts, here a few handwritten records with drawn images."""

import io
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec
from data_builders.formats.export import export
from data_builders.formats.preference_formats import FORMATS
from data_builders.schema import Quarantined, Written, message_text
from data_builders.sources.images.iu_xray import iu_xray
from data_builders.sources.pairs.released_pairs import released_pairs
from data_builders.sources.questions.path_vqa import path_vqa
from data_builders.sources.questions.slake import slake
from data_builders.sources.questions.vqa_rad import vqa_rad
from rewards.config.input_error import InputError

DATA = Path(os.environ.get("CLINALIGN_DATA", Path(__file__).parents[4] / "shared" / "data")) / "mmedpo"


def picture(path, size=(24, 16), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    Image.fromarray(values).save(path)


def rad_folder(root, *records):
    folder = root / "rad"
    for name in ("synpic1.jpg", "synpic2.jpg"):
        picture(folder / "VQA_RAD Image Folder" / name)
    usual = {
        "qid": 1, "image_name": "synpic1.jpg", "image_organ": "HEAD", "answer": "Yes", "answer_type": "CLOSED",
        "question_type": "PRES", "question": "Are regions of the brain infarcted?", "phrase_type": "freeform",
        "image_case_url": "https://medpix.nlm.nih.gov/case?id=1",
    }  # fmt: skip
    (folder / "VQA_RAD Dataset Public.json").write_text(json.dumps([usual | record for record in records]))
    return folder


def slake_folder(root):
    folder = root / "slake"
    for number in (1, 2, 3):
        picture(folder / "imgs" / f"xmlab{number}" / "source.jpg", seed=number)

    def record(number, qid, answer, kind, language="en"):
        return {
            "img_id": number, "img_name": f"xmlab{number}/source.jpg", "question": "What modality is used?",
            "answer": answer, "q_lang": language, "location": "Abdomen", "modality": "MRI", "answer_type": kind,
            "base_type": "vqa", "content_type": "Modality", "triple": ["vhead", "_", "_"], "qid": qid,
        }  # fmt: skip

    (folder / "train.json").write_text(json.dumps([record(1, 0, "MRI", "OPEN"), record(1, 1, "核磁", "OPEN", "zh")]))
    (folder / "validate.json").write_text(json.dumps([record(2, 2, "Yes", "CLOSED")]))
    (folder / "test.json").write_text(json.dumps([record(3, 3, "No", "CLOSED")]))
    return folder


def path_folder(root, content=None):
    folder = root / "path"
    for split in ("train", "val", "test"):
        picture(folder / "images" / split / f"{split}_0001.jpg")
        records = [{"image": f"{split}_0001", "question": "What is seen?", "answer": "neutrophils"}]
        (folder / "qas" / split).mkdir(parents=True)
        (folder / "qas" / split / f"{split}_qa.pkl").write_bytes(content or pickle.dumps(records))
    return folder


XML = """<eCitation><MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText><AbstractText Label="INDICATION">Cough</AbstractText>
<AbstractText Label="FINDINGS">{findings}</AbstractText><AbstractText Label="IMPRESSION">{impression}</AbstractText>
</Abstract></Article></MedlineCitation>{images}</eCitation>"""


def xray_folder(root, number=1, *, findings="The heart is normal.", impression="No acute disease.", views=2):
    folder = root / "xray"
    names = [f"CXR{number}_1_IM-0001-{k}001" for k in range(views)]
    for name in names:
        picture(folder / "NLMCXR_png" / f"{name}.png")
    (folder / "ecgen-radiology").mkdir(exist_ok=True, parents=True)
    (folder / "NLMCXR_png").mkdir(exist_ok=True)
    images = "".join(f'<parentImage id="{name}"><panel type="single"/></parentImage>' for name in names)
    xml = XML.format(findings=findings, impression=impression, images=images)
    (folder / "ecgen-radiology" / f"{number}.xml").write_text(xml)
    return folder


def test_vqa_rad_is_read_with_its_case_as_patient(tmp_path):
    root = rad_folder(tmp_path, {}, {"qid": 2, "answer": 3, "answer_type": "OPEN", "phrase_type": "test_para"})
    one, two = vqa_rad(root=root)
    assert (one.id, one.patient, one.task, one.answer, one.split) == (
        "vqa_rad-1", "https://medpix.nlm.nih.gov/case?id=1", "closed", "Yes", "train",
    )  # fmt: skip
    assert (two.task, two.answer, two.split) == ("open", "3", "test")


def test_an_image_of_vqa_rad_that_is_not_there_is_quarantined(tmp_path):
    (item,) = vqa_rad(root=rad_folder(tmp_path, {"image_name": "synpic9.jpg"}))
    assert isinstance(item, Quarantined)
    assert "no such file" in item.reason


def test_an_image_path_that_leaves_the_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="leaves the data root"):
        list(vqa_rad(root=rad_folder(tmp_path, {"image_name": "../../x.jpg"})))


def test_slake_is_read_in_one_language_with_its_own_splits(tmp_path):
    items = list(slake(root=slake_folder(tmp_path)))
    assert [(i.split, i.patient, i.task, i.answer) for i in items] == [
        ("train", "xmlab1", "open", "MRI"), ("validate", "xmlab2", "closed", "Yes"), ("test", "xmlab3", "closed", "No"),
    ]  # fmt: skip
    (chinese,) = slake(root=slake_folder(tmp_path), language="zh")
    assert chinese.answer == "核磁"


def test_path_vqa_is_read_from_its_pickles(tmp_path):
    items = list(path_vqa(root=path_folder(tmp_path)))
    assert [(i.split, i.names, i.task) for i in items] == [
        (split, (f"{split}/{split}_0001.jpg",), "open") for split in ("train", "val", "test")
    ]


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize("content", [pickle.dumps([Evil()]), pickle.dumps({"a": 1}), b"oops", pickle.dumps([1])])
def test_a_pickle_that_holds_more_than_plain_records_is_refused(tmp_path, content):
    with pytest.raises(InputError, match=r"plain data|list of records"):
        list(path_vqa(root=path_folder(tmp_path, content)))


@pytest.mark.parametrize(
    ("sections", "want"),
    [("both", "The heart is normal. No acute disease."), ("findings", "The heart is normal.")],
)
def test_a_report_of_iu_xray_is_its_findings_and_impression(tmp_path, sections, want):
    (item,) = iu_xray(root=xray_folder(tmp_path), sections=sections)
    assert (item.answer, item.task, len(item.images)) == (want, "report", 1)


def test_all_views_of_a_study_stand_in_one_row(tmp_path):
    (item,) = iu_xray(root=xray_folder(tmp_path), views="all")
    assert len(item.images) == len(item.names) == 2


@pytest.mark.parametrize(
    ("study", "reason"),
    [({"findings": "", "impression": ""}, "no findings and no impression"), ({"views": 0}, "no image")],
)
def test_a_study_without_report_or_image_is_quarantined(tmp_path, study, reason):
    (item,) = iu_xray(root=xray_folder(tmp_path, **study))
    assert item == Quarantined(id="iu_xray-1", reason=reason)


def test_damaged_xml_is_quarantined(tmp_path):
    root = xray_folder(tmp_path)
    (root / "ecgen-radiology" / "2.xml").write_text("<eCitation>")
    items = list(iu_xray(root=root))
    assert [type(item) for item in items] == [Written, Quarantined]
    assert "not readable as XML" in items[1].reason


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (vqa_rad, "VQA_RAD Dataset Public.json: not there"),
        (slake, "imgs: not there"),
        (path_vqa, "images: not there"),
        (iu_xray, "ecgen-radiology: not there"),
    ],
)
def test_what_is_missing_is_named_with_where_to_get_it(tmp_path, source, says):
    with pytest.raises(InputError, match=says) as caught:
        list(source(root=tmp_path))
    assert "get them from" in str(caught.value)


def spec(tmp_path, source, **changes):
    content = {
        "source": source, "output": str(tmp_path / "built"), "splits": {"all": 1.0}, "tasks": {},
        "rows": {"instruction": ["all"], "prompt": ["all"]}, "max_quarantined": 0.9,
    }  # fmt: skip
    return BuildSpec.model_validate({**content, **changes})


def rows_of(folder, kind, split="all"):
    return pq.read_table(folder / kind / f"{split}.parquet").to_pylist()


def card_of(folder):
    return json.loads((folder / "card.json").read_text())


def test_a_published_set_is_built_like_any_other(tmp_path):
    out = build(spec(tmp_path, {"name": "vqa_rad", "root": str(rad_folder(tmp_path, {}, {"qid": 2}))}))
    (row, _) = rows_of(out, "prompt")
    assert (row["task"], row["answer"], row["boxes"]) == ("closed", "Yes", None)
    assert (row["target"], row["box_grid"], len(row["image_size"])) == (None, None, 1)
    assert message_text(rows_of(out, "instruction")[0]["completion"]) == "Yes"
    assert card_of(out)["repeated_questions"] == 1
    assert "CC0" in card_of(out)["licence"]
    assert "vqa_rad-1" in (out / "gallery.html").read_text()


def test_an_empty_answer_is_quarantined(tmp_path):
    root = rad_folder(tmp_path, {}, {"qid": 2, "answer": None})
    out = build(spec(tmp_path, {"name": "vqa_rad", "root": str(root)}))
    (record,) = card_of(out)["quarantined"]["records"]
    assert record == {"id": "vqa_rad-2", "reason": "its question or its answer is empty"}


def test_the_sources_own_splits_can_be_taken_over(tmp_path):
    changes = {
        "splits": {"sft": 0.5, "test": 0.5}, "rows": {"prompt": ["sft", "test"]},
        "source_splits": {"train": "sft", "validate": "sft", "test": "test"},
    }  # fmt: skip
    source = {"name": "slake", "root": str(slake_folder(tmp_path))}
    out = build(spec(tmp_path, source, **changes))
    assert [row["patient"] for row in rows_of(out, "prompt", "sft")] == ["xmlab1", "xmlab2"]
    assert [row["patient"] for row in rows_of(out, "prompt", "test")] == ["xmlab3"]
    with pytest.raises(InputError, match="the source has a split 'validate'"):
        build(spec(tmp_path, source, **changes | {"source_splits": {"train": "sft"}}))


def test_a_split_that_shares_images_is_refused(tmp_path):
    root = rad_folder(tmp_path, {}, {"qid": 2, "phrase_type": "test_freeform"})
    changes = {"splits": {"sft": 0.5, "test": 0.5}, "rows": {"prompt": ["sft", "test"]}}
    with pytest.raises(InputError, match="is in both sft and test"):
        build(
            spec(
                tmp_path, {"name": "vqa_rad", "root": str(root)},
                source_splits={"train": "sft", "test": "test"}, **changes,
            )
        )  # fmt: skip


def pairs_file(tmp_path, *records, shape="ms_swift"):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    picture(tmp_path / "pictures" / "a.png")
    picture(tmp_path / "pictures" / "b.png", seed=1)
    picture(tmp_path / "pictures" / "small.png", size=(8, 8))
    return {"name": "released_pairs", "file": str(path), "format": shape, "images": str(tmp_path / "pictures")}


def swift(rejected="No", **more):
    messages = [{"role": "user", "content": "<image>Is it?"}, {"role": "assistant", "content": "Yes"}]
    return {"messages": messages, "images": ["a.png"], "rejected_response": rejected, "weight": 0.5, **more}


def test_released_pairs_of_both_sides_are_built(tmp_path):
    source = pairs_file(tmp_path, swift(), swift("Yes", rejected_images=["b.png"]))
    out = build(spec(tmp_path, source, rows={"preference": ["all"]}))
    text, image = rows_of(out, "preference")
    assert (text["kind"], text["weight"], text["rejected_images"]) == ("hallucination", 0.5, None)
    assert text["relevance"] is None  # a weight is all that ms-swift's records say
    assert image["kind"] == "lesion_noise"
    assert Image.open(io.BytesIO(image["rejected_images"][0]["bytes"])).size == (24, 16)


def test_a_relevance_that_is_not_known_is_not_normalised_in_silence(tmp_path):
    source, rows = pairs_file(tmp_path, swift(relevance=0.2), swift("Never")), {"preference": ["all"]}
    with pytest.raises(InputError, match=r"has no score \(1 such of 2\)"):
        build(spec(tmp_path, source, rows=rows, relevance={"reading": "sensible"}))
    out = build(spec(tmp_path, source, rows=rows, relevance={"reading": "sensible", "missing": "one"}))
    # scores 0.2 and 1.0: mean 0.6, deviation 0.4, so 1 -+ sqrt 0.1, clipped
    found = [(row["relevance"], row["weight"]) for row in rows_of(out, "preference")]
    assert found == [(0.2, 0.75), (1.0, 1.25)]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (swift("Yes"), "equal under the same image"),
        (swift(" "), "'rejected_response': assistant says nothing"),
        (swift(rejected_images=["small.png"]), "not of the size"),
        (swift(images=["none.png"]), "no such file"),
        ({"messages": 3}, "'messages' is int"),
    ],
)
def test_a_pair_that_teaches_nothing_or_cannot_be_read_is_quarantined(tmp_path, record, reason):
    out = build(spec(tmp_path, pairs_file(tmp_path, swift(), record), rows={"preference": ["all"]}))
    (told,) = card_of(out)["quarantined"]["records"]
    assert reason in told["reason"]


def test_equal_ids_stay_apart_by_what_they_say(tmp_path):
    source = pairs_file(tmp_path, swift(id="x"), swift("Never", id="x"))
    one, two = released_pairs(**{key: source[key] for key in ("file", "format", "images")})
    assert one.id != two.id
    assert one.id.startswith("x-")
    assert two.id.startswith("x-")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    content = {
        "source": {"name": "phantom_chest", "patients": 6, "images_per_patient": 1, "size": 64},
        "output": str(tmp_path_factory.mktemp("phantoms") / "data"), "splits": {"align": 1.0},
        "rows": {"preference": ["align"], "prompt": ["align"]}, "tasks": {"report": 1}, "lesion_noise": {},
        "relevance": {"reading": "sensible"},  # so that weight and relevance differ
    }  # fmt: skip
    return build(BuildSpec.model_validate(content))


@pytest.mark.parametrize("shape", FORMATS)
def test_a_built_set_survives_its_export_and_import(phantoms, tmp_path, shape):
    result = export(phantoms / "preference" / "align.parquet", shape, tmp_path / "out")
    source = {
        "name": "released_pairs", "file": result["exported"], "format": shape, "images": result["images"],
    }  # fmt: skip
    back = rows_of(build(spec(tmp_path, source, rows={"preference": ["all"]})), "preference")
    before = rows_of(phantoms, "preference", "align")
    assert result["survey"]["pairs"] == len(before) == len(back)
    for one, two in zip(before, back, strict=True):
        assert (one["prompt"], one["chosen"], one["rejected"]) == (two["prompt"], two["chosen"], two["rejected"])
        scores = (1.0, None) if shape == "llava" else (one["weight"], one["relevance"])
        assert (two["weight"], two["relevance"]) == scores
        for key in ("images", "rejected_images"):
            assert [e["bytes"] for e in one[key] or []] == [e["bytes"] for e in two[key] or []]


@pytest.mark.parametrize(
    ("entry", "shape", "says"),
    [
        ("preference/align", "mmdpo", "Did you mean 'mmedpo'?"),
        ("prompt/align", "mmedpo", "no preference rows: no column chosen, rejected"),
    ],
)
def test_what_cannot_be_exported_is_told(phantoms, tmp_path, entry, shape, says):
    with pytest.raises(InputError, match=says.replace("?", r"\?")):
        export(phantoms / f"{entry}.parquet", shape, tmp_path / "out")


def test_an_export_replaces_nothing(phantoms, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="there already"):
        export(phantoms / "preference" / "align.parquet", "trl", tmp_path)


@pytest.mark.skipif(not DATA.is_dir(), reason="MMedPO's released pairs are absent (set CLINALIGN_DATA)")
def test_the_released_pairs_are_built_without_images_and_their_blemishes_stand_in_the_card(tmp_path):
    source = {"name": "released_pairs", "file": str(DATA / "slake_dpo_weighted.json"), "format": "mmedpo"}
    with pytest.raises(InputError, match=r"none of the images is there that its 4919 pairs name .* text_only: true"):
        build(spec(tmp_path, source, rows={"preference": ["all"]}))
    source["text_only"] = True
    card = card_of(build(spec(tmp_path, source, rows={"preference": ["all"]})))
    assert card["counts"]["preference"]["all"]["open"] == 4919 - 5
    assert {record["reason"] for record in card["quarantined"]["records"]} == {
        "chosen and rejected are equal under the same image"
    }
    assert card["repeated_questions"] == 7
    weights = card["preference"]["all"]["weights"]["hallucination"]
    assert weights["zero"] == 78
    assert weights["effective_share"] == pytest.approx(0.84, abs=0.005)
    assert card["preference"]["all"]["brevity"]["shortcut_accuracy"] > 0.95
