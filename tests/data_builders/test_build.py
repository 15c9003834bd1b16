import json

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_builders.build import build
from data_builders.build_spec import BuildSpec, read_spec
from data_builders.images import ImageError, inside, open_image
from data_builders.schema import message_text
from data_builders.splits import check_disjoint, split_of
from rewards.facts import Facts
from rewards.reading import read
from rewards.rule_set import load_rule_set
from rewards.strict_yaml import InputError

CONTENT = {
    "source": {"name": "phantom_chest", "patients": 12, "images_per_patient": 2, "size": 64},
    "splits": {"sft": 0.5, "align": 0.3, "test": 0.2},
    "rows": {"instruction": ["sft"], "preference": ["align"], "prompt": ["align", "test"]},
    "tasks": {"presence": 2, "side": 1, "box": 1, "report": 1},
    "box_grid": 100,
}


def built(tmp_path, name="data", **changes):
    return build(BuildSpec.model_validate({**CONTENT, "output": str(tmp_path / name), **changes}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return built(tmp_path_factory.mktemp("built"))


def rows(folder, entry):
    return list(Dataset.from_parquet(str(folder / f"{entry}.parquet"), cache_dir=str(folder / ".cache")))


def test_the_same_spec_gives_the_same_bytes(tmp_path):
    one, two = built(tmp_path, "one"), built(tmp_path, "two")
    for file in sorted(one.glob("*/*.parquet")):
        assert file.read_bytes() == (two / file.relative_to(one)).read_bytes()


def test_rows_have_the_columns_that_trl_reads(folder):
    row = rows(folder, "instruction/sft")[0]
    assert isinstance(row["images"][0], Image.Image)
    assert row["prompt"][0]["role"] == "user"
    assert [block["type"] for block in row["prompt"][0]["content"]] == ["image", "text"]
    assert row["completion"][0]["role"] == "assistant"
    assert {"id", "patient", "study", "source", "split", "task", "facts", "rule_set", "provenance"} <= set(row)


def test_no_patient_is_in_two_splits(folder):
    patients = [
        {row["patient"] for row in rows(folder, entry)} for entry in ("instruction/sft", "prompt/align", "prompt/test")
    ]
    assert sum(map(len, patients)) == len(set.union(*patients))


def test_chosen_is_true_and_rejected_is_not(folder):
    for row in rows(folder, "preference/align"):
        truth = Facts.model_validate_json(row["facts"]).without_boxes()
        rules = load_rule_set(row["rule_set"])
        assert read(message_text(row["chosen"]), rules).facts == truth
        assert read(message_text(row["rejected"]), rules).facts != truth
        assert 0 < row["weight"] <= 1


def test_boxes_are_truth_for_box_questions_only(folder):
    for row in rows(folder, "prompt/test"):
        assert (row["boxes"] is not None) == (row["task"] == "box")


def test_flaws_are_named_in_the_row_and_leave_the_facts_true(tmp_path):
    flawed = built(tmp_path, flaws={"splits": ["sft"], "invented_findings": 1.0, "loose_boxes": 1.5})
    named = [row for row in rows(flawed, "instruction/sft") if "flaw" in json.loads(row["provenance"])]
    assert {row["task"] for row in named} == {"report", "box"}
    for row in named:
        truth = Facts.model_validate_json(row["facts"])
        assert read(message_text(row["completion"]), load_rule_set(row["rule_set"])).facts != truth.without_boxes()


def test_card_counts_every_row_and_gallery_shows_pictures(folder):
    card = json.loads((folder / "card.json").read_text())
    assert card["counts"]["instruction"]["sft"]["report"] == sum(
        r["task"] == "report" for r in rows(folder, "instruction/sft")
    )
    page = (folder / "gallery.html").read_text()
    assert page.count("data:image/png;base64") > 5
    assert "http://" not in page
    assert "https://" not in page


def test_an_empty_data_set_is_refused(tmp_path):
    with pytest.raises(InputError, match="empty"):
        built(
            tmp_path,
            source={"name": "phantom_chest", "patients": 1},
            splits={"a": 0.0, "b": 1.0},
            rows={"prompt": ["a"]},
        )
    assert not (tmp_path / "data").exists()


def test_too_many_quarantined_records_fail_the_build(tmp_path):
    smears(tmp_path, good=1, truncated=1)
    with pytest.raises(InputError, match="cannot be used, more than max_quarantined"):
        built(tmp_path, source={"name": "bccd", "root": str(tmp_path / "bccd")})


def test_a_truncated_image_is_quarantined_with_its_id(tmp_path):
    smears(tmp_path, good=3, truncated=1)
    source = {"name": "bccd", "root": str(tmp_path / "bccd")}
    out = built(tmp_path, source=source, splits={"all": 1.0}, rows={"prompt": ["all"]}, max_quarantined=0.5)
    records = json.loads((out / "card.json").read_text())["quarantined"]["records"]
    assert [record["id"].startswith("bad0") or "bad0" in record["id"] for record in records] == [True]


def smears(tmp_path, *, good, truncated):
    """A tiny data set in BCCD's layout."""
    root = tmp_path / "bccd"
    for sub in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / sub).mkdir(parents=True)
    names = [f"good{k}" for k in range(good)] + [f"bad{k}" for k in range(truncated)]
    for name in names:
        noise = Image.effect_noise((64, 48), 80).convert("RGB")
        path = root / "JPEGImages" / f"{name}.jpg"
        noise.save(path)
        if name.startswith("bad"):
            path.write_bytes(path.read_bytes()[:300])
        box = "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>20</xmax><ymax>20</ymax></bndbox>"
        size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
        xml = f"<annotation><filename>{name}.jpg</filename>{size}<object><name>WBC</name>{box}</object></annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(xml)
    (root / "ImageSets/Main/trainval.txt").write_text("\n".join(names))


def test_a_spec_says_all_its_faults_at_once(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text("source: {name: phantom_chst}\noutput: x\nsplit: {}\nrows: {}\ntasks: {}\n")
    with pytest.raises(InputError) as caught:
        read_spec(path, [])
    text = str(caught.value)
    assert "Did you mean 'phantom_chest'?" in text
    assert "split: unknown key. Did you mean 'splits'?" in text
    assert "splits: this key is required" in text


def test_shares_must_add_up():
    with pytest.raises(ValueError, match=r"add up to 0.9"):
        BuildSpec.model_validate({**CONTENT, "output": "x", "splits": {"sft": 0.5, "align": 0.3, "test": 0.1}})


@given(st.lists(st.text(min_size=1), min_size=1, unique=True), st.randoms())
def test_a_patients_split_depends_on_nothing_but_the_patient_and_the_key(patients, rng):
    shares = {"train": 0.7, "test": 0.3}
    before = {p: split_of(p, shares, key="k") for p in patients}
    rng.shuffle(patients)
    assert {p: split_of(p, shares, key="k") for p in [*patients, "new"]}.items() >= before.items()


def test_shares_are_kept():
    splits = [split_of(str(k), {"a": 0.7, "b": 0.3}, key="k") for k in range(5000)]
    assert splits.count("a") / 5000 == pytest.approx(0.7, abs=0.02)


def test_a_patient_in_two_splits_is_an_error():
    with pytest.raises(InputError, match=r"patient p1 is in both test and train \(3 rows\)"):
        check_disjoint([("p1", "train"), ("p1", "test"), ("p1", "train"), ("p2", "test")])


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../x", "link/x.png"])
def test_paths_cannot_leave_their_root(tmp_path, name):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="leaves the data root"):
        inside(root, name)


def test_a_truncated_jpeg_says_so(tmp_path):
    path = tmp_path / "x.jpg"
    Image.effect_noise((64, 64), 80).save(path)
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(ImageError, match="unreadable image"):
        open_image(path)


def test_the_gallery_escapes_what_the_data_say(tmp_path, folder):
    import shutil

    from data_builders.gallery import write_gallery

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    card = json.loads((copy / "card.json").read_text())
    card["quarantined"] = {"count": 1, "records": [{"id": "<script>alert(1)</script>", "reason": "x"}]}
    (copy / "card.json").write_text(json.dumps(card))
    assert "<script>alert(1)" not in write_gallery(copy).read_text()
