"""What the model is given for one row: the image as processed, the tokens, which of them carry loss."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from alignment.config.data_entries import parquet
from alignment.data.processed_size import ProcessedSizes
from alignment.data.processor_checks import faults_of_row
from alignment.data.row_cache import few_rows
from alignment.dialogues.sft import IGNORED, row_tokens
from alignment.dialogues.turns import rendered
from data_builders.build.user_file import holds_pairs, rows_in_memory, user_file
from data_builders.imaging.images import pixels
from data_builders.output_folders import check_file
from data_builders.row_checks import Check, check_rows
from rewards.boxes.coordinate_space import whole
from rewards.config.input_error import InputError

PICTURES = (".png", ".jpg", ".jpeg")
MADE_BY = "clinalign inspect"
SHOWN_COLUMNS = ("id", "patient", "split", "task", "facts", "answer", "boxes", "relevance", "weight", "kind")


def inspect_row(data: str, index: int, model: str, out: Path) -> dict[str, Any]:
    """The row's columns and, with a model's processor, its tokens; writes the processed image to ``out``.

    In ``tokens`` a trained token stands in brackets. Raises: InputError if there is no such row, or ``out`` cannot be.
    """
    if model:
        check_file(out, kinds=PICTURES, inputs=[Path(data), Path(f"{data}.parquet")], is_own=_is_ours)
    foreign = user_file(data, ("prompt",))
    row = _row_of_file(data, index, model) if foreign is None else _row_of_user(foreign, index)
    shown = {name: row[name] for name in SHOWN_COLUMNS if row.get(name) is not None}
    if "boxes" in shown:
        shown["boxes"] = [whole(box) for box in shown["boxes"]]
    return shown | (_as_processed(row, index, model, out) if model else {})


def _row_of_file(data: str, index: int, model: str) -> dict[str, Any]:
    """The row of a file of rows, which is whole and, for a model, has what that is given."""
    file = parquet(data)
    number = pq.read_metadata(file).num_rows
    if not 0 <= index < number:
        raise InputError(f"--row {index}: {data} has rows 0 to {number - 1}." if number else f"{data} holds no rows.")
    if model and (lacking := [name for name in ("images", "prompt") if name not in pq.read_schema(file).names]):
        raise InputError(f"{file}: has no column {' and '.join(lacking)}, so a model is given nothing of it.")
    check_rows(file, Check(("images", "prompt") if model else (), row=index))
    return few_rows(file, index, 1)[0]


def _row_of_user(file: Path, index: int) -> dict[str, Any]:
    """The row that a user's file makes, as training would build it: of pairs, or of whole conversations.

    Raises: InputError if it makes no such row.
    """
    kind = "preference" if holds_pairs(file) else "instruction"
    rows = rows_in_memory(file, kind, ("prompt",))
    row = next(islice(rows, max(0, index), None), None) if index >= 0 else None
    if row is None:
        raise InputError(f"--row {index}: {file} makes no such row; rows are counted from 0.")
    return {**row, "images": [pixels(image) for image in row["images"]]}


def _is_ours(picture: Path) -> bool:
    """Whether ``inspect`` wrote the picture, and it is no patient's."""
    try:
        with Image.open(picture) as opened:
            return opened.info.get("Software") == MADE_BY or opened.info.get("comment") == MADE_BY.encode()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # whatever a file that is none makes of it
        return False


def _save(picture: Image.Image, out: Path) -> None:
    """Writes the picture with a note of who made it, which ``_is_ours`` reads."""
    note = PngInfo()
    note.add_text("Software", MADE_BY)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix.lower() == ".png":
        picture.save(out, pnginfo=note)
    else:
        picture.save(out, comment=MADE_BY)


def _as_processed(row: dict[str, Any], index: int, model: str, out: Path) -> dict[str, Any]:
    from alignment.config.checkpoint_folders import check_model_name
    from alignment.models.processors import load_processor

    check_model_name(model)
    processor: Any = load_processor(model)
    answer = row.get("completion") or row.get("chosen") or []
    images = {"images": [row["images"]]} if row["images"] else {}
    with faults_of_row(row, index, row["images"]):
        if answer:
            made = row_tokens(processor, {**row, "completion": answer})
            whole = rendered(processor, [*row["prompt"], *answer])
        else:
            whole = rendered(processor, row["prompt"], ask=True)
            made = {"input_ids": processor(text=[whole], **images)["input_ids"][0]}
            made["labels"] = [IGNORED] * len(made["input_ids"])
        given = processor(text=[whole], **images, return_tensors="pt")
    ids, labels = made["input_ids"], made["labels"]
    image_id = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    result = {
        "image_tokens": ids.count(image_id),
        "prompt_tokens": next((k for k, label in enumerate(labels) if label != IGNORED), len(ids)),
        "trained_tokens": sum(label != IGNORED for label in labels),
        "tokens": _shown_tokens(processor.tokenizer, ids, labels, image_id),
    }
    if row["images"]:
        result["image_as_processed"] = str(out)
        result |= _pictured(row["images"], given["pixel_values"].numpy(), processor, out)
    return result


def _pictured(images: list[Image.Image], given: np.ndarray, processor: Any, out: Path) -> dict[str, Any]:
    """Writes the first image as the model is given it; the sizes of the images, before and after.

    Where a processor gives patches in rows (Qwen), which are no picture, the row's own is shown at the size of those.
    """
    sizes = {"image_size": [[image.width, image.height] for image in images]}
    if given.ndim > 3:  # pictures or tiles of them, with channels, height and width
        _save(processed_image(given), out)
        return sizes
    processed = ProcessedSizes(processor).of(images)
    _save(images[0].convert("RGB").resize((processed[0][0], processed[0][1])), out)
    return {**sizes, "processed_size": processed}


def _shown_tokens(tokenizer: Any, ids: list[int], labels: list[int], image_id: int) -> str:
    """The words of all tokens but those of images, which are many; those with loss in brackets."""
    shown = [
        f"[{tokenizer.decode([token])}]" if label != IGNORED else tokenizer.decode([token])
        for token, label in zip(ids, labels, strict=True)
        if token != image_id
    ]
    return " ".join(shown).replace("\n", "\\n")


def processed_image(values: np.ndarray) -> Image.Image:
    """The first image of a (..., 3, height, width) array, stretched to 0..255."""
    plane = values.reshape(-1, *values.shape[-3:])[0].mean(axis=0)
    low, high = float(plane.min()), float(plane.max())
    return Image.fromarray((255 * (plane - low) / max(high - low, 1e-9)).astype(np.uint8))
