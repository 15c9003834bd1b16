"""The processor of a checkpoint, within the pixel budget."""

from pathlib import Path
from typing import Any

from transformers import (
    AutoProcessor,
)

from alignment.config.checkpoint_folders import base_of, model_folder
from alignment.config.foreign_code import pretrained


def load_processor(path: str, *, max_pixels: int | None = None) -> Any:
    """The processor, padding on the left (a setting that is lost on saving), within the pixel budget."""
    folder = model_folder(path)
    processor = pretrained(AutoProcessor, base_of(folder) if not _has_processor(folder) else folder)
    processor.tokenizer.padding_side = "left"
    if max_pixels is not None:
        limit_pixels(processor.image_processor, max_pixels)
    return processor


def limit_pixels(image_processor: Any, max_pixels: int) -> None:
    """The one place where the pixel budget (width x height) enters, in the terms of each family's processor."""
    size = dict(image_processor.size)
    edge = int(max_pixels**0.5)
    if hasattr(image_processor, "merge_size"):  # Qwen-VL: sizes are pixel counts
        size["longest_edge"], size["shortest_edge"] = (
            max_pixels,
            min(size.get("shortest_edge", max_pixels), max_pixels),
        )
    else:
        size = {key: min(int(value), edge) for key, value in size.items()}
    image_processor.size = size


def _has_processor(folder: str) -> bool:
    return not Path(folder).is_dir() or any(
        (Path(folder) / name).is_file() for name in ("processor_config.json", "preprocessor_config.json")
    )
