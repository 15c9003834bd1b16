import io
import os

import pytest
from PIL import Image

from data_builders.imaging.images import ImageError, decoded, inside, open_image, png_bytes
from data_builders.row_checks import open_parquet
from data_builders.sources.images.bccd import bccd
from data_builders.sources.images.iu_xray import iu_xray
from data_builders.sources.images.open_i import open_i
from rewards.config.input_error import InputError


def noise(mode="L"):
    return Image.effect_noise((16, 12), 60).convert(mode)


def test_a_file_inside_the_root_is_found_by_its_name(tmp_path):
    assert inside(tmp_path, "a/../b/x.png") == tmp_path.resolve() / "b" / "x.png"


def test_a_link_that_stays_inside_the_root_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert inside(tmp_path, "link/x.png") == (tmp_path / "real" / "x.png").resolve()


def test_a_folder_whose_name_begins_like_the_root_is_outside_of_it(tmp_path):
    with pytest.raises(InputError, match="leaves the data root"):
        inside(tmp_path / "data", "../data_of_others/x.png")


def test_a_name_of_which_no_path_can_be_made_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("a\0b.png", "loop/x.png"):
        with pytest.raises(InputError, match="no path can be made"):
            inside(tmp_path, name)


def test_an_image_is_read_to_its_last_pixel(tmp_path):
    noise("RGB").save(tmp_path / "x.png")
    image = open_image(tmp_path / "x.png")
    assert image.getpixel((15, 11)) == noise_pixel(tmp_path / "x.png")


def noise_pixel(path):
    with Image.open(path) as image:
        return image.convert("RGB").getpixel((15, 11))


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(30)])
def test_what_is_no_image_is_refused_with_its_name(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"^x\.png: unreadable image"):
        open_image(tmp_path / "x.png")


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "TIFF", "BMP"])
def test_a_truncated_image_is_refused_in_every_format(tmp_path, format_):
    noise("RGB").resize((200, 200)).save(tmp_path / "x", format=format_)
    whole = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="unreadable image"):
        open_image(tmp_path / "x")


def test_a_missing_image_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        open_image(tmp_path / "x.png")
    with pytest.raises(ImageError, match="unreadable image"):
        open_image(tmp_path)


def test_an_image_that_only_claims_to_be_huge_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    noise().save(tmp_path / "x.png")
    with pytest.raises(ImageError, match="decompression bomb"):
        open_image(tmp_path / "x.png")


def test_nothing_and_no_pixels_are_no_image():
    with pytest.raises(ImageError, match="there is no image"):
        decoded(None)
    with pytest.raises(ImageError, match="no pixels"):
        decoded(Image.new("L", (0, 5)))


def test_the_same_pixels_give_the_same_bytes_whatever_comes_with_them():
    plain, told = noise(), noise()
    told = plain.copy()
    told.info |= {"icc_profile": b"profile of a scanner", "dpi": (300, 300), "Comment": "patient 7"}
    assert png_bytes(plain) == png_bytes(told) == png_bytes(plain)
    assert b"patient" not in png_bytes(told)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_an_image_of_every_mode_can_be_written(mode):
    again = Image.open(io.BytesIO(png_bytes(noise(mode if mode != "HSV" else "RGB").convert(mode))))
    assert again.size == (16, 12)


def test_writing_leaves_the_image_as_it_was():
    image = noise()
    image.info["icc_profile"] = b"kept"
    png_bytes(image)
    assert image.info["icc_profile"] == b"kept"


def test_no_source_waits_for_a_pipe_among_its_files(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "ecgen-radiology").mkdir()
    (tmp_path / "NLMCXR_png").mkdir()
    pipes = [tmp_path / name for name in ("Annotations/1.xml", "ecgen-radiology/1.xml", "t.parquet", "reports.tgz")]
    for pipe in pipes:
        os.mkfifo(pipe)
    (smear,), (study,) = bccd(root=tmp_path), iu_xray(root=tmp_path)
    for refused in (smear, study):
        assert "not a regular file but a pipe" in refused.reason
    for read in (open_parquet, lambda path: list(open_i(path))):
        with pytest.raises(InputError, match="not a regular file but a pipe"):
            read(pipes[2] if read is open_parquet else pipes[3])
