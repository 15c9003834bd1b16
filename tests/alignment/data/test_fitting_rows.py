"""Rows too long for the model: named by id, and refused, dropped, resized or cut as the recipe says."""

import logging
from pathlib import Path

import pytest
from datasets import Dataset

from alignment.checks.read_recipe import read_recipe
from alignment.config.data_entries import parquet
from alignment.config.methods import METHODS
from alignment.data.fitting_rows import fitting_rows, limit_of, listed, rows_to_train_on, with_ids
from alignment.data.row_tokens import counted, lengths_of_file
from alignment.models import prepared
from alignment.models.prepared import built_texts
from alignment.models.processors import load_processor
from alignment.models.tiny import build_tiny
from alignment.planning.check import plan
from rewards.config.input_error import InputError

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    """A tiny Qwen3-VL, whose images take fewer tokens when they are smaller."""
    texts = list(built_texts(str(data / "instruction/sft")))
    return build_tiny(texts, tmp_path_factory.mktemp("start") / "tiny", family="qwen3_vl", image_size=256)


@pytest.fixture
def rows(write_recipe, data, start, tmp_path):
    """A function: recipe, processor, data with one image four times as large, and lengths, of a method."""

    def of(method="sft", **section):
        file = tmp_path / "rows.parquet"
        source = Dataset.from_parquet(
            str(parquet(str(data / ("instruction/sft" if method == "sft" else "preference/align"))))
        )
        large = [dict(row) for row in source.select(range(6))]
        large[2]["images"] = [image.resize((256, 256)) for image in large[2]["images"]]
        large[2]["image_size"] = [[256, 256] for _ in large[2]["images"]]
        Dataset.from_list(large, features=source.features).to_parquet(str(file))
        path = write_recipe(method, model={"path": str(start)}, data={"train": str(file), **section})
        recipe, processor = read_recipe(path), load_processor(str(start))
        made = with_ids(Dataset.from_parquet(str(file)))
        return recipe, processor, made, lengths_of_file(processor, file, METHODS[method].answers)

    return of


def just_below_the_longest(lengths):
    tokens = sorted(lengths.longest())
    assert tokens[-1] > tokens[-2] + 20
    return tokens[-1] - 10


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_rows_too_long_are_refused_by_id_and_length(rows, method):
    recipe, processor, data, lengths = rows(method)
    with pytest.raises(InputError, match="1 of 6 rows are longer") as refused:
        fitting_rows(recipe, processor, data, lengths, just_below_the_longest(lengths))
    assert f"{data['id'][2]} ({max(lengths.longest())})" in str(refused.value)


def test_dropped_rows_are_named(rows, caplog):
    recipe, processor, data, lengths = rows(too_long="drop")
    with caplog.at_level(logging.WARNING):
        left, of_left = fitting_rows(recipe, processor, data, lengths, just_below_the_longest(lengths))
    assert data["id"][2] in caplog.text
    assert list(left["id"]) == [name for k, name in enumerate(data["id"]) if k != 2]
    assert len(of_left.text) == 5


def test_dropping_every_row_is_an_error(rows):
    recipe, processor, data, lengths = rows(too_long="drop")
    with pytest.raises(InputError, match="no row is left"):
        fitting_rows(recipe, processor, data, lengths, 3)


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_resized_rows_fit_and_keep_their_text(rows, method):
    recipe, processor, data, lengths = rows(method, too_long="resize")
    limit = just_below_the_longest(lengths)
    left, of_left = fitting_rows(recipe, processor, data, lengths, limit)
    assert max(of_left.longest()) <= limit
    assert of_left == counted(processor, left, METHODS[method].answers)
    row = left[list(left["id"]).index(data["id"][2])]
    assert row["prompt"] == data[2]["prompt"]
    assert row["images"][0].width < 256
    assert sorted(left["id"]) == sorted(data["id"])


def test_a_row_that_no_image_size_makes_fit_is_refused(rows):
    recipe, processor, data, lengths = rows(too_long="resize")
    with pytest.raises(InputError, match="does not fit 9 tokens at any image size"):
        fitting_rows(recipe, processor, data, lengths, 9)


def test_cutting_never_goes_through_image_tokens(rows):
    recipe, processor, data, lengths = rows(too_long="cut")
    longest = max(lengths.longest())
    assert fitting_rows(recipe, processor, data, lengths, longest - 1)[0] is data
    prompt = lengths.text[2] + lengths.images[2]
    with pytest.raises(InputError, match="Cutting would go through image tokens"):
        fitting_rows(recipe, processor, data, lengths, prompt)


def test_the_limit_is_the_context_or_max_length_and_leaves_room_for_what_is_sampled(write_recipe, start):
    assert limit_of(read_recipe(write_recipe()), str(start)) == 2048
    assert limit_of(read_recipe(write_recipe(trainer={"max_length": 100})), str(start)) == 100
    assert limit_of(read_recipe(write_recipe("grpo", trainer={"max_completion_length": 48})), str(start)) == 2000


def test_training_and_checking_refuse_what_max_length_cannot_hold(rows, start, write_recipe, data):
    path = write_recipe(model={"path": str(start)}, trainer={"max_length": 12})
    recipe, processor = read_recipe(path), load_processor(str(start))
    made = with_ids(Dataset.from_parquet(str(parquet(recipe.data.train))))
    for asked in (lambda: rows_to_train_on(recipe, processor, made, str(start)), lambda: plan(recipe)):
        with pytest.raises(InputError, match="rows are longer than 12 tokens"):
            asked()


def test_check_says_how_long_rows_are(write_recipe, start):
    found = plan(read_recipe(write_recipe(model={"path": str(start)})))
    assert 0 < found["tokens_median"] <= found["tokens_95_percent"] <= found["tokens_max"] < 2048
    assert len(found["longest_rows"]) == 3
    assert found["rows_too_long"] == 0


def test_a_check_makes_the_model_once_and_leaves_nothing(write_recipe, monkeypatch):
    made, build = [], prepared._build
    monkeypatch.setattr(
        prepared, "_build", lambda section, texts, folder: made.append(folder) or build(section, texts, folder)
    )
    recipe = read_recipe(write_recipe(model={"path": "tiny"}))
    assert plan(recipe)["tokens_max"] > 0
    assert len(made) == 1
    assert not made[0].parent.exists()
    assert not Path(recipe.output).exists()


def test_only_the_longest_few_are_listed():
    ids = [f"r{k}" for k in range(20)]
    assert listed(ids, list(range(20)), range(5, 20)).startswith("r19 (19), r18 (18)")
    assert listed(ids, list(range(20)), range(5, 20)).endswith("and 5 more")
