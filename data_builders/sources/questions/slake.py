"""SLAKE (Liu et al. 2021): questions about CT, MRI and chest radiographs, in English and Chinese.

Files, from med-vqa.com/slake: ``train.json``, ``validate.json``, ``test.json`` and ``imgs/xmlabN/source.jpg``. Its own
splits are by image. Left out: its knowledge graph, organ masks and boxes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from data_builders.schema import Quarantined, Written
from data_builders.sources.questions.vqa_files import json_list, needed, written

LICENCE = "SLAKE: see source: med-vqa.com/slake"

SPLITS = ("train", "validate", "test")


def slake(*, root: Path, language: Literal["en", "zh"] = "en") -> Iterator[Written | Quarantined]:
    """Every question in one language, split by split. A patient is an image: the source names none.

    Raises: InputError naming the file that is missing.
    """
    where = "med-vqa.com/slake"
    folder = needed(Path(root), "imgs", source="slake", where=where)
    files = {split: needed(Path(root), f"{split}.json", source="slake", where=where) for split in SPLITS}
    for split, file in files.items():
        for place, record in enumerate(json_list(file, source="slake")):
            if record.get("q_lang") != language:
                continue
            image = str(record.get("img_name", ""))
            yield written(
                id=f"slake-{split}-{record.get('qid', place)}",
                patient=str(Path(image).parent),
                image=image,
                folder=folder,
                question=record.get("question"),
                answer=record.get("answer"),
                kind=record.get("answer_type"),
                split=split,
                provenance={key: record.get(key) for key in ("location", "modality", "content_type")},
            )
