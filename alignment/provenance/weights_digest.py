"""The SHA-256 by which weights are known: an evaluation says whose it is, a release refuses that of another model.

Of an adapter, its base counts too: retrained, the two are another model. Left out: optimiser states, and the
processor, which a card tells by its files.
"""

import hashlib
from pathlib import Path

from alignment.config.checkpoint_folders import base_of, model_folder

WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model*.bin")


def model_sha256(path: str) -> str | None:
    """SHA-256 over the weights of a run, a model folder or a cached Hugging Face model; None where no file is found.

    Raises: InputError if ``path`` is a folder without a checkpoint.
    """
    folder = model_folder(path)
    base = base_of(folder)
    names = [folder] if base == folder else [base, folder]
    files = [file for name in names for file in weight_files(folder_of(name))]
    return files_sha256(files) if files else None


def weight_files(folder: Path | None) -> list[Path]:
    """The files of weights that lie in a folder, by name."""
    return sorted({file for kind in WEIGHTS for file in folder.glob(kind)}) if folder else []


def files_sha256(files: list[Path]) -> str:
    """SHA-256 over the bytes of the files, in this order, whatever they are called."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while chunk := opened.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def folder_of(name: str) -> Path | None:
    """The folder itself, or where the cache keeps a model of the hub; None if it keeps none of this name."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:  # neither a folder nor a name that the hub could have
        return None
    return Path(found).parent if isinstance(found, str) else None
