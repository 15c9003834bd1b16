"""A DPO recipe whose data are a CSV of the user's pairs."""

import pytest
from PIL import Image

from alignment.checks.read_recipe import read_recipe
from alignment.config.data_entries import train_rows
from rewards.config.input_error import InputError


def csv_of_pairs(folder, name="a.png"):
    Image.new("L", (64, 64), 9).save(folder / "a.png")
    file = folder / "own.csv"
    file.write_text(f"image,question,chosen,rejected\n{name},Is it?,Yes,No\n{name},Where?,Left,Right\n")
    return str(file)


@pytest.mark.parametrize("method", ["dpo", "reward_model"])
def test_a_csv_of_pairs_is_what_a_recipe_trains_on(write_recipe, tmp_path, method):
    recipe = read_recipe(write_recipe(method, data={"train": csv_of_pairs(tmp_path)}))
    (first, second) = train_rows(recipe).records(["prompt", "chosen", "rejected", "images", "weight"])
    assert [block["type"] for block in first["prompt"][0]["content"]] == ["image", "text"]
    assert second["rejected"][0]["content"][0]["text"] == "Right"
    assert (len(first["images"]), first["weight"]) == (1, 1.0)


def test_pairs_whose_images_are_elsewhere_stop_the_recipe(write_recipe, tmp_path):
    with pytest.raises(InputError, match=r"data\.train: .*own\.csv: none of the images is there .*gone\.png"):
        read_recipe(write_recipe("dpo", data={"train": csv_of_pairs(tmp_path, "gone.png")}))
    assert not list(tmp_path.glob("*.data/*/card.json"))
