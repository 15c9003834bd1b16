"""Token counts of rows with images, and batches of like length with the largest first."""

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from alignment.checks.read_recipe import read_recipe
from alignment.config.data_entries import parquet
from alignment.data.row_tokens import Lengths, counted, lengths_of_file
from alignment.models.prepared import built_texts
from alignment.models.processors import load_processor
from alignment.models.tiny import build_tiny
from alignment.shared_prefix.prompt_groups import collated, group
from alignment.shared_prefix.reference_cache import cache_folder
from alignment.training.trainer import make_trainer

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    """A tiny model and its processor."""
    texts = list(built_texts(str(data / "instruction/sft")))
    return build_tiny(texts, tmp_path_factory.mktemp("start") / "tiny", family="qwen3_vl", image_size=128)


def test_counts_are_those_of_the_processed_row_for_every_image_size(data, start):
    processor = load_processor(str(start))
    rows = [dict(row) for row in Dataset.from_parquet(str(parquet(str(data / "preference/align")))).select(range(3))]
    rows[1]["images"] = [rows[1]["images"][0].resize((128, 96))]
    rows[2]["images"] = []
    rows[2]["prompt"] = [{"role": "user", "content": [{"type": "text", "text": "Any effusion?"}]}]
    counts = counted(processor, rows, ["chosen", "rejected"]).packed()
    for row, count in zip(rows, counts, strict=True):
        made = group(processor, row["images"], row["prompt"], [row["chosen"], row["rejected"]])
        assert int((collated(processor, [made], shared=True)["segments"] >= 0).sum()) == count


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_rows_are_grouped_by_length_with_the_longest_first(write_recipe, start, tmp_path, method):
    changes = {"trainer": {"train_sampling_strategy": "group_by_length", "per_device_train_batch_size": 4}}
    recipe = read_recipe(write_recipe(method, model={"path": str(start)}, **changes))
    trainer = make_trainer(recipe, tmp_path / method)
    sampler = trainer._get_train_sampler(trainer.train_dataset)
    assert trainer.lengths[next(iter(sampler))] == max(trainer.lengths)
    trainer.train()


def test_counts_of_a_file_are_kept_and_read_without_decoding_an_image(data, start, monkeypatch):
    processor, file = load_processor(str(start)), parquet(str(data / "preference/align"))
    rows = Dataset.from_parquet(str(file))
    decoded = counted(processor, rows, ["chosen", "rejected"])
    found = lengths_of_file(processor, file, ("chosen", "rejected"))
    assert found == decoded
    monkeypatch.setattr("alignment.data.row_tokens.counted", None)
    assert lengths_of_file(processor, file, ("chosen", "rejected")) == found
    assert len(list((cache_folder() / "row_lengths").glob("*.safetensors"))) == 1


def test_another_pixel_budget_counts_anew(data, start):
    file = parquet(str(data / "preference/align"))
    roomy = lengths_of_file(load_processor(str(start)), file, ("chosen",))
    tight = lengths_of_file(load_processor(str(start), max_pixels=64 * 64), file, ("chosen",))
    assert tight.text == roomy.text
    assert sum(tight.images) <= sum(roomy.images)
    assert len(list((cache_folder() / "row_lengths").glob("*.safetensors"))) == 2


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9), st.lists(st.integers(1, 9), min_size=2, max_size=2))))
def test_longest_and_packed_are_sums_of_their_parts(rows):
    lengths = Lengths([t for t, _, _ in rows], [i for _, i, _ in rows], [a for *_, a in rows])
    assert lengths.longest() == [t + i + max(a) for t, i, a in rows]
    assert lengths.packed() == [t + i + sum(a) for t, i, a in rows]
    assert lengths.of(range(len(rows))) == lengths


def test_the_log_of_sft_shows_tokens_computed(write_recipe, start, tmp_path):
    recipe = read_recipe(write_recipe("sft", model={"path": str(start)}, trainer={"max_steps": 1}))
    trainer = make_trainer(recipe, tmp_path / "sft")
    trainer.train()
    first = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert first["tokens/computed"] == first["num_tokens"] > 0
    assert "tokens/saved" not in first
