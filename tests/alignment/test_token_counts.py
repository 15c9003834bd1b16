"""Token counts of rows with images, and batches of like length with the largest first."""

import pytest
from datasets import Dataset

from alignment.models import built_texts, load_processor
from alignment.prompt_groups import collated, group
from alignment.recipe import parquet, read_recipe
from alignment.tiny import build_tiny
from alignment.token_counts import token_counts
from alignment.train import make_trainer

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
    counts = token_counts(processor, rows, ["chosen", "rejected"])
    for row, count in zip(rows, counts, strict=True):
        made = group(processor, row["images"], row["prompt"], [row["chosen"], row["rejected"]])
        assert int((collated(processor, [made], shared=True)["segments"] >= 0).sum()) == count


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_the_longest_rows_come_first_and_batches_are_of_like_length(write_recipe, start, tmp_path, method):
    changes = {"trainer": {"train_sampling_strategy": "group_by_length", "per_device_train_batch_size": 4}}
    recipe = read_recipe(write_recipe(method, model={"path": str(start)}, **changes))
    trainer = make_trainer(recipe, tmp_path / method)
    lengths = trainer.train_dataset["length"]
    order = [lengths[k] for k in trainer._get_train_sampler(trainer.train_dataset)]
    assert order[0] == max(lengths)
    spans = [max(order[k : k + 4]) - min(order[k : k + 4]) for k in range(0, len(order), 4)]
    assert sum(spans) / len(spans) < 0.5 * (max(lengths) - min(lengths))
    trainer.train()
