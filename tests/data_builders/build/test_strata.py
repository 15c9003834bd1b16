import json
from collections import Counter

import pyarrow.parquet as pq
import pytest

from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec
from data_builders.build.strata import placements


def spec_of(tmp_path, **own) -> BuildSpec:
    source = {"name": "phantom_oct", "patients": own.pop("patients", 24), "size": 64, "seed": 5}
    content = {
        "source": source, "output": str(tmp_path / "oct"), "splits": {"sft": 0.75, "test": 0.25}, "stratify": "stage",
        "rows": {"instruction": ["sft"], "prompt": ["test"]}, "tasks": {"presence": 1},
    }  # fmt: skip
    return BuildSpec.model_validate({**content, **own})


def worst_stages(spec: BuildSpec) -> dict[str, str]:
    from data_builders.sources.drawn.phantom_oct import STAGES, eye_of

    return {
        f"o{n:05d}": max((eye_of(n, eye, seed=5).stage for eye in ("right", "left")), key=STAGES.index)
        for n in range(spec.source.knobs["patients"])
    }


def test_every_stage_has_its_share_in_every_split(tmp_path):
    spec = spec_of(tmp_path, patients=48)
    placed, stages = placements(spec, tmp_path / "oct"), worst_stages(spec)
    assert placed.keys() == stages.keys()
    for stage, total in Counter(stages.values()).items():
        tested = sum(placed[name] == "test" for name, own in stages.items() if own == stage)
        assert abs(tested - 0.25 * total) < 1


def test_a_data_set_that_grows_moves_nobody(tmp_path):
    out = build(spec_of(tmp_path, patients=10), progress=lambda records: records)
    before = json.loads((out / "splits.json").read_text(encoding="utf-8"))["patients"]
    build(spec_of(tmp_path, patients=16), progress=lambda records: records)
    after = json.loads((out / "splits.json").read_text(encoding="utf-8"))["patients"]
    assert len(after) == 16
    assert all(after[name] == split for name, split in before.items())
    rows = pq.read_table(out / "prompt" / "test.parquet")["patient"].to_pylist()
    assert set(rows) == {name for name, split in after.items() if split == "test"}


def test_another_seed_places_anew_and_takes_nobody_over(tmp_path):
    out = build(spec_of(tmp_path), progress=lambda records: records)
    before = json.loads((out / "splits.json").read_text(encoding="utf-8"))["patients"]
    fresh = placements(spec_of(tmp_path, seed=9), tmp_path / "elsewhere")
    assert placements(spec_of(tmp_path, seed=9), out) == fresh != before


def test_pinned_patients_stay_pinned(tmp_path):
    spec = spec_of(tmp_path, assign={"o00003": "test", "o00004": "sft"})
    placed = placements(spec, tmp_path / "oct")
    assert (placed["o00003"], placed["o00004"]) == ("test", "sft")


@pytest.mark.parametrize("column", ["drusen", "eye"])
def test_any_column_of_the_facts_may_stratify(tmp_path, column):
    placed = placements(spec_of(tmp_path, stratify=column), tmp_path / "oct")
    assert set(placed.values()) == {"sft", "test"}


def test_without_a_column_the_hash_decides(tmp_path):
    assert placements(spec_of(tmp_path, stratify=None, assign={"o00001": "test"}), tmp_path) == {"o00001": "test"}
    build(spec_of(tmp_path, stratify=None, patients=3), progress=lambda records: records)
    assert not (tmp_path / "oct" / "splits.json").exists()
