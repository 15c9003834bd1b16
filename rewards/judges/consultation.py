"""Multi-turn consultations in the formats of PulseMind (arXiv 2601.07344) and CMtMedQA, read into turns.

Dialogue text names its speakers (English or Chinese) and its images inside the patient's words. What cannot be read is
given back with its id and reason. Left out: decoding images, and rewriting or translating what was said.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rewards.config.csv_rows import Misfit, csv_rows
from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json_list

Speaker = Literal["patient", "doctor"]
SPEAKERS: dict[str, Speaker] = {
    "patient": "patient",
    "患者": "patient",
    "病人": "patient",
    "doctor": "doctor",
    "医生": "doctor",
}
SPEAKER = re.compile(rf"^[ \t*]*({'|'.join(SPEAKERS)})[ \t*]*[:：][ \t*]*", re.IGNORECASE | re.MULTILINE)
IMAGES = re.compile(
    r"<image\s*([\w.\-]+(?:\s*[,，、]\s*[\w.\-]+)*)\s*>|<attachment>([^<>]{0,10000})</?attachment>", re.IGNORECASE
)
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Turn:
    """What one speaker said in one go; ``images`` by the names that stand in the text, in order."""

    speaker: Speaker
    text: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Consultation:
    """A dialogue. It may begin with the doctor, and one speaker may have two turns in a row."""

    id: str
    turns: tuple[Turn, ...]

    @property
    def doctor_turns(self) -> list[int]:
        """Where the doctor speaks after the patient has: the turns that a model answers."""
        first = next((k for k, turn in enumerate(self.turns) if turn.speaker == "patient"), len(self.turns))
        return [k for k, turn in enumerate(self.turns) if turn.speaker == "doctor" and k > first]


@dataclass(frozen=True)
class Unread:
    """A record that is no consultation, and why."""

    id: str
    reason: str


def read_dialogue(text: str) -> tuple[Turn, ...]:
    r"""The turns of a dialogue whose lines begin with ``Patient:`` or ``Doctor:`` (or the Chinese words).

    Images stand as ``<image1,2>`` or ``<attachment>a,b<attachment>``; they leave the text and keep their order.
    Raises: ValueError if words stand before the first speaker, or there is no speaker.

    >>> read_dialogue("Patient: It hurts. <image1,2>\nDoctor: Since when?")[0]
    Turn(speaker='patient', text='It hurts.', images=('1', '2'))
    """
    marks = list(SPEAKER.finditer(text))
    if not marks or text[: marks[0].start()].strip():
        raise ValueError("no speaker is named" if not marks else "words stand before the first speaker")
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    turns = [_turn(SPEAKERS[m.group(1).casefold()], text[m.end() : end]) for m, end in zip(marks, ends, strict=True)]
    return tuple(turn for turn in turns if turn.text or turn.images)


def _turn(speaker: Speaker, text: str) -> Turn:
    names = [n.strip() for m in IMAGES.finditer(text) for n in re.split(r"[,，、]", m.group(1) or m.group(2) or "")]
    words = re.sub(rf"[ \t]{{0,8}}(?:{IMAGES.pattern})[ \t]{{0,8}}", " ", text, flags=re.IGNORECASE).strip()
    return Turn(speaker, words, tuple(name for name in names if name))


def read_meddiagnose(file: Path) -> Iterator[Consultation | Unread]:
    """Consultations of a CSV file with columns ``Id`` and ``Response`` (the dialogue).

    Raises: InputError if the file or a column is missing, or it is not UTF-8.
    """
    for number, row in enumerate(csv_rows(file, check=partial(_check_header, file)), start=1):
        if isinstance(row, Misfit):
            yield Unread(f"row {number}", row)
            continue
        name = row["Id"] or f"row {number}"
        try:
            yield Consultation(name, read_dialogue(row["Response"]))
        except ValueError as fault:
            yield Unread(name, str(fault))


def _check_header(file: Path, header: list[str]) -> None:
    if not {"Id", "Response"} <= set(header):
        raise InputError(f"{file}: expected columns Id and Response, got {', '.join(header)[:300]}.")


def read_cmtmedqa(file: Path) -> Iterator[Consultation | Unread]:
    """Consultations of a JSON list of ``instruction``, ``output`` and ``history`` ([question, answer] pairs).

    Raises: InputError if the file is missing or is no JSON list.
    """
    for number, record in enumerate(read_json_list(file, "Write a list of records.")):
        yield _cmtmedqa(str(number), record)


def _cmtmedqa(number: str, record: Any) -> Consultation | Unread:
    if not isinstance(record, dict):
        return Unread(number, f"expected an object, got {type(record).__name__}")
    rounds = [*(record.get("history") or ()), [record.get("instruction"), record.get("output")]]
    if not all(
        isinstance(r, list) and len(r) == 2 and all(isinstance(s, str) and s.strip() for s in r) for r in rounds
    ):
        return Unread(number, "a question or an answer is missing or is no text")
    turns = [
        turn
        for question, answer in rounds
        for turn in (Turn("patient", question.strip()), Turn("doctor", answer.strip()))
    ]
    return Consultation(number, tuple(turns))


def image_files(consultation: Consultation, root: Path) -> dict[str, Path]:
    """The file of each image that the consultation names: ``root/ID/NAME.*`` or ``root/NAME.*``.

    Raises: InputError naming the images that are missing, or lie outside ``root``.
    """
    names = list(dict.fromkeys(name for turn in consultation.turns for name in turn.images))
    found = {name: file for name in names if (file := _image_file(root, consultation.id, name)) is not None}
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(f"consultation {consultation.id}: no image {', '.join(missing)} under {root}.")
    return found


def _image_file(root: Path, case: str, name: str) -> Path | None:
    candidates = [root / case / name, root / name]
    files = [
        candidate.with_name(candidate.name + suffix) for candidate in candidates for suffix in ("", *IMAGE_SUFFIXES)
    ]
    inside = [f for f in files if f.is_file() and f.resolve().is_relative_to(root.resolve())]
    return inside[0] if inside else None


def replay(consultation: Consultation, respond: Callable[[Sequence[Turn]], str]) -> Consultation:
    """The consultation with a model in the doctor's place: the real patient's turns, the model's own earlier replies.

    The patient does not react to what the model asks (PulseMind's open-loop protocol).
    """
    spoken: list[Turn] = []
    answered = set(consultation.doctor_turns)
    for k, turn in enumerate(consultation.turns):
        spoken.append(replace(turn, text=respond(spoken), images=()) if k in answered else turn)
    return replace(consultation, turns=tuple(spoken))


def transcript(turns: Sequence[Turn]) -> str:
    """Turns as text, each on its own lines with its speaker and the names of its images."""
    return "\n".join(
        f"{turn.speaker.title()}: {turn.text}" + (f" <image{','.join(turn.images)}>" if turn.images else "")
        for turn in turns
    )
