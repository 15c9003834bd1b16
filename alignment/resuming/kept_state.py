"""Any state of lists, dicts, numbers, texts and tensors as one safetensors file: the tree as JSON beside the tensors.

Numbers come back bit for bit. Left out: tuples, which come back as lists, and keys that are no texts.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

TENSOR = "__tensor__"


def write_state(file: Path, state: Any) -> None:
    """Writes the state.

    Raises: TypeError for a value that is none of the above.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = json.dumps(_without_tensors(state, tensors))
    save_file(tensors, file, metadata={"tree": tree})


def _without_tensors(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {TENSOR: name}
    if isinstance(value, dict):
        return {key: _without_tensors(part, tensors) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(part, tensors) for part in value]
    return value


def read_state(file: Path, device: torch.device | str = "cpu") -> Any:
    """The state, its tensors on ``device``."""
    target = torch.device(device)
    target = "cpu" if target.type == "cpu" else str(target)  # accelerate numbers CPUs too, which safetensors does not
    with safe_open(file, framework="pt", device=target) as opened:
        tree = json.loads(opened.metadata()["tree"])
        return _with_tensors(tree, opened)


def _with_tensors(value: Any, opened: Any) -> Any:
    if isinstance(value, dict):
        if TENSOR in value:
            return opened.get_tensor(value[TENSOR])
        return {key: _with_tensors(part, opened) for key, part in value.items()}
    return [_with_tensors(part, opened) for part in value] if isinstance(value, list) else value
