"""Batches of text beside batches of images on several processes: the vision tower runs in every one of them.

Under ZeRO-3 each forward of the tower is a collective, under ZeRO-2 and DDP each of its gradients is one: a process
whose batch holds no image would keep the others waiting for ever. Such a batch sends one small white image through
the tower and adds an empty sum of its features, so that values stay as they are and the tower's gradients are 0.

It is done on one process too, so that a run's numbers do not depend on how many there are. Left out: generation, which
gives every forward a cache (GRPO gathers a sharded model before it generates).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from PIL import Image

from alignment.config.library_names import cache_in
from alignment.shared_prefix.image_rows import IMAGE_FIELDS, Fields
from alignment.shared_prefix.support import base_model

DUMMY_EDGE = 56
ENCODED = ("pixel_values", "mm_encoder_outputs", "image_hidden_states")


def run_vision_always(model: Any, image: Fields) -> None:
    """From now on every forward of ``model`` that is given no cache runs its vision tower. Idempotent.

    ``image``: the fields of one image (see ``dummy_image``), for batches that have none.

    The tower runs between the embedding of tokens and the language model, as it does where there are images: under
    ZeRO-3 all processes must ask for the same parameters in the same order, backward too.
    """
    backbone = base_model(model).base_model
    if not hasattr(backbone, "get_image_features") or getattr(backbone, "_clinalign_vision", None) is not None:
        return
    due: list[bool] = []
    backbone._clinalign_vision = due

    def note(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        due[:] = [True] if all(kwargs.get(name) is None for name in ENCODED) and cache_in(kwargs) is None else []

    def add_nothing(_: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        embedded = kwargs.get("inputs_embeds")
        if not due or embedded is None:
            return None
        due.clear()
        images = {name: values.to(embedded.device) for name, values in image.items()}
        nothing = _empty_sum(backbone.get_image_features(**images, return_dict=True))
        return args, kwargs | {"inputs_embeds": embedded + nothing.to(embedded.dtype)}

    backbone.register_forward_pre_hook(note, with_kwargs=True)
    language_model(backbone).register_forward_pre_hook(add_nothing, with_kwargs=True)


def language_model(backbone: Any) -> Any:
    """The part of a vision-language model that reads embedded tokens."""
    return backbone.language_model if hasattr(backbone, "language_model") else backbone.text_model


def dummy_image(processor: Any) -> Fields:
    """The image fields of one white image, in the form that this family's processor gives."""
    image = Image.new("RGB", (DUMMY_EDGE, DUMMY_EDGE), "white")
    made = processor.image_processor(images=[image], return_tensors="pt")
    return {name: made[name] for name in IMAGE_FIELDS if name in made}


def images_everywhere(rows: Sequence[Mapping[str, Any]]) -> list[list[Any] | None]:
    """The images of each row of all processes, None for a row without; empty where no row has one.

    TRL 1.16 gathers them, to log them, on those processes only whose rows have images: the others never come by.
    """
    shown = gather_object([_images(row) for row in rows])
    return shown if any(shown) else []


def _images(row: Mapping[str, Any]) -> list[Any] | None:
    """Of the columns that TRL knows, else of the prompt's messages."""
    contents = [message["content"] for message in row["prompt"] if isinstance(message, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    shown = [row.get("image"), *(part.get("image") for part in parts)]
    return row.get("images") or [image for image in shown if image is not None] or None


def _empty_sum(encoded: Any) -> torch.Tensor:
    """0, with gradients of 0 for everything that the features which the language model reads were made from."""
    features = [encoded.pooler_output, *(getattr(encoded, "deepstack_features", None) or [])]
    tensors = [t for f in features for t in ([f] if isinstance(f, torch.Tensor) else f)]
    return torch.stack([t[:0].sum() for t in tensors]).sum()
