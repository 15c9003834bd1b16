import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from data_builders.schema import Quarantined, Sample
from data_builders.sources.images.bccd import bccd, half_open
from rewards.config.input_error import InputError
from rewards.rules.rule_set import load_rule_set

REPOSITORY = Path(__file__).parents[3]
DATA = Path(os.environ.get("CLINALIGN_DATA", REPOSITORY.parent / "shared" / "data")) / "bccd"
needs_bccd = pytest.mark.skipif(not DATA.is_dir(), reason="the BCCD folder is absent (set CLINALIGN_DATA)")


def smear(root: Path, boxes: list[tuple], *, filename: str = "a.jpg", size=(64, 48)) -> Path:
    """A BCCD folder with one 64 x 48 photograph, whose XML lists (label, xmin, ymin, xmax, ymax)."""
    for folder in ("Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.effect_noise((64, 48), 50).convert("RGB").save(root / "JPEGImages" / "a.jpg")
    corners = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        f"<object><name>{label}</name><bndbox>"
        + "".join(f"<{c}>{v}</{c}>" for c, v in zip(corners, box, strict=True))
        + "</bndbox></object>"
        for label, *box in boxes
    )
    stated = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    xml = f"<annotation><filename>{filename}</filename>{stated}{objects}</annotation>"
    (root / "Annotations" / "a.xml").write_text(xml)
    return root


def sorted_out(items: Iterator[Sample | Quarantined]) -> tuple[list[Sample], list[Quarantined]]:
    everything = list(items)
    samples = [item for item in everything if isinstance(item, Sample)]
    return samples, [item for item in everything if isinstance(item, Quarantined)]


def test_inclusive_corners_from_one_become_half_open_from_zero(tmp_path):
    root = smear(tmp_path, [("RBC", 1, 1, 64, 48), ("WBC", 11, 21, 20, 40)])
    (sample,), quarantined = sorted_out(bccd(root=root))
    assert sample.facts.findings["red_cells"].boxes == ((0, 0, 64, 48),)
    assert sample.facts.findings["white_cells"].boxes == ((10, 20, 20, 40),)
    assert sample.facts.findings["platelets"].polarity == "absent"
    assert quarantined == []


def test_size_scales_image_and_boxes_alike(tmp_path):
    root = smear(tmp_path, [("WBC", 11, 21, 20, 40)])
    (sample,), _ = sorted_out(bccd(root=root, size=128))
    assert sample.image.size == (128, 96)
    assert sample.facts.findings["white_cells"].boxes == ((20, 40, 40, 80),)


def test_counts_are_the_number_of_boxes(tmp_path):
    root = smear(tmp_path, [("Platelets", 1, 1, 5, 5), ("Platelets", 11, 11, 15, 15)])
    (sample,), _ = sorted_out(bccd(root=root))
    assert sample.facts.findings["platelets"].count == 2


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        (("RBC", 5, 5, 5, 5), "has no area"),
        (("RBC", 9, 5, 6, 8), "has no area"),
        (("RBC", 60, 5, 65, 9), "not inside the image"),
        (("RBC", 0, 5, 6, 9), "not inside the image"),
        (("RBC", "five", 5, 6, 9), "not four whole numbers"),
        (("RBC", "", 5, 6, 9), "not four whole numbers"),
        (("Rbc", 1, 5, 6, 9), "unknown label 'Rbc'"),
        (("WBC", 12, 11, 30, 30), "the same cell as box 0"),
    ],
)
def test_a_bad_box_is_left_out_and_counted(tmp_path, box, reason):
    root = smear(tmp_path, [("WBC", 11, 11, 30, 30), box])
    (sample,), (quarantined,) = sorted_out(bccd(root=root))
    assert sample.facts.findings["white_cells"].count == 1
    assert quarantined.id == "a#box1"
    assert reason in quarantined.reason
    assert sample.provenance["boxes_left_out"] == [{"box": 1, "reason": quarantined.reason}]


def test_a_kind_of_cell_whose_only_box_is_bad_is_not_called_absent(tmp_path):
    (sample,), _ = sorted_out(bccd(root=smear(tmp_path, [("Platelets", 5, 5, 5, 5)])))
    assert "platelets" not in sample.facts.findings


def test_unlabelled_red_and_white_cells_are_not_called_absent(tmp_path):
    (sample,), _ = sorted_out(bccd(root=smear(tmp_path, [])))
    assert set(sample.facts.findings) == {"platelets"}


def test_a_tile_holds_a_cell_of_which_it_holds_half(tmp_path):
    root = smear(tmp_path, [("WBC", 23, 1, 42, 10), ("Platelets", 31, 31, 34, 40)])
    samples, _ = sorted_out(bccd(root=root, tiles=2))
    by_id = {sample.id: sample.facts.findings for sample in samples}
    assert sorted(by_id) == ["a-r0c0", "a-r0c1", "a-r1c0", "a-r1c1"]
    assert by_id["a-r0c0"]["white_cells"].boxes == ((22, 0, 32, 10),)
    assert by_id["a-r0c1"]["white_cells"].boxes == ((0, 0, 10, 10),)
    assert by_id["a-r1c0"]["white_cells"].polarity == "absent"
    assert by_id["a-r1c1"]["platelets"].boxes == ((0, 6, 2, 16),)
    assert {sample.patient for sample in samples} == {"a"}


def test_a_tile_with_less_than_half_a_cell_says_nothing_of_it(tmp_path):
    root = smear(tmp_path, [("WBC", 1, 1, 40, 10)])
    samples, _ = sorted_out(bccd(root=root, tiles=2))
    by_id = {sample.id: sample.facts.findings for sample in samples}
    assert by_id["a-r0c0"]["white_cells"].boxes == ((0, 0, 32, 10),)
    assert "white_cells" not in by_id["a-r0c1"]


def test_tiles_cover_the_photograph(tmp_path):
    samples, _ = sorted_out(bccd(root=smear(tmp_path, []), tiles=5))
    assert sum(s.image.width * s.image.height for s in samples) == 64 * 48


def test_a_truncated_jpeg_is_quarantined(tmp_path):
    photograph = smear(tmp_path, []) / "JPEGImages" / "a.jpg"
    photograph.write_bytes(photograph.read_bytes()[:700])
    samples, (quarantined,) = sorted_out(bccd(root=tmp_path))
    assert samples == []
    assert (quarantined.id, "a.jpg: unreadable image" in quarantined.reason) == ("a", True)


@pytest.mark.parametrize("filename", ["missing.jpg", ""])
def test_a_missing_photograph_is_quarantined(tmp_path, filename):
    samples, (quarantined,) = sorted_out(bccd(root=smear(tmp_path, [], filename=filename)))
    assert samples == []
    assert quarantined.id == "a"


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "<annotation><filename>a.jpg",
        "<html/>",
        '<!DOCTYPE x [<!ENTITY a "b">]><annotation><filename>&a;</filename></annotation>',
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]><annotation>&a;</annotation>',
    ],
)
def test_bad_xml_is_quarantined(tmp_path, xml):
    (smear(tmp_path, []) / "Annotations" / "a.xml").write_text(xml)
    samples, (quarantined,) = sorted_out(bccd(root=tmp_path))
    assert samples == []
    assert quarantined.reason.startswith("a.xml: not ")


def test_boxes_made_for_another_size_quarantine_the_photograph(tmp_path):
    samples, (quarantined,) = sorted_out(bccd(root=smear(tmp_path, [], size=(640, 480))))
    assert samples == []
    assert "640 x 480" in quarantined.reason


@pytest.mark.parametrize("filename", ["../../outside.jpg", "/etc/hostname"])
def test_a_photograph_outside_the_root_is_an_error(tmp_path, filename):
    root = smear(tmp_path / "bccd", [], filename=filename)
    with pytest.raises(InputError, match="leaves the data root"):
        list(bccd(root=root))


def test_a_relative_root_is_taken_from_the_working_directory(tmp_path, monkeypatch):
    smear(tmp_path / "bccd", [])
    monkeypatch.chdir(tmp_path)
    assert len(list(bccd(root=Path("bccd")))) == 1


def test_a_folder_without_annotations_is_an_error(tmp_path):
    with pytest.raises(InputError, match="Shenggan/BCCD_Dataset"):
        list(bccd(root=tmp_path))


@pytest.mark.parametrize("knobs", [{"size": 0}, {"tiles": 0}])
def test_a_knob_out_of_range_is_an_error(tmp_path, knobs):
    with pytest.raises(InputError, match="at least 1"):
        list(bccd(root=smear(tmp_path, []), **knobs))


def test_a_box_of_the_whole_image_is_inside_it():
    assert half_open([1, 1, 64, 48], image=Image.new("RGB", (64, 48))) == (0, 0, 64, 48)


def test_the_rule_set_counts_every_kind_of_cell():
    rules = load_rule_set("blood_smear@1")
    assert set(rules.findings) == {"red_cells", "white_cells", "platelets"}
    assert all(rule.counted and rule.plural for rule in rules.findings.values())
    assert rules.wording.count
    assert rules.wording.ask_count


@needs_bccd
def test_the_published_photographs_are_read_whole():
    samples, quarantined = sorted_out(bccd(root=DATA, size=64))
    counts = [f.count or 0 for s in samples for f in s.facts.findings.values()]
    assert len(samples) == 292
    assert sum("has no area" in q.reason for q in quarantined) == 2
    assert sum("drawn twice" in q.reason for q in quarantined) == 7
    assert sum(counts) + len(quarantined) == 3943


@needs_bccd
def test_boxes_of_the_published_photographs_lie_inside_their_images():
    samples, _ = sorted_out(bccd(root=DATA, size=64, tiles=2))
    for sample in samples:
        width, height = sample.image.size
        for x1, y1, x2, y2 in (b for f in sample.facts.findings.values() for b in f.boxes):
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height
