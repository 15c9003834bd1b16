"""Pictures of records: none is dropped, cut off or taken for one of several without a word."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from data_builders.build.parquet_rows import house_row
from data_builders.formats.messages import conversation
from data_builders.formats.record_images import RecordError, RecordImage, opened_image, record_images
from data_builders.imaging.images import pixels

DEEP = {
    "16 bit": np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000,
    "I": np.arange(64, dtype=np.int32).reshape(8, 8) * 1000 - 20_000,
    "F": np.arange(64, dtype=np.float32).reshape(8, 8) / 64,
}


def stored(array):
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, "TIFF")
    return buffer.getvalue()


@pytest.mark.parametrize("name", DEEP)
def test_deep_grey_values_keep_their_order(tmp_path, name):
    held = stored(DEEP[name])
    row = house_row({"prompt": "Q?", "images": [{"bytes": held, "path": None}]}, tmp_path)
    for image in (opened_image(RecordImage("", held), tmp_path), pixels(row["images"][0])):
        values = np.asarray(image).ravel()
        assert (image.mode, len(set(values)), *values[[0, -1]]) == ("L", 64, 0, 255)
        assert (np.diff(values.astype(int)) > 0).all()


def test_grey_values_that_are_no_numbers_are_refused(tmp_path):
    with pytest.raises(RecordError, match="no numbers"):
        opened_image(RecordImage("", stored(np.full((2, 2), np.nan, np.float32))), tmp_path)


@pytest.mark.parametrize("name", ["v.tif", "v.gif"])
def test_a_file_of_several_pictures_is_refused(tmp_path, name):
    pages = [Image.new("L", (8, 8), shade) for shade in (0, 100, 200)]
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    with pytest.raises(RecordError, match="3 pictures"):
        opened_image(RecordImage(name), tmp_path)
    with pytest.raises(RecordError, match="3 pictures"):
        house_row({"prompt": "Q?", "image": name}, tmp_path)


@pytest.mark.parametrize(
    "record",
    [
        {"jpg": {"bytes": b"...", "path": None}},
        {"picture": {"bytes": None, "path": "a.png"}},
        {"img": b"\x89PNG"},
        {"file_name": "a.png"},
        {"scan": "a.dcm"},
        {"image": "a.png", "image_lateral": "b.png"},
        {"images": ["b.png"], "image": "a.png"},
    ],
)
def test_a_picture_that_would_not_be_read_is_refused(record):
    with pytest.raises(RecordError, match="names a picture"):
        record_images(record)


@pytest.mark.parametrize(
    "record",
    [
        {"image": "films/a.png", "image_id": "a.png", "image_path": "/data/films/a.png"},
        {"image": {"bytes": b"...", "path": None}, "image_name": "a.png"},
        {"image": "a.png", "source": "b.pdf", "report": "b.png"},
        {"image": "a.png", "rejected_images": ["b.png"]},
    ],
)
def test_another_name_of_the_same_picture_is_none(record):
    assert len(record_images(record)) == 1


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"role": "user", "content": "Q?", "images": ["a.png"]}, "a picture under 'images' of a turn"),
        ({"role": "user", "content": "Q?", "image": "a.png"}, "a picture under 'image' of a turn"),
        ({"role": "user", "content": "<|image_1|>Q?"}, "no picture is read"),
        ({"role": "user", "content": "<img>Q?"}, "no picture is read"),
        ({"role": "user", "content": '<img src="a.png">Q?'}, "no picture is read"),
    ],
)
def test_a_picture_of_a_turn_is_never_left_out_without_a_word(turn, reason):
    with pytest.raises(RecordError) as fault:
        conversation({"messages": [turn, {"role": "assistant", "content": "No."}]})
    assert reason in str(fault.value)


def test_a_tag_in_capitals_is_a_tag():
    found = conversation({"question": "<Image>\nQ?", "answer": "no", "image": "a.png"})
    assert [block["type"] for block in found.messages[0]["content"]] == ["image", "text"]
