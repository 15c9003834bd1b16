"""The files of a model's folder, checked by their headers before any weight is read: missing, truncated, unreadable.

Tensors of a wrong size are known only where they are loaded (``faults_of_weights``). Left out: hashes of the weights.
"""

import contextlib
from collections.abc import Generator, Iterator
from functools import lru_cache
from pathlib import Path

from alignment.config.foreign_code import not_loaded
from rewards.config.input_error import InputError
from rewards.config.json_lines import json_value, read_json

CURE = "Copy or train the model anew."
CONFIGS = (
    "config.json", "adapter_config.json", "processor_config.json", "preprocessor_config.json", "tokenizer.json",
    "tokenizer_config.json", "generation_config.json",
)  # fmt: skip
WEIGHTS = ("safetensors", "bin")
MISMATCH = ("ignore_mismatched_sizes", "size mismatch")
"""What transformers and torch say of a tensor whose size is not the model's."""


def check_model_files(folder: Path) -> None:
    """Raises InputError that names the first file of the folder which is missing a part, and the cure."""
    for file in [folder / name for name in CONFIGS if (folder / name).is_file()]:
        stamp = file.stat()
        keys = _keys(file, stamp.st_size, stamp.st_mtime_ns)
        if file.name == "config.json" and "model_type" not in keys:
            raise InputError(f"{file}: names no model_type, so no model is known for it. {CURE}")
    for index in sorted(folder.glob("*.index.json")):
        shards = read_json(index, CURE).get("weight_map")
        if not isinstance(shards, dict):
            raise InputError(f"{index}: names no weights (weight_map). {CURE}")
        lacking = sorted({str(shard) for shard in shards.values() if not (folder / str(shard)).is_file()})
        if lacking:
            raise InputError(f"{folder}: lacks {', '.join(lacking)}, which {index.name} names. {CURE}")
    for file in sorted(folder.glob("*.safetensors")):
        if fault := next(_faults(file), None):
            raise InputError(f"{file}: {fault}. {CURE}")


@lru_cache(maxsize=64)  # a tokenizer has megabytes, and a model's folder is asked for several times
def _keys(file: Path, _size: int, _changed: int) -> frozenset[str]:
    return frozenset(read_json(file, CURE))


def _faults(file: Path) -> Iterator[str]:
    """What is wrong with a safetensors file by its header: its length, then JSON, then as many bytes as that says."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 or length > size - 8:
            yield f"is truncated ({size} bytes)"
            return
        try:
            header = json_value(opened.read(length), file.name, "")
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            yield "is no safetensors file (its header is not readable)"
            return
    if (whole := 8 + length + max(ends, default=0)) != size:
        yield f"is {'truncated' if size < whole else 'damaged'} ({size} bytes, its header says {whole})"


@contextlib.contextmanager
def faults_of_weights(path: str) -> Generator[None]:
    """One sentence where the folder holds no weights, or they do not fit the model that its config describes.

    Raises: InputError, also instead of the ``RuntimeError`` of transformers or torch about tensors of a wrong size, and
    of the ``OSError`` of transformers about a file that neither folder nor hub has.
    """
    folder = Path(path)
    if folder.is_dir():
        check_model_files(folder)
        if not any(any(folder.glob(f"*.{kind}")) for kind in WEIGHTS):
            raise InputError(f"{folder}: holds no weights (no *.safetensors). {CURE}")
    try:
        yield
    except OSError as fault:  # trl loads some models itself
        if fault.errno is not None or "huggingface.co" not in str(fault):
            raise
        raise not_loaded(path, fault) from fault
    except RuntimeError as fault:
        if not any(sign in str(fault) for sign in MISMATCH):
            raise
        why = " ".join(str(fault).split())[:200]
        raise InputError(f"{path}: its tensors have other sizes than its config.json says ({why}). {CURE}") from fault
