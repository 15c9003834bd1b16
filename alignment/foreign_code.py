"""No code that comes with a model is run, and no pickle of one is opened: the one gate to ``from_pretrained``.

Unless it is told otherwise, transformers asks on standard input whether it may run a folder's Python. Here such a model
is an error before anything of it is loaded. Left out: asking. Whoever trusts the code makes a checkpoint without it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rewards.strict_yaml import InputError

PICKLES = ("pytorch_model*.bin", "adapter_model*.bin")
CODE = ("*.py", "custom_generate/*.py")
OF_ENGINES = ("zero_to_fp32.py", "zero_to_torch.py")
"""What DeepSpeed puts beside its checkpoints for people to run; nothing here loads it."""
SAFE = {"trust_remote_code": False, "use_safetensors": True}
"""How trl, which loads models itself, must load them."""
CURE = (
    "clinalign runs no code that comes with a model. Use a checkpoint that transformers loads without it; if it knows "
    "this architecture itself, take the 'auto_map' entries and the Python files out of a copy."
)


def pretrained(kind: Any, path: str | Path, **options: Any) -> Any:
    """``kind.from_pretrained(path, **options)`` without any code of the model's own.

    Raises: InputError if the model at ``path``, a folder or a hub name, brings code or pickled weights.
    """
    if "gguf_file" not in options:  # which a package carries, beside its own Python
        refuse_foreign_code(path)
    try:
        return kind.from_pretrained(path, **options, trust_remote_code=False)
    except ValueError as fault:
        if "trust_remote_code" not in str(fault):
            raise
        raise InputError(f"{path}: it is made of custom code. {CURE}") from None


def refuse_foreign_code(path: str | Path) -> None:
    """Does nothing for a hub name, or a folder of nothing but data.

    Raises: InputError naming the code, or the pickled weights, that the folder holds.
    """
    folder = Path(path)
    if not folder.is_dir():
        return
    if code := next(_code(folder), None):
        raise InputError(f"{folder}: {code}. {CURE}")
    pickled = next((file for pattern in PICKLES for file in sorted(folder.glob(pattern))), None)
    if pickled is not None and not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{pickled}: weights as a Python pickle, which can run code when it is opened; only safetensors are read. "
            "Where you trust the file, load it elsewhere and save it anew (save_pretrained writes safetensors)."
        )


def _code(folder: Path) -> Iterator[str]:
    """Where the folder names or holds code."""
    for file in sorted(folder.glob("*config.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, OSError):  # damaged: its reader says so
            continue
        if _has_auto_map(content):
            yield f"{file.name} names custom code ('auto_map')"
    for pattern in CODE:
        found = [file for file in sorted(folder.glob(pattern)) if file.name not in OF_ENGINES]
        yield from (f"holds custom code ({file.relative_to(folder)})" for file in found)


def _has_auto_map(content: Any) -> bool:
    if isinstance(content, dict):
        return bool(content.get("auto_map")) or any(map(_has_auto_map, content.values()))
    return isinstance(content, list) and any(map(_has_auto_map, content))
