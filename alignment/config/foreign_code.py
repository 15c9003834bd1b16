"""No code that comes with a model is run, and no pickle of one is opened: the one gate to ``from_pretrained``.

Unless it is told otherwise, transformers asks on standard input whether it may run a folder's Python. Here such a model
is an error before anything of it is loaded. Left out: asking. Whoever trusts the code makes a checkpoint without it.
"""

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json

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


class NotLoaded(InputError):
    """What a model needs is neither in its folder nor to be had from the hub."""


def pretrained(kind: Any, path: str | Path, **options: Any) -> Any:
    """``kind.from_pretrained(path, **options)`` without any code of the model's own.

    Raises: InputError if the model at ``path``, a folder or a hub name, brings code or pickled weights; NotLoaded if
    it is not there, or lacks a file.
    """
    if "gguf_file" not in options:  # which a package carries, beside its own Python
        refuse_foreign_code(path)
    with faults_of_files(path):
        return kind.from_pretrained(path, **options, trust_remote_code=False)


@contextlib.contextmanager
def faults_of_files(path: str | Path) -> Generator[None]:
    """Whatever transformers says of a model whose files it does not find or cannot read is one sentence.

    Raises: InputError; the operating system's own errors pass.
    """
    try:
        yield
    except InputError:
        raise
    except _unreadable() as fault:
        if isinstance(fault, OSError) and fault.errno is not None:
            raise
        if isinstance(fault, ValueError) and "trust_remote_code" in str(fault):
            raise InputError(f"{path}: it is made of custom code. {CURE}") from None
        raise not_loaded(path, fault) from fault


def _unreadable() -> tuple[type[Exception], ...]:
    """What transformers raises for files that are damaged, or of a model that it does not know."""
    return OSError, ValueError, ImportError, *_not_as_expected()


def _not_as_expected() -> tuple[type[Exception], ...]:
    """What transformers raises for a file that holds something else."""
    from huggingface_hub.errors import StrictDataclassError  # with a network client, which no reading needs

    return KeyError, AttributeError, TypeError, IndexError, ArithmeticError, StrictDataclassError


def not_loaded(path: str | Path, fault: Exception) -> NotLoaded:
    """One sentence for what transformers says of files that it does not find or cannot read.

    >>> str(not_loaded("a/b", OSError("no such model. See the docs")))
    "a/b: could not be loaded (no such model). Name a model's folder, or download it first: hf download a/b."
    """
    said = " ".join(str(fault).split())
    if isinstance(fault, _not_as_expected()):  # of a file that holds something else
        said = f"a file of it is not as expected, {type(fault).__name__} {said}"
    elsewhere = f"Name a model's folder, or download it first: hf download {path}."
    cure = "Copy or train the model anew." if Path(path).is_dir() else elsewhere
    return NotLoaded(f"{path}: could not be loaded ({said.partition('. ')[0].rstrip('.')[:200]}). {cure}")


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
        if _has_auto_map(read_json(file, "Copy the model anew.")):
            yield f"{file.name} names custom code ('auto_map')"
    for pattern in CODE:
        found = [file for file in sorted(folder.glob(pattern)) if file.name not in OF_ENGINES]
        yield from (f"holds custom code ({file.relative_to(folder)})" for file in found)


def _has_auto_map(content: Any) -> bool:
    if isinstance(content, dict):
        return bool(content.get("auto_map")) or any(map(_has_auto_map, content.values()))
    return isinstance(content, list) and any(map(_has_auto_map, content))
