"""Tables of records: what each cell says, what it does not say, and what is wrong with a file."""

import csv
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from data_builders.schema import Quarantined
from data_builders.sources.images.labelled import labelled
from data_builders.sources.tables.table import column_map, table
from rewards.config.input_error import InputError
from rewards.rules.rule_set import load_rule_set

RETINA = load_rule_set("retina_amd")
ROW = {"id": "a", "patient": "p", "image": "a.png"}


@pytest.fixture(autouse=True)
def _image(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")


def written(root, rows, *, separator=",", encoding="utf-8", name="table.csv"):
    with (root / name).open("w", newline="", encoding=encoding) as file:
        rows = [ROW | row for row in rows]
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return root


def samples(root, rows, **knobs):
    return list(table(root=written(root, rows), rule_set="retina_amd", **knobs))


def polarities(sample):
    return {name: finding.polarity for name, finding in sample.facts.findings.items()}


def test_columns_that_bear_the_names_of_findings_need_no_map(tmp_path):
    (sample,) = samples(tmp_path, [{"drusen": "Y", "drusen.size": "Large", "shrm": "0", "age": "71", "eye": "left"}])
    assert polarities(sample) == {"drusen": "present", "rpe_elevation": "present", "shrm": "absent"}
    assert sample.facts.findings["drusen"].size == "large"
    assert sample.facts.values == {"age": 71.0, "eye": "left"}


@pytest.mark.parametrize("nothing", ["", "NaN", "nan", "N/A", "None", " "])
def test_a_cell_that_says_nothing_makes_nothing_known_in_any_column(tmp_path, nothing):
    columns = [*RETINA.findings, "drusen.size", "shrm.side", "age", "eye", "stage", "report", "study"]
    (sample,) = samples(tmp_path, [dict.fromkeys(columns, nothing)])
    assert sample.facts.findings == {}
    assert sample.facts.values == {}
    assert (sample.study, sample.report, sample.provenance) == ("a", "", {})


@pytest.mark.parametrize("column", ["id", "patient", "image"])
def test_a_record_without_id_patient_or_image_is_quarantined(tmp_path, column):
    (refused,) = samples(tmp_path, [{column: "nan", "drusen": "Y"}])
    assert isinstance(refused, Quarantined)
    assert refused.reason == f"it has no '{column}'"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"drusen": "maybe"}, "'maybe' is neither present nor absent"),
        ({"drusen": "Y", "drusen.size": "big"}, "'big' is none of its words. Known: small, medium, large"),
        ({"drusen": "Y", "image": "../secret.png"}, "leaves the data root"),
        ({"drusen": "Y", "image": "b.png"}, "no such file"),
        ({"subretinal_fluid": "N", "subretinal_fluid.size": "large"}, "absent with a size"),
        ({"drusen": "Y", "stage": "healthy"}, "stage is stated as healthy"),
    ],
)
def test_a_record_that_cannot_be_used_is_quarantined_with_its_reason(tmp_path, row, reason):
    (refused,) = samples(tmp_path, [row])
    assert isinstance(refused, Quarantined)
    assert reason in refused.reason


def test_contradictions_are_repaired_or_refused_as_the_policy_says(tmp_path):
    row = {"subretinal_fluid": "N", "subretinal_fluid.size": "large"}
    (sample,) = samples(tmp_path, [row], contradictions="repair")
    assert polarities(sample) == {"subretinal_fluid": "present", "retinal_fluid": "present"}
    assert "absent with a size" in sample.provenance["repaired"][0]
    with pytest.raises(InputError, match="record a: the facts contradict themselves"):
        samples(tmp_path, [row], contradictions="refuse")


def test_only_named_findings_are_absent_by_default_and_what_is_implied_is_not(tmp_path):
    (sample,) = samples(tmp_path, [{"drusen": "Y"}], absent=["fibrosis", "rpe_elevation"])
    assert polarities(sample) == {"drusen": "present", "rpe_elevation": "present", "fibrosis": "absent"}
    assert sample.provenance == {"absent_by_default": ["fibrosis"]}


def test_a_record_of_a_report_alone_takes_its_facts_from_it(tmp_path):
    (sample,) = samples(tmp_path, [{"report": "No drusen. SHRM. This is inactive late wet AMD."}])
    assert sample.facts.findings["shrm"].polarity == "present"
    assert sample.facts.values == {"stage": "inactive late wet AMD"}
    assert sample.report.startswith("No drusen")


def test_a_wrong_separator_is_told_with_the_right_one(tmp_path):
    written(tmp_path, [{"drusen": "Y"}], separator=";")
    with pytest.raises(InputError, match=r"one column by separator ','. Set separator to ';'"):
        list(table(root=tmp_path, rule_set="retina_amd"))
    (sample,) = table(root=tmp_path, rule_set="retina_amd", separator=";")
    assert polarities(sample)["drusen"] == "present"


def test_a_wrong_encoding_is_told(tmp_path):
    written(tmp_path, [{"drusen": "Y", "reader": "Müller"}], encoding="cp1252")
    with pytest.raises(InputError, match=r"not utf-8 .*cp1252"):
        list(table(root=tmp_path, rule_set="retina_amd"))
    (sample,) = table(root=tmp_path, rule_set="retina_amd", encoding="cp1252")
    assert sample.facts.values["reader"] == "Müller"


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    written(tmp_path, [{"drusen": "Y"}], encoding="utf-8-sig")
    assert next(iter(table(root=tmp_path, rule_set="retina_amd"))).id == "a"


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"table": "tabel.csv"}, "no such file. Did you mean 'table.csv'"),
        ({"absent": ["fibrossis"]}, "no finding 'fibrossis'. Did you mean 'fibrosis'"),
        ({"encoding": "utf-9"}, "not utf-9"),
    ],
)
def test_a_wrong_knob_is_told(tmp_path, knobs, told):
    with pytest.raises(InputError, match=told):
        samples(tmp_path, [{"drusen": "Y"}], **knobs)


def test_a_table_that_says_nothing_of_the_findings_is_refused(tmp_path):
    with pytest.raises(InputError, match="no column is named like a finding"):
        samples(tmp_path, [{"age": "3"}])


def test_json_lines_are_read_with_their_own_types(tmp_path):
    lines = [{**ROW, "drusen": True, "age": None}, {**ROW, "id": "b", "drusen": None}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    first, second = table(root=tmp_path, rule_set="retina_amd", table="t.jsonl")
    assert (polarities(first)["drusen"], first.facts.values, second.facts.findings) == ("present", {}, {})
    (tmp_path / "t.jsonl").write_text('{"id": "a", "age": NaN}', encoding="utf-8")
    with pytest.raises(InputError, match=r"t.jsonl:1: not JSON .NaN is no number of JSON, write null"):
        list(table(root=tmp_path, rule_set="retina_amd", table="t.jsonl"))
    (tmp_path / "t.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"t.jsonl:1: not JSON"):
        list(table(root=tmp_path, rule_set="retina_amd", table="t.jsonl"))


SPECIALIST = {
    "ImageId": "a", "PatientId": "p", "Image": "a.png", "EyePosition": "0", "Drusen?": "Y", "Drusen size": "Large",
    "Drusen location": "Left", "PED?": "Y", "PED type": "Drusenoid", "RPE state": "N", "Hypertrans-mission?": "N",
    "Subretinal fluid?": "N", "Intraretinal fluid?": "", "AMD stage": "Intermediate",
    "SilverBiomarkerTags": "large drusen; PED",
}  # fmt: skip


def specialist(root, **cells):
    row = {**{column: "" for column in column_map("retina_published").means}, **SPECIALIST}
    with (root / "s.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row | cells)
    return list(table(root=root, rule_set="retina_amd", table="s.csv", columns="retina_published"))


def test_the_columns_of_the_published_tables_are_mapped(tmp_path):
    (sample,) = specialist(tmp_path)
    found = sample.facts.findings
    assert (found["drusen"].size, found["drusen"].side) == ("large", "nasal")
    assert (found["drusenoid_ped"].polarity, found["serous_ped"].polarity) == ("present", "absent")
    assert {name for name in ("rpe_atrophy", "hypertransmission", "subretinal_fluid")} <= {
        name for name, finding in found.items() if finding.polarity == "absent"
    }
    assert "intraretinal_fluid" not in found
    assert sample.facts.values == {"eye": "left", "stage": "intermediate AMD"}


def test_a_cell_that_the_map_does_not_know_is_quarantined(tmp_path):
    (refused,) = specialist(tmp_path, **{"Drusen size": "Hugh"})
    assert "column 'Drusen size': 'hugh' is not in its map" in refused.reason


def test_a_tag_of_no_amd_beside_drusen_is_a_contradiction(tmp_path):
    (refused,) = specialist(tmp_path, **{"SilverBiomarkerTags": "no AMD", "AMD stage": ""})
    assert "stage is stated as healthy" in refused.reason


def test_a_map_with_an_unknown_finding_is_refused(tmp_path):
    bad = tmp_path / "map.yaml"
    bad.write_text("means: {Drusen: {Y: {drussen.size: large}}}", encoding="utf-8")
    with pytest.raises(InputError, match=r"no finding 'drussen'. Did you mean 'drusen'"):
        samples(tmp_path, [{"drusen": "Y"}], columns=str(bad))


def test_a_column_that_stands_twice_is_refused(tmp_path):
    (tmp_path / "table.csv").write_text("id,patient,image,drusen,drusen\na,p,a.png,Y,N\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"table.csv: the column 'drusen' stands there twice"):
        list(table(root=tmp_path, rule_set="retina_amd"))


def test_a_row_that_does_not_fit_the_header_is_quarantined_for_that_reason(tmp_path):
    lines = ["id,patient,image,drusen,shrm", "a,p,a.png,Y,N,N", "b,p,a.png,Y", "c,p,a.png,Y,N"]
    (tmp_path / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    long, short, sound = table(root=tmp_path, rule_set="retina_amd")
    assert (long.id, short.id, sound.id) == ("table.csv record 1", "table.csv record 2", "c")
    assert long.reason.startswith("row 1 (line 2) has 6 cells, the header 5")
    assert short.reason.startswith("row 2 (line 3) has 4 cells, the header 5")


@pytest.mark.parametrize("device", [None, "/dev/zero"])
def test_a_picture_that_is_a_pipe_or_a_device_is_quarantined(tmp_path, monkeypatch, device):
    if device:
        monkeypatch.setattr("data_builders.sources.tables.table.inside", lambda root, name: Path(device))
    else:
        os.mkfifo(tmp_path / "pipe.png")
    (refused,) = samples(tmp_path, [{"drusen": "Y", "image": "pipe.png"}])
    name = "zero" if device else "pipe.png"
    assert refused.reason == f"image: {name}: not a regular file but a pipe, a device or a socket"


def test_an_empty_table_is_called_empty(tmp_path):
    (tmp_path / "table.csv").touch()
    with pytest.raises(InputError, match=r"table.csv: it is empty"):
        list(table(root=tmp_path, rule_set="retina_amd"))


def labels(root, *lines):
    (root / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    return list(labelled(root=root, rule_set="retina_amd", table="labels.csv"))


def test_labels_that_would_shift_or_hide_each_other_are_told(tmp_path):
    with pytest.raises(InputError, match=r"labels.csv: the column 'age' stands there twice"):
        labels(tmp_path, "id,patient,images,age,age", "a,p,a.png,1,2")
    with pytest.raises(InputError, match=r"labels.csv: no column 'images'. Did you mean 'image'"):
        labels(tmp_path, "id,patient,image", "a,p,a.png")
    long, sound = labels(tmp_path, "id,patient,images,age", "a,p,a.png,71,5", "b,p,a.png,71")
    assert long.reason.startswith("row 1 (line 2) has 5 cells, the header 4")
    assert sound.facts.values == {"age": 71}
