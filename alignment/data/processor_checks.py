"""Rows that a model's chat template or image processor refuses, told by the row before the first answer or step.

Left out: what no model could read, which ``data_builders.row_checks`` finds without one.
"""

import contextlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from jinja2 import TemplateError
from PIL import Image

from data_builders.imaging.images import pixels
from rewards.config.input_error import InputError

EXTREME_SHAPE = 10
"""Longer edge over shorter: from here on a processor is asked whether it takes the picture."""
SHORT_EDGE = 32
"""In pixels: up to here it is asked, too."""


@contextlib.contextmanager
def faults_of_row(row: Mapping[str, Any], place: int, images: Sequence[Image.Image]) -> Generator[None]:
    """What a template or processor says against a row becomes one sentence that names the row.

    Raises: InputError instead of the ``TemplateError`` of a chat template or the ``ValueError`` of a processor.
    """
    name = row["id"] if row.get("id") is not None else f"{place} (counted from 0)"
    try:
        yield
    except TemplateError as fault:
        roles = [message["role"] for message in row["prompt"]]
        raise InputError(
            f"data: row {name}: the model's chat template refuses its messages (prompt roles {', '.join(roles)}): "
            f"{fault}. Mend the row's messages, or leave it out."
        ) from fault
    except ValueError as fault:
        sizes = ", ".join(f"{image.width} x {image.height}" for image in images) or "none"
        raise InputError(
            f"data: row {name}: the model's processor refuses it (images: {sizes}): {str(fault).splitlines()[0]}. "
            "Mend what it names (a picture: pad or resize it), or leave the row out."
        ) from fault


def check_processing(processor: Any, rows: Iterable[Mapping[str, Any]]) -> None:
    """Tries each form of prompt once, and each picture of an extreme shape, of rows as Parquet stores them.

    Raises: InputError naming the first row that the template or the processor refuses.
    """
    tried: set[Any] = set()
    for place, row in enumerate(rows):
        form = tuple((m["role"], *_block_types(m["content"])) for m in row["prompt"])
        images = [pixels(image) for image in (row["images"] or [])[: _num_shown(row["prompt"])]]
        sizes = tuple(image.size for image in images if _is_extreme(image))
        if {form, sizes} <= tried:
            continue
        with faults_of_row(row, place, images):
            text = processor.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
            if sizes and sizes not in tried:
                processor(text=[text], images=[[image.convert("RGB") for image in images]], return_tensors="pt")
        tried |= {form, sizes}


def _num_shown(prompt: Any) -> int | None:
    """How many images the prompt itself shows, before those of later turns; None: all, as with texts for contents."""
    types = [_block_types(message["content"]) for message in prompt]
    return None if any(isinstance(m["content"], str) for m in prompt) else sum(t.count("image") for t in types)


def _block_types(content: Any) -> list[str]:
    return ["text"] if isinstance(content, str) else [block["type"] for block in content]


def check_file(processor: Any, file: Path) -> None:
    """``check_processing`` of every row of a Parquet file, a few rows at a time."""
    opened = pq.ParquetFile(file)
    wanted = [name for name in ("id", "images", "prompt") if name in opened.schema_arrow.names]
    check_processing(processor, (row for batch in opened.iter_batches(64, columns=wanted) for row in batch.to_pylist()))


def _is_extreme(image: Image.Image) -> bool:
    short, long = sorted(image.size)
    return short <= SHORT_EDGE or long >= EXTREME_SHAPE * short
