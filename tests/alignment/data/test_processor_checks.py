"""A prompt is tried with the images that it shows, not with those of later turns."""

from io import BytesIO

from PIL import Image

from alignment.data.processor_checks import check_processing
from alignment.models.processors import load_processor
from alignment.models.tiny import build_tiny
from data_builders.schema import user_turn


def test_a_row_whose_images_open_later_turns_is_tried_with_those_of_its_prompt(tmp_path):
    processor = load_processor(str(build_tiny(["What changed?"], tmp_path, family="qwen3_vl", image_size=64)))
    buffer = BytesIO()
    Image.new("RGB", (32, 96)).save(buffer, "PNG")
    image = {"bytes": buffer.getvalue(), "path": None}
    check_processing(processor, [{"id": "r", "images": [image, image], "prompt": user_turn("What changed?")}])
