"""What the model is given for one row: the image as processed, the tokens, which of them carry loss."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from alignment.config.data_entries import parquet
from alignment.data.processor_checks import faults_of_row
from alignment.data.row_cache import few_rows
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
    file = parquet(data)
    number = pq.read_metadata(file).num_rows
    if not 0 <= index < number:
        raise InputError(f"--row {index}: {data} has rows 0 to {number - 1}." if number else f"{data} holds no rows.")
    if model and (lacking := [name for name in ("images", "prompt") if name not in pq.read_schema(file).names]):
        raise InputError(f"{file}: has no column {' and '.join(lacking)}, so a model is given nothing of it.")
    check_rows(file, Check(("images", "prompt") if model else (), row=index))
    row: dict[str, Any] = few_rows(file, index, 1)[0]
    shown = {name: row[name] for name in SHOWN_COLUMNS if row.get(name) is not None}
    if "boxes" in shown:
        shown["boxes"] = [whole(box) for box in shown["boxes"]]
    return shown | (_as_processed(row, index, model, out) if model else {})


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
        prompt = processor.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
        whole = processor.apply_chat_template([*row["prompt"], *answer], tokenize=False) if answer else prompt
        given = processor(text=[prompt], **images, return_tensors="pt")
    ids = given["input_ids"][0].tolist()
    trained = processor.tokenizer(whole.removeprefix(prompt), add_special_tokens=False)["input_ids"]
    image_id = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    result = {
        "image_tokens": ids.count(image_id),
        "prompt_tokens": len(ids),
        "trained_tokens": len(trained),
        "tokens": _shown_tokens(processor.tokenizer, [i for i in ids if i != image_id], trained),
    }
    if row["images"]:
        _save(processed_image(given["pixel_values"].numpy()), out)
        result["image_as_processed"] = str(out)
    return result


def _shown_tokens(tokenizer: Any, prompt: list[int], trained: list[int]) -> str:
    plain = [tokenizer.decode([i]) for i in prompt]
    return " ".join([*plain, *[f"[{tokenizer.decode([i])}]" for i in trained]]).replace("\n", "\\n")


def processed_image(pixels: np.ndarray) -> Image.Image:
    """The first image of a (..., 3, height, width) array, stretched to 0..255; patches are shown as a strip."""
    frame = pixels.reshape(-1, *pixels.shape[-3:])[0] if pixels.ndim >= 3 else pixels[None]
    plane = frame.mean(axis=0)
    low, high = float(plane.min()), float(plane.max())
    return Image.fromarray((255 * (plane - low) / max(high - low, 1e-9)).astype(np.uint8))
