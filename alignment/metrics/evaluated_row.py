"""A prompt row as it is evaluated: what its columns hold.

Left out: rows in training, whose columns are the user's (``datasets`` gives them as they are).
"""

from typing import NotRequired, TypedDict

from PIL import Image

from data_builders.schema import Message
from rewards.boxes.coordinate_space import BoxSpace


class StoredImage(TypedDict):
    """An image as Parquet stores it: its encoded bytes, or where it lies."""

    bytes: bytes | None
    path: str | None


class EvaluatedRow(TypedDict):
    """One row with all that is known of its question; a column stands open (None) where nothing is.

    Columns that need not be there are known to some sets alone (see ``prompt_rows.SHARED_COLUMNS``);
    ``box_space`` and ``processed_size`` are of the model that answers, ``completion`` is of instruction rows.
    """

    id: str
    patient: str
    task: str
    images: list[StoredImage | Image.Image]
    prompt: list[Message]
    answer: str | None
    boxes: list[list[float]] | None
    facts: str
    rule_set: str
    completion: NotRequired[list[Message]]
    stage: NotRequired[str | None]
    capability: NotRequired[str | None]
    guidelines: NotRequired[list[str] | None]
    provenance: NotRequired[str | None]
    target: NotRequired[str | None]
    box_grid: NotRequired[int | None]
    image_size: NotRequired[list[list[int]] | None]
    answers: NotRequired[list[str] | None]
    options: NotRequired[list[str] | None]
    box_images: NotRequired[list[int] | None]
    regions: NotRequired[str | None]
    attributes: NotRequired[str | None]
    may_leave: NotRequired[bool | None]
    dialogue: NotRequired[str | None]
    box_space: NotRequired[BoxSpace]
    processed_size: NotRequired[list[list[int]]]
