"""On which line of a YAML file something stands, so that a fault can be pointed at."""

from functools import lru_cache
from pathlib import Path

import yaml

KeyPath = tuple[str | int, ...]


def line_of(path: Path, key_path: KeyPath) -> int:
    """The line (from 1) of the key or item at ``key_path``, or of the nearest one above it that the file has."""
    node = _composed(path.read_text(encoding="utf-8-sig"))
    line = 1
    for part in key_path:
        found = _step(node, part)
        if found is None:
            return line
        line, node = found
    return line


@lru_cache(maxsize=1)
def _composed(text: str) -> yaml.Node | None:
    """The nodes of a text, composed once for all faults of one file."""
    return yaml.compose(text, Loader=yaml.SafeLoader)


def _step(node: yaml.Node | None, part: str | int) -> tuple[int, yaml.Node] | None:
    """The line and the value of one key or item of a node."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line + 1, node.value[part]
    return None
