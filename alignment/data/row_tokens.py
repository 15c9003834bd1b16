"""How many tokens a row costs, image tokens among them: counted once for a file and processor, and kept on disk.

An image's tokens depend on its size alone: one image of each size is processed, and of the others only the header is
read. What is done with the counts stands in ``fitting_rows.py`` (rows too long) and ``token_batches.py``.
"""

import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from PIL import Image as PilImage
from safetensors.torch import load_file, save_file

from alignment.data.processor_checks import faults_of_row
from alignment.data.row_cache import read_once
from alignment.distributed.ranks import of_rank_0
from alignment.distributed.shared_folder import made_once
from alignment.shared_prefix.prompt_groups import group
from alignment.shared_prefix.reference_cache import cache_folder, processor_settings, scratch
from data_builders.imaging.images import upright


@dataclass(frozen=True)
class Lengths:
    """Tokens of each row (N): its prompt's text, its images, and each of its answers (N x answers)."""

    text: list[int]
    images: list[int]
    answers: list[list[int]]

    def packed(self) -> list[int]:
        """All answers behind one prompt."""
        return self._with(sum)

    def longest(self) -> list[int]:
        """The prompt and the longest of its answers: what a model's context must hold."""
        return self._with(lambda answers: max(answers, default=0))

    def _with(self, of_answers: Any) -> list[int]:
        every = zip(self.text, self.images, self.answers, strict=True)
        return [text + images + of_answers(answers) for text, images, answers in every]

    def of(self, places: Iterable[int]) -> "Lengths":
        """Those of some rows."""
        kept = list(places)
        return Lengths(
            [self.text[k] for k in kept], [self.images[k] for k in kept], [self.answers[k] for k in kept]
        )  # fmt: skip


def counted(processor: Any, rows: Iterable[Any], answers: Sequence[str]) -> Lengths:
    """The lengths of rows, whose images are decoded or not (``Image(decode=False)``).

    Raises: InputError naming the row that the model's chat template or image processor refuses.
    """
    of_images: dict[tuple[tuple[int, int], ...], int] = {}
    found = Lengths([], [], [])
    for place, row in enumerate(rows):
        images = [_opened(image) for image in row["images"] or []]
        with faults_of_row(row, place, images):
            made = group(processor, images, row["prompt"], [row[name] for name in answers] or [_nothing()])
            plain = _num_tokens(processor, made.prompt)
            sizes = tuple(image.size for image in images)
            if sizes not in of_images:
                text = made.prompt + "".join(made.answers[:1])  # images may open later turns
                given = {"images": [images]} if sizes else {}
                of_images[sizes] = len(processor(text=[text], **given)["input_ids"][0]) - _num_tokens(processor, text)
        found.text.append(plain)
        found.images.append(of_images[sizes])
        found.answers.append([_num_tokens(processor, text) for text in made.answers] if answers else [])
    return found


def _nothing() -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": [{"type": "text", "text": " "}]}]


def _num_tokens(processor: Any, text: str) -> int:
    return len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])


def _opened(image: Any) -> PilImage.Image:
    """The image; of an undecoded one only the header is read, unless it says that the picture lies on its side."""
    if isinstance(image, PilImage.Image):
        return image
    return upright(PilImage.open(io.BytesIO(image["bytes"]) if image["bytes"] else image["path"]))


def lengths_of_file(processor: Any, file: Path, answers: Sequence[str], *, run: Path | None = None) -> Lengths:
    """The lengths of every row of a Parquet file; counted by rank 0, read by all others, which all come by here.

    Without a run's folder, as in a check, they are not kept, unless ``CLINALIGN_CACHE`` says where.
    """
    columns = ["images", "prompt", *answers]
    if run is None and not os.environ.get("CLINALIGN_CACHE"):
        return counted(processor, read_once(file, columns), answers)
    kept = cache_folder(run) / "row_lengths" / f"{of_rank_0(lambda: _key(processor, file, answers))}.safetensors"
    known = columns + ["id"] * ("id" in pq.read_schema(file).names)
    made_once(kept, lambda: _write(kept, counted(processor, read_once(file, known), answers)))
    content = load_file(kept)
    return Lengths(content["text"].tolist(), content["images"].tolist(), content["answers"].tolist())


def _key(processor: Any, file: Path, answers: Sequence[str]) -> str:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256")
    for text in (*processor_settings(processor), *answers):
        digest.update(text.encode())
    return digest.hexdigest()[:32]


def _write(file: Path, lengths: Lengths) -> None:
    content = {
        "text": torch.tensor(lengths.text, dtype=torch.int64),
        "images": torch.tensor(lengths.images, dtype=torch.int64),
        "answers": torch.tensor(lengths.answers, dtype=torch.int64),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = scratch(file)
    save_file(content, unfinished)
    unfinished.replace(file)
