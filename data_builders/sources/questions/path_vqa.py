"""PathVQA (He et al. 2020): questions about pathology images from textbooks.

Files, from github.com/UCSD-AI4H/PathVQA: ``qas/SPLIT/SPLIT_qa.pkl`` (or the same as ``.json``) and
``images/SPLIT/NAME.jpg``. The pickles hold lists of plain records; they are read by an unpickler that refuses every
class, so that a file can do nothing but hold data.
"""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_builders.schema import Quarantined, Written
from data_builders.sources.questions.vqa_files import json_list, needed, written
from rewards.config.input_error import InputError

LICENCE = (
    "PathVQA, MIT by the card of its copy on the Hugging Face hub; images and captions belong to the "
    "publishers of two textbooks and to PEIR; see source: github.com/UCSD-AI4H/PathVQA"
)
SPLITS = ("train", "val", "test")
DAMAGED = (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, OSError)


class _PlainUnpickler(pickle.Unpickler):
    """Lists, dicts, strings and numbers; any class or function in the file is refused."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise pickle.UnpicklingError(f"it names {module_name}.{global_name}; only plain data are read")


def path_vqa(*, root: Path) -> Iterator[Written | Quarantined]:
    """Every question, split by split. A patient is an image: the source names none.

    Raises: InputError naming the file that is missing, or is not plain data.
    """
    where = "github.com/UCSD-AI4H/PathVQA"
    folder = needed(Path(root), "images", source="path_vqa", where=where)
    for split in SPLITS:
        for place, record in enumerate(_records(Path(root), split, where=where)):
            name = f"{split}/{record.get('image', '')}.jpg"
            yield written(
                id=f"path_vqa-{split}-{place}",
                patient=name,
                image=name,
                folder=folder,
                question=record.get("question"),
                answer=record.get("answer"),
                kind=None,
                split=split,
                provenance={},
            )


def _records(root: Path, split: str, *, where: str) -> list[dict[str, Any]]:
    as_json = root / "qas" / split / f"{split}_qa.json"
    if as_json.is_file():
        return json_list(as_json, source="path_vqa")
    path = needed(root, f"qas/{split}/{split}_qa.pkl", source="path_vqa", where=where)
    try:
        with path.open("rb") as file:
            content = _PlainUnpickler(file).load()
    except DAMAGED as fault:
        raise InputError(f"path_vqa: {path}: not readable as plain data ({fault}).") from None
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise InputError(f"path_vqa: {path}: expected a list of records.")
    return content
