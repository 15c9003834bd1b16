"""Log-probabilities under the frozen reference model, computed once for a row and kept on disk.

A file belongs to one model and processor: weights, tokenizer, chat template and image settings make its name. In it,
a row is known by its images, prompt and answers. Left out: removing old files.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from alignment.shared_prefix.support import base_model
from rewards.config.input_error import InputError

Logps = dict[str, list[float]]


KINDS = ("image_features", "reference_logps", "row_lengths")
"""The folders in it; what else lies there is not ours."""


def cache_folder(run: Path | None = None) -> Path:
    """``CLINALIGN_CACHE``, which runs share, or ``.cache`` in the run's folder, which goes with it.

    Raises: InputError where there is neither.
    """
    shared = os.environ.get("CLINALIGN_CACHE")
    if not shared and run is None:
        raise InputError("cache: every run keeps its own; name its folder, or one for all of them in CLINALIGN_CACHE.")
    return Path(shared) if shared else Path(str(run)) / ".cache"


def scratch(file: Path) -> Path:
    """Where a file grows until it is whole: a name that no other process takes, on this node or another."""
    return file.with_name(f"{file.name}.{uuid.uuid4().hex}.tmp")


def reference_file(model: Any, processor: Any, max_length: int | None = None, *, run: Path | None = None) -> Path:
    """Where the log-probabilities under this reference lie. A fresh adapter, which is switched off, does not count."""
    digest = hashlib.sha256(f"{base_model(model).config.model_type} {max_length}".encode())
    weights = model.state_dict(keep_vars=True).items()
    add_weights(digest, [(name, w) for name, w in weights if "lora_" not in name or ".ref." in name])
    for text in processor_settings(processor):
        digest.update(text.encode())
    return cache_folder(run) / "reference_logps" / f"{digest.hexdigest()[:32]}.safetensors"


def add_weights(digest: Any, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Adds weights to a digest: whole ones, also where ZeRO-3 has left each rank a share (all ranks must come here)."""
    for name, tensor in sorted(weights, key=lambda named: named[0]):
        with _whole(tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())


def _whole(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    if not hasattr(tensor, "ds_id"):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters([tensor])


def processor_settings(processor: Any) -> Iterable[str]:
    """Everything of the processor that decides what the model is given."""
    yield getattr(processor, "tokenizer", processor).backend_tokenizer.to_str()
    yield str(processor.chat_template)
    if hasattr(processor, "image_processor"):  # a tokenizer has none
        yield json.dumps(processor.image_processor.to_dict(), sort_keys=True, default=str)


def row_key(row: dict[str, Any]) -> str:
    """SHA-256 of a row's pixels and texts."""
    digest = hashlib.sha256()
    for name in ("images", "rejected_images"):
        for image in row.get(name) or []:
            digest.update(f"{name} {image.mode} {image.size}".encode())
            digest.update(image.tobytes())
    texts = {name: row[name] for name in ("prompt", "chosen", "rejected")}
    texts |= {"chat_template_kwargs": row["chat_template_kwargs"]} if row.get("chat_template_kwargs") else {}
    digest.update(json.dumps(texts, sort_keys=True).encode())
    return digest.hexdigest()


def read_references(file: Path) -> Logps:
    """What is known already: for a row's key, the log-probability of each token of its answers in turn."""
    if not file.is_file():
        return {}
    content = load_file(file)
    values = content["logps"].split(content["lengths"].tolist())
    keys = [bytes(k.tolist()).hex() for k in content["keys"]]
    return {key: value.tolist() for key, value in zip(keys, values, strict=True)}


def write_references(file: Path, logps: Logps) -> None:
    """Replaces the file in one step, so that a killed run leaves a whole one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "keys": torch.tensor([list(bytes.fromhex(key)) for key in logps], dtype=torch.uint8),
        "lengths": torch.tensor([len(values) for values in logps.values()]),
        "logps": torch.tensor([v for values in logps.values() for v in values], dtype=torch.float32),
    }
    unfinished = scratch(file)
    save_file(content, unfinished)
    unfinished.replace(file)
