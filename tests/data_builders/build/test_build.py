import json
import os
import re
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Dataset, List
from datasets import Image as ImageFeature
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec, read_spec
from data_builders.imaging.images import ImageError, inside, open_image
from data_builders.schema import Quarantined, Sample, message_text
from data_builders.splits.splits import check_disjoint, split_of
from rewards.config.input_error import InputError
from rewards.reading.reading import read
from rewards.rules.facts import Facts, Finding
from rewards.rules.rule_set import load_rule_set

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


def smears(tmp_path, *, good, truncated, boxes=1):
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
        corners = [
            f"<xmin>{x}</xmin><ymin>5</ymin><xmax>{x + 9}</xmax><ymax>20</ymax>" for x in range(5, 5 + 12 * boxes, 12)
        ]
        objects = "".join(f"<object><name>WBC</name><bndbox>{c}</bndbox></object>" for c in corners)
        size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
        xml = f"<annotation><filename>{name}.jpg</filename>{size}{objects}</annotation>"
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

    from data_builders.build.gallery import write_gallery

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    card = json.loads((copy / "card.json").read_text())
    card["quarantined"] = {"count": 1, "records": [{"id": "<script>alert(1)</script>", "reason": "x"}]}
    (copy / "card.json").write_text(json.dumps(card))
    assert "<script>alert(1)" not in write_gallery(copy).read_text()


def test_plain_datasets_reads_the_images_as_a_list_of_images(folder):
    for file in sorted(folder.glob("*/*.parquet")):
        features = Dataset.from_parquet(str(file), cache_dir=str(folder / ".cache")).features
        assert features["images"] == List(ImageFeature())


def test_all_rows_of_an_image_stand_together(folder):
    names = [row["images"][0]["path"] for row in pq.read_table(folder / "instruction" / "sft.parquet").to_pylist()]
    changes = sum(a != b for a, b in pairwise(names))
    assert changes == len(set(names)) - 1


def test_row_ids_are_unique(folder):
    ids = [row["id"] for file in folder.glob("*/*.parquet") for row in pq.read_table(file).to_pylist()]
    assert len(ids) == len(set(ids))


def test_the_card_names_the_bytes_of_every_file(folder):
    import hashlib

    card = json.loads((folder / "card.json").read_text())
    for name, digest in card["sha256"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert len(card["sha256"]) == 4
    assert card["rule_sets"] == ["chest_xray@1"]
    assert card["patients"].keys() == {"sft", "align", "test"}


def test_the_folder_is_as_readable_as_any_other(folder, tmp_path):
    (tmp_path / "other").mkdir()
    assert folder.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_data_set_is_replaced_and_nothing_is_left_behind(tmp_path):
    first = built(tmp_path)
    (first / "relevance-stale.jsonl").write_text("from before")
    built(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]
    assert not (first / "relevance-stale.jsonl").exists()


def test_a_folder_that_is_no_data_set_is_not_replaced(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="not a built data set and is not replaced"):
        built(tmp_path)
    assert (tmp_path / "data" / "thesis.tex").exists()


def test_a_build_that_fails_leaves_the_old_data_set_as_it_was(tmp_path):
    before = (built(tmp_path) / "card.json").read_bytes()
    with pytest.raises(InputError, match="empty"):
        built(tmp_path, rows={"prompt": []})
    assert (tmp_path / "data" / "card.json").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


def test_tagged_answers_are_tagged_and_read_back(tmp_path):
    out = built(tmp_path, answer_style="tagged")
    for row in rows(out, "preference/align"):
        said = message_text(row["chosen"])
        assert said.startswith("<answer>")
        truth = Facts.model_validate_json(row["facts"]).without_boxes()
        assert read(said, load_rule_set(row["rule_set"])).facts == truth


def test_in_varied_wording_only_the_error_tells_chosen_from_rejected(tmp_path):
    for row in rows(built(tmp_path, wording="varied"), "preference/align"):
        chosen, rejected = (message_text(row[key]).split(". ") for key in ("chosen", "rejected"))
        assert sum(a.rstrip(".") != b.rstrip(".") for a, b in zip(chosen, rejected, strict=True)) == 1


def test_pinned_patients_go_where_they_are_pinned(tmp_path):
    out = built(tmp_path, assign={"p00000": "test", "p00001": "test"})
    assert {"p00000", "p00001"} <= {row["patient"] for row in rows(out, "prompt/test")}


def test_a_patient_that_is_pinned_and_not_in_the_data_stops_the_build_by_name(tmp_path):
    with pytest.raises(InputError) as told:
        built(tmp_path, assign={"p00000": "test", "p0001": "test"})
    assert str(told.value) == (
        "assign: source phantom_chest has no patient 'p0001' with a record that can be used. "
        "Did you mean 'p00011'? Mend the name, or remove it."
    )
    assert not (tmp_path / "data").exists()


def test_questions_with_too_many_boxes_are_counted_and_not_asked(tmp_path):
    smears(tmp_path, good=3, truncated=0, boxes=4)
    source = {"name": "bccd", "root": str(tmp_path / "bccd")}
    out = built(tmp_path, source=source, splits={"all": 1.0}, rows={"prompt": ["all"]}, max_boxes=3)
    card = json.loads((out / "card.json").read_text())
    assert card["not_asked"] == {"white_cells: more than 3 boxes in one answer": 3}
    assert "box" not in card["counts"]["prompt"]["all"]


def test_a_bar_or_anything_else_can_watch_the_records(tmp_path):
    watched = []

    def watch(records):
        for record in records:
            watched.append(record.id)
            yield record

    build(BuildSpec.model_validate({**CONTENT, "output": str(tmp_path / "data")}), progress=watch)
    assert len(watched) == 24


def records(*, truncated=False, box=(1, 2, 30, 40), finding="nodule", known=True):
    """A source's two records: one that is right and one that is wrong in one way."""
    facts = Facts(rule_set="chest_xray@1", findings={"nodule": Finding(polarity="absent")})
    wrong = {finding: Finding(polarity="present", side="left", boxes=(box,))} if known else {}
    image = Image.effect_noise((64, 64), 80)
    yield Sample(id="right", patient="p1", study="s1", image=image, facts=facts)
    if truncated:
        image = Image.open(truncated)
    yield Sample(id="wrong", patient="p2", study="s2", image=image, facts=facts.model_copy(update={"findings": wrong}))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"box": (9.0, 2.0, 9.0, 40.0)}, "has no area"),
        ({"box": (9.0, 2.0, 65.0, 40.0)}, "not inside the image of 64 x 64 pixels"),
        ({"finding": "fracture"}, "'fracture' is not in rule set chest_xray@1"),
        ({"known": False}, "nothing is known of it"),
    ],
)
def test_what_a_source_gets_wrong_is_quarantined_with_its_reason(tmp_path, wrong, reason):
    card = card_of_records(tmp_path, records(**wrong))
    (record,) = card["quarantined"]["records"]
    assert record["id"] == "wrong"
    assert reason in record["reason"]


def test_an_image_that_a_source_opened_but_did_not_decode_is_quarantined(tmp_path):
    path = tmp_path / "x.jpg"
    Image.effect_noise((64, 64), 80).save(path)
    path.write_bytes(path.read_bytes()[:700])
    (record,) = card_of_records(tmp_path, records(truncated=path))["quarantined"]["records"]
    assert record["id"] == "wrong"
    assert "unreadable image" in record["reason"]


def test_the_second_record_of_an_id_is_quarantined(tmp_path):
    card = card_of_records(tmp_path, [next(records()), next(records())])
    assert card["images"] == 1
    assert card["quarantined"]["records"] == [{"id": "right", "reason": "another record has this id"}]


def test_a_source_of_nothing_but_faults_says_so(tmp_path):
    with pytest.raises(InputError, match=r"all 1 records are quarantined\. First: x: torn"):
        card_of_records(tmp_path, [Quarantined(id="x", reason="torn")])


def card_of_records(tmp_path, given_records):
    """The card of a data set built of these records, as a source would yield them."""
    spec = BuildSpec.model_validate(
        {**CONTENT, "output": str(tmp_path / "data"), "splits": {"align": 1.0}, "max_quarantined": 0.5}
        | {"rows": {"preference": ["align"], "prompt": ["align"]}}
    )
    return json.loads((build(spec, progress=lambda _: given_records) / "card.json").read_text())


def fault_of(tmp_path, **changes):
    """What a spec with these changes is told."""
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, "output": "x", **changes}))
    with pytest.raises(InputError) as caught:
        read_spec(path, [])
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"source": {"name": "phantom_chest", "pacients": 3}}, "pacients: unknown key. Did you mean 'patients'?"),
        ({"source": {"name": "phantom_chest"}}, "patients: this key is required"),
        ({"source": {"name": "phantom_chest", "patients": "many"}}, "patients: got the string 'many'"),
        ({"source": {"name": "bccd"}}, "root: this key is required"),
        ({"splits": {"../../x": 1.0}}, "splits"),
        ({"splits": {"sft": 1.5, "align": -0.5, "test": 0.0}}, "less than or equal to 1"),
        ({"rows": {"instruction": ["stf"]}}, "no split named 'stf'. Did you mean 'sft'?"),
        ({"assign": {"p1": "tset"}}, "no split named 'tset'. Did you mean 'test'?"),
        ({"tasks": {"box": -1}}, "greater than or equal to 0"),
        ({"eval_splits": ["test"]}, "eval_splits and eval_tasks"),
        ({"flaws": {"splits": ["align"]}}, "split 'align' has no instruction rows"),
    ],
)
def test_a_fault_of_a_spec_is_told_before_anything_is_drawn(tmp_path, changes, told):
    assert told in fault_of(tmp_path, **changes)


def told_at(tmp_path, **changes):
    """By the line of the spec that each fault names: the line itself, and the fault."""
    lines = (told := fault_of(tmp_path, **changes)).splitlines()
    file = (tmp_path / "spec.yaml").read_text().splitlines()
    places = [re.match(rf"{tmp_path}/spec.yaml, line (\d+): ", line) for line in lines]
    assert all(places), told
    return [(file[int(place[1]) - 1].strip(), line[place.end() :]) for place, line in zip(places, lines, strict=True)]


def test_a_fault_is_told_once_with_its_line_and_names_no_key_that_is_not_there(tmp_path):
    wanted = "input should be greater than or equal to 0, or 'all'."
    assert told_at(tmp_path, tasks={"presence": -1, "box": -1}) == [
        ("box: -1", f"tasks.box: got int -1; {wanted}"),
        ("presence: -1", f"tasks.presence: got int -1; {wanted}"),
    ]
    told = "tasks.presence: got the string 'some'; input should be a valid integer, or 'all'."
    assert told_at(tmp_path, tasks={"presence": "some"}) == [("presence: some", told)]
    told = told_at(tmp_path, splits={"sft": 0.7, "align": 0.7, "test": 0.0})
    assert told == [("splits:", "splits: shares add up to 1.4, expected 1.")]
    assert told_at(tmp_path, splits={"sft": 3, "align": 3, "test": 0.0}) == [
        (f"{split}: 3", f"splits.{split}: got int 3; input should be less than or equal to 1.")
        for split in ("align", "sft")
    ]


def test_an_override_of_a_spec_is_named_in_place_of_a_line(tmp_path):
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump({**CONTENT, "output": "x"}))
    with pytest.raises(InputError, match=r"spec\.yaml, override 'seed=a': seed: got the string 'a'"):
        read_spec(tmp_path / "spec.yaml", ["seed=a"])


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seed", "expected key=value"),
        ("output.x=1", "'output' holds 'x'"),
        ("seed=[", "not readable as a YAML value"),
    ],
)
def test_an_override_that_cannot_be_is_told(tmp_path, override, told):
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps({**CONTENT, "output": "x"}))
    with pytest.raises(InputError, match=told):
        read_spec(path, [override])


def test_overrides_reach_nested_keys(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps({**CONTENT, "output": "x"}))
    spec = read_spec(path, ["source.patients=7", "flaws.splits=[sft]", "flaws.loose_boxes=1.2"])
    assert spec.source.knobs["patients"] == 7
    assert spec.flaws is not None
    assert spec.flaws.loose_boxes == 1.2


RECIPES = sorted((Path(__file__).parents[3] / "recipes" / "data").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_spec_is_read_and_says_how_it_is_run(path):
    spec = read_spec(path, [])
    assert spec.output == f"data/{path.stem}"
    head = path.read_text()
    assert "# Run: " in head
    assert "# Needs: " in head


def test_the_clean_contrast_differs_from_the_flawed_phantoms_in_nothing_but_the_flaws():
    flawed, clean = (read_spec(p, []) for p in RECIPES if p.stem in ("phantom_chest", "phantom_chest_clean"))
    assert flawed.flaws is not None
    assert clean.model_dump(exclude={"output"}) == flawed.model_copy(update={"flaws": None}).model_dump(
        exclude={"output"}
    )


@pytest.mark.slow
def test_real_smears_can_be_built_where_they_lie(tmp_path):
    root = Path(os.environ.get("CLINALIGN_DATA", Path(__file__).parents[4] / "shared" / "data")) / "bccd"
    if not root.is_dir():
        pytest.skip("the BCCD folder is not here; name its parent in CLINALIGN_DATA")
    (spec,) = (p for p in RECIPES if p.stem == "bccd")
    out = build(read_spec(spec, [f"source.root={root}", f"output={tmp_path / 'data'}", "source.tiles=1"]))
    card = json.loads((out / "card.json").read_text())
    assert card["counts"]["preference"]["align"]["report"] > 20
    assert any("has no area" in record["reason"] for record in card["quarantined"]["records"])
