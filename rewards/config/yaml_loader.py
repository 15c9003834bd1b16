"""YAML as this program reads it: a key said twice is a fault, tags are not followed, and every fault is a YAMLError.

PyYAML keeps the last of two equal keys without a word, and lets errors of Python through (an integer of 5,000 digits,
a date with a 13th month, brackets nested a thousand deep). Left out: YAML 1.2.
"""

from collections.abc import Iterator
from typing import Any

import yaml

from rewards.config.yaml_nodes import BoundedLoader

PLAIN = "tag:yaml.org,2002:str"


class ReadingError(yaml.YAMLError):
    """Text that is YAML for PyYAML and yet cannot be meant so."""


def loaded(text: str) -> Any:
    """The content of one YAML document.

    Raises: yaml.YAMLError, and nothing else, whatever the text.

    >>> loaded("{seed: 1, rate: 1.0e-3}")
    {'seed': 1, 'rate': 0.001}
    """
    try:
        loader = BoundedLoader(text)
        root = loader.get_single_node()
        _check(loader, root)
        return None if root is None else loader.construct_document(root)
    except (ValueError, OverflowError, AttributeError, IndexError, KeyError) as fault:
        raise ReadingError(f"a number or date that cannot be: {fault}.") from None


def cut_off(text: str) -> str:
    """What of a text YAML takes for a comment after its value, which a shell's user seldom means.

    >>> cut_off("runs/a #1"), cut_off("'runs/a #1'")
    ('#1', '')
    """
    root = BoundedLoader(text).get_single_node()
    rest = text[root.end_mark.index :] if root is not None else text
    return rest[rest.index("#") :] if "#" in rest else ""


def _check(loader: yaml.SafeLoader, root: yaml.Node | None) -> None:
    """Raises ReadingError for a key that stands twice in its mapping, and for a tag."""
    for node in _nodes(root):
        is_plain = isinstance(node, yaml.ScalarNode) and node.style is None
        implicit = loader.resolve(type(node), node.value, (is_plain, not is_plain))
        line = node.start_mark.line + 1
        if node.tag not in (implicit, PLAIN):
            raise ReadingError(f"line {line}: tags such as '{node.tag}' are not read; write the value alone.")
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)


def _check_keys(node: yaml.MappingNode) -> None:
    lines = dict[tuple[str, str], int]()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue  # no key of ours; PyYAML says that it is not hashable
        name, line = (key.tag, key.value), key.start_mark.line + 1
        if name in lines:
            where = f"in line {line}" if line == lines[name] else f"in lines {lines[name]} and {line}"
            raise ReadingError(f"key '{key.value}' stands twice, {where}. Keep one of them.")
        lines[name] = line


def _nodes(root: yaml.Node | None) -> Iterator[yaml.Node]:
    """Every node once, however many aliases point at it."""
    waiting, seen = [root] if root is not None else [], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
