"""Conversations and questions of the user's own, in any shape that ``formats/messages.py`` reads, of any file.

A record may hold, beside its words and images: ``id``, ``patient``, ``split``, ``task``, ``options``, ``answers``
(all that count as right), and ``boxes`` in pixels of its images (``box_images``: of which). Without patients, records
that share a picture are one group. A record that cannot be read is quarantined under its line.
Left out: boxes in other units, and facts under a rule set (``labelled`` reads a table of those).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_builders.formats.image_groups import ImageGroups
from data_builders.formats.messages import Conversation, conversation, shape_of
from data_builders.formats.record_images import RecordError, RecordImage, image_name, opened_image
from data_builders.formats.records import Record, Unreadable, records
from data_builders.formats.references import Reference, reference
from data_builders.imaging.images import image_key
from data_builders.schema import Message, Quarantined, Written, message_text
from rewards.config.input_error import InputError, nearest

LICENCE = "not known to clinalign: that of the user's file"
UNTAGGED = "records without an image tag: their images open the first question"
REPEATED = "records that say the same as an earlier one"
OPTIONS_ADDED = "questions that did not name their options: they are written under them"


def chats(
    *, file: Path, images: Path | None = None, patient: str = "patient", licence: str | None = None
) -> Iterator[Written | Quarantined]:
    """One conversation for each record of ``file``, in its order.

    ``images``: the folder in which image paths start (None: that of the file). ``patient``: the key or column that
    names the patient. ``licence``: under which the records stand, for the card.

    Raises: InputError if the file is missing, of no known kind or shape, or if no record has the named patient.
    """
    file = Path(file)
    root = Path(images) if images is not None else file.parent
    if not root.is_dir():
        raise InputError(f"chats: images: no folder {root}. Give the folder in which the file's image paths start.")
    survey = _Survey(file, root, patient)
    for record in records(file):
        yield survey.sample(record)


@dataclass
class _Survey:
    """What must be known of all records before the first is used: repeated ids, patients, shared pictures."""

    file: Path
    root: Path
    patient: str
    ids: Counter[str] = field(default_factory=Counter[str])
    given: Counter[str] = field(default_factory=Counter[str])
    groups: ImageGroups = field(default_factory=ImageGroups)
    keys: dict[RecordImage, str] = field(default_factory=dict[RecordImage, str])
    has_patients: bool = False

    def __post_init__(self) -> None:
        seen = Counter[str]()
        num_shaped = 0
        for record in records(self.file):
            if isinstance(record, Record):
                self.ids[_given_id(record.values)] += 1
                self.has_patients |= bool(_text(record.values.get(self.patient)))
                num_shaped += shape_of(record.values) is not None
                seen.update(list(record.values))
        if not num_shaped:
            raise InputError(_no_shape(self.file, seen))
        if not self.has_patients and self.patient != "patient":
            hint = nearest(self.patient, list(seen))
            raise InputError(f"chats: patient: no record of {self.file} has '{self.patient}'.{hint}")
        if not self.has_patients:
            self._join_shared()

    def _join_shared(self) -> None:
        for record in records(self.file):
            try:
                if isinstance(record, Record):
                    self.groups.join([self._key(image) for image in conversation(record.values).images])
            except RecordError:
                continue  # told where the record is used

    def _key(self, image: RecordImage) -> str:
        """A picture by its pixels; one that is held in a file is opened once."""
        if image.content is not None:
            return image_key(opened_image(image, self.root))
        if image not in self.keys:
            self.keys[image] = image_key(opened_image(image, self.root))
        return self.keys[image]

    def sample(self, record: Record | Unreadable) -> Written | Quarantined:
        """What a record says, or why it cannot be used."""
        if isinstance(record, Unreadable):
            return Quarantined(id=record.location, reason=record.reason)
        try:
            return self._written(record)
        except RecordError as fault:
            return Quarantined(id=record.location, reason=str(fault))

    def _written(self, record: Record) -> Written:
        values, found = record.values, conversation(record.values)
        images = tuple(opened_image(image, self.root) for image in found.images)
        known = reference(values, message_text(found.messages[-1:]), [image.size for image in images])
        messages = _with_options(found.messages, known)
        name, repeated = self._id(values, found, known)
        patient = self._patient(values, found, name)
        notes = {UNTAGGED: found.untagged, REPEATED: repeated, OPTIONS_ADDED: messages != found.messages}
        return Written(
            id=name,
            patient=patient,
            study=_text(values.get("study")) or patient,
            images=images,
            names=tuple(image_name(image) for image in found.images),
            question=message_text(messages[-2:-1]),
            answer=known.answer,
            task=known.task,
            split=_text(values.get("split")) or record.split,
            provenance={"record": record.location},
            messages=tuple(messages),
            reference=known.columns,
            notes=(*(note for note, holds in notes.items() if holds), *known.notes),
            patient_known=self.has_patients,
        )

    def _id(self, values: dict[str, Any], found: Conversation, known: Reference) -> tuple[str, bool]:
        """The id that a record has alone, and whether another before it says the very same.

        One that several have is followed by a hash of what is said, so that no answer is held against another's row.
        """
        given = _given_id(values)
        if given and self.ids[given] == 1:
            return given, False
        content = [found.messages, [image_name(image) for image in found.images], vars(known)]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
        name = f"{given}-{digest[:8]}" if given else digest[:16]
        self.given[name] += 1
        number = self.given[name]
        return (name if number == 1 else f"{name}-{number}"), number > 1

    def _patient(self, values: dict[str, Any], found: Conversation, name: str) -> str:
        if self.has_patients:
            if patient := _text(values.get(self.patient)):
                return patient
            raise RecordError(f"it has no '{self.patient}', as other records do, so no split can be chosen for it")
        if found.images:
            return f"image {self.groups.name(self._key(found.images[0]))}"
        return f"text {hashlib.sha256(message_text(found.messages).encode()).hexdigest()[:16]}"


def _given_id(values: dict[str, Any]) -> str:
    return _text(values.get("id"))


def _text(value: Any) -> str:
    """A name as text; empty where there is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _with_options(messages: list[Message], known: Reference) -> list[Message]:
    """The messages whose last question names its options: without them nobody could choose."""
    options = known.columns.get("options") or []
    text = message_text(messages[-2:-1]).casefold()
    if all(option.casefold() in text for option in options):
        return messages
    listed = "\n".join(f"{chr(ord('A') + k)}. {option}" for k, option in enumerate(options))
    question = messages[-2]
    content = [*question["content"], {"type": "text", "text": listed}]
    if content[-2]["type"] == "text":
        content[-2:] = [{"type": "text", "text": f"{content[-2]['text']}\n{listed}"}]
    return [*messages[:-2], {**question, "content": content}, messages[-1]]


def _no_shape(file: Path, seen: Counter[str]) -> str:
    """That no record has a known shape, with what there is and what there could be."""
    keys = ", ".join(key for key, _ in seen.most_common(12)) or "no keys"
    return (
        f"{file}: no record has a shape that is known. Seen: {keys}. Known: conversations (LLaVA, ShareGPT), messages "
        "(ms-swift, TRL, OpenAI), query and response (ms-swift), prompt and completion (TRL), instruction and output "
        "(Alpaca), question and answer. Rename the keys."
    )
