"""Image tensors of a batch, row by row: every family's processor lays images out in its own way.

Left out: families outside ``shared_prefix.PROVEN``.
"""

import io
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from datasets import Dataset, Image, List
from PIL import Image as PilImage
from PIL import ImageOps

from rewards.config.input_error import InputError

Fields = dict[str, torch.Tensor]
IMAGE_FIELDS = ("pixel_values", "image_grid_thw", "image_sizes", "pixel_attention_mask")
OF_IMAGES = ("image_grid_thw", "image_sizes")
UNDECODED = Image(decode=False)


def by_row(fields: Fields, num_images: Sequence[int], num_tiles: Sequence[int] | None = None) -> list[Fields] | None:
    """Views of each row's share of the fields, or None if the layout is not understood.

    Args:
        fields: what the processor gives beside tokens: pixels and what describes them, or fields with one entry a row.
        num_images: images of each row.
        num_tiles: tiles of each row, where ``pixel_values`` counts tiles (InternVL).
    """
    parts = {}
    for name, values in fields.items():
        sizes = _sizes(name, fields, num_images, num_tiles)
        if sum(sizes) != len(values):
            return None
        parts[name] = values.split(sizes)
    return [{name: part[k] for name, part in parts.items()} for k in range(len(num_images))]


def _sizes(name: str, fields: Fields, num_images: Sequence[int], num_tiles: Sequence[int] | None) -> list[int]:
    """How many entries of a field belong to each row."""
    grid = fields.get("image_grid_thw")
    if name in OF_IMAGES:
        return list(num_images)
    if name != "pixel_values" or (fields[name].dim() == 5 and "image_sizes" not in fields):  # Idefics3: filled up
        return [1] * len(num_images)
    if grid is not None:
        patches = iter(grid.prod(dim=-1).tolist())  # read at once: a GPU is waited for once, not for every row
        return [sum(islice(patches, count)) for count in num_images]
    return list(num_tiles if num_tiles is not None else num_images)


def joined(rows: Sequence[Fields]) -> Fields:
    """The fields of these rows as one batch; without any image the image fields are left out."""
    fields = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    return {name: values for name, values in fields.items() if len(values)}


def same_rows(prompts: Sequence[Sequence[int]], rows: Sequence[Fields]) -> list[list[int]]:
    """Indices of rows with the same prompt and the same images, in order of first appearance."""
    groups: list[list[int]] = []
    first: dict[tuple[int, ...], list[list[int]]] = {}
    for k, prompt in enumerate(prompts):
        candidates = first.setdefault(tuple(prompt), [])
        group = next((g for g in candidates if _equal(rows[g[0]], rows[k])), None)
        if group is None:
            group = []
            candidates.append(group)
            groups.append(group)
        group.append(k)
    return groups


def _equal(row: Fields, other: Fields) -> bool:
    return all(torch.equal(values, other[name]) for name, values in row.items())


def with_images(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with ``images`` as a list: its own, the one of ``image``, or none.

    Raises: InputError where ``images`` is a single image.
    """
    images = row.get("images")
    if images is None:
        images = [] if row.get("image") is None else [row["image"]]
    if not isinstance(images, list | tuple):
        kind = type(images).__name__
        raise InputError(f"images: a row has a {kind}, not a list of images; call a column of single images 'image'.")
    return {**row, "images": images}


def undecoded(data: Dataset) -> Dataset:
    """The data with images left as bytes: TRL's sampler asks for every row G times, and would decode it G times.

    Columns that are no plain images, and data with a transform of their own, are left as they are.
    """
    if data.format["type"] is not None:
        return data
    for name, plain, left in (("images", List(Image()), List(Image(decode=False))), ("image", Image(), UNDECODED)):
        if name in data.column_names and data.features[name] == plain:
            data = data.cast_column(name, left)
    return data


def decoded_once(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with each different image decoded once and shared, upright as ``datasets`` decodes it."""
    known: dict[Any, PilImage.Image] = {}

    def decoded(image: Any) -> PilImage.Image:
        if not isinstance(image, dict):  # decoded, or a name that the processor opens
            return image
        key = image["bytes"] or image["path"]
        if key not in known:
            with PilImage.open(io.BytesIO(key) if isinstance(key, bytes) else key) as opened:
                opened.load()
                known[key] = ImageOps.exif_transpose(opened)
        return known[key]

    def of(row: dict[str, Any]) -> dict[str, Any]:
        several = {"images": [decoded(i) for i in row["images"]]} if row.get("images") else {}
        return row | several | ({"image": decoded(row["image"])} if row.get("image") is not None else {})

    return [of(row) for row in rows]
