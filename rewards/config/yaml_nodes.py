"""YAML of bounded size: aliases that multiply, cycles and deep nesting are refused before anything is built of them.

Nine lines of aliases can stand for a billion values ("billion laughs"), which hang whatever walks them.
"""

from typing import Any

import yaml

MAX_ALIASED = 10_000
"""Values that all aliases of a text may stand for together."""
MAX_DEPTH = 50
MAX_BITS = 4096
"""Of an integer: Python writes none of more than 4,300 digits, and YAML reads longer ones (0xff..., 1:00:...)."""


class TooLarge(yaml.YAMLError):
    """What a text says is more than it may be."""


class BoundedLoader(yaml.SafeLoader):
    """``yaml.SafeLoader`` that counts what aliases stand for while it composes, and how deep it is."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._sizes: dict[int, int] = {}
        self._depth = self._aliased = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """One node, as PyYAML 6 composes it. Raises: TooLarge."""
        is_alias, line = self.check_event(yaml.AliasEvent), self.peek_event().start_mark.line + 1
        if self._depth >= MAX_DEPTH:
            raise TooLarge(f"line {line} is nested more than {MAX_DEPTH} deep")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias:
            if id(node) not in self._sizes:
                raise TooLarge(f"the alias in line {line} stands within what it names")
            self._aliased += self._sizes[id(node)]
            if self._aliased > MAX_ALIASED:
                raise TooLarge(f"aliases (*name) up to line {line} stand for more than {MAX_ALIASED:,} values")
        else:
            self._sizes[id(node)] = 1 + sum(self._sizes[id(part)] for part in _parts(node))
        return node


def _int(loader: BoundedLoader, node: yaml.ScalarNode) -> int:
    value = int(loader.construct_yaml_int(node))
    if value.bit_length() > MAX_BITS:
        raise TooLarge(f"line {node.start_mark.line + 1} holds a number of thousands of digits")
    return value


BoundedLoader.add_constructor("tag:yaml.org,2002:int", _int)


def _parts(node: yaml.Node | None) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def bounded_yaml(text: str) -> Any:
    r"""The content of a YAML text.

    Raises: yaml.YAMLError if it is not YAML, or TooLarge, which is one.

    >>> bounded_yaml("a: &x [1, 2]\nb: *x")
    {'a': [1, 2], 'b': [1, 2]}
    """
    try:
        return yaml.load(text, Loader=BoundedLoader)
    except (ValueError, AttributeError, IndexError, KeyError) as fault:  # PyYAML 6 on "2001-99-99" or "!!int ''"
        raise yaml.YAMLError(f"a value that cannot be read ({fault})") from None
