"""What the published question-answer sets have in common: their files, and what makes a question closed."""

from pathlib import Path
from typing import Any

from data_builders.imaging.images import ImageError, inside, open_image
from data_builders.schema import Quarantined, Written, WrittenTask
from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json_list
from rewards.config.strict_yaml import regular

YES_NO = ("yes", "no")


def needed(root: Path, name: str, *, source: str, where: str) -> Path:
    """The file or folder ``name`` under ``root``.

    Raises: InputError that names what is missing and where the set is to be had.
    """
    path = root / name
    if not regular(path).exists():
        raise InputError(f"{source}: {path}: not there. Expected the official files; get them from {where}.")
    return path


def json_list(path: Path, *, source: str) -> list[dict[str, Any]]:
    """The records of a JSON list.

    Raises: InputError if the file holds something else.
    """
    try:
        content = read_json_list(path, "Get the official file anew.")
    except InputError as fault:
        raise InputError(f"{source}: {fault}") from None
    if not all(isinstance(record, dict) for record in content):
        raise InputError(f"{source}: {path}: expected a list of records. Get the official file anew.")
    return content


def task_of(answer: str, kind: str | None = None) -> WrittenTask:
    """``closed`` where the set says so or, where it says nothing, the answer is yes or no."""
    if kind is not None:
        return "closed" if kind.strip().upper() == "CLOSED" else "open"
    return "closed" if answer.strip().casefold() in YES_NO else "open"


def written(
    *,
    id: str,
    patient: str,
    image: str,
    folder: Path,
    question: Any,
    answer: Any,
    kind: str | None,
    split: str | None,
    provenance: dict[str, Any],
) -> Written | Quarantined:
    """One question about one image file under ``folder``, or why it cannot be used."""
    try:
        picture = open_image(inside(folder, image))
    except ImageError as fault:
        return Quarantined(id=id, reason=str(fault))
    said = str("" if answer is None else answer).strip()
    return Written(
        id=id,
        patient=patient,
        study=patient,
        images=(picture,),
        names=(image,),
        question=str("" if question is None else question).strip(),
        answer=said,
        task=task_of(said, kind),
        split=split,
        provenance=provenance,
    )
