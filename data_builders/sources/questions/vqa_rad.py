"""VQA-RAD (Lau et al. 2018, Sci Data): clinicians' questions about radiographs, CT and MRI.

Files, from osf.io/89kps: ``VQA_RAD Dataset Public.json`` and ``VQA_RAD Image Folder``. Its own split is by phrase type
(``test_freeform``, ``test_para``) and shares images between train and test, which the build refuses; leave
``source_splits`` away and images are split as a whole.
"""

from collections.abc import Iterator
from pathlib import Path

from data_builders.schema import Quarantined, Written
from data_builders.sources.questions.vqa_files import json_list, needed, written

LICENCE = "VQA-RAD, CC0 1.0 by the card of its copy on the Hugging Face hub; see source: osf.io/89kps"


def vqa_rad(*, root: Path) -> Iterator[Written | Quarantined]:
    """Every question in the file's order. A patient is a MedPix case, or the image where no case is named.

    Raises: InputError naming the file that is missing.
    """
    where = "osf.io/89kps"
    file = needed(Path(root), "VQA_RAD Dataset Public.json", source="vqa_rad", where=where)
    folder = needed(Path(root), "VQA_RAD Image Folder", source="vqa_rad", where=where)
    for place, record in enumerate(json_list(file, source="vqa_rad")):
        image, phrase = str(record.get("image_name", "")), str(record.get("phrase_type", ""))
        yield written(
            id=f"vqa_rad-{record.get('qid', place)}",
            patient=str(record.get("image_case_url") or image),
            image=image,
            folder=folder,
            question=record.get("question"),
            answer=record.get("answer"),
            kind=record.get("answer_type"),
            split="test" if phrase.startswith("test") else "train",
            provenance={"question_type": record.get("question_type"), "organ": record.get("image_organ")},
        )
