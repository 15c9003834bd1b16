"""Where in a user's file a fault was written: the line of its key, or the override that took its place."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

from rewards.config.overrides import Override, override_shown
from rewards.config.shipped import here_or_shipped

KeyPath = tuple[str | int, ...]
KEY = r"[\w-]+(?:\[\d+\])*"
PLACE = re.compile(rf"({KEY}(?:\.{KEY})*): ")


@dataclass(frozen=True)
class Written:
    """A YAML file and what was overridden in it, the last override of a key winning.

    ``top``: under which key of the file stands what is read of it.
    """

    path: Path
    overrides: Sequence[Override] = ()
    top: KeyPath = ()

    def at(self, place: KeyPath) -> str:
        """The file and the line of a place, or the override that says what stands there."""
        place = (*self.top, *place)
        override = next((one for one in reversed(self.overrides) if self._says(one, place)), None)
        if isinstance(override, tuple):  # which no user wrote here
            return f"{self.path}, '{override[0]}' as its chain sets it"
        if override is not None:
            return f"{self.path}, {override_shown(override)}"
        return at_line(self.path, line_of(self.path, place))

    def located(self, fault: str) -> str:
        """A fault that begins with its place, as faults of recipes do, with the file and line in front of it."""
        return f"{self.at(named_place(fault))}: {fault}"

    def _says(self, override: Override, place: KeyPath) -> bool:
        key = (override[0] if isinstance(override, tuple) else override.partition("=")[0]).split(".")
        names = [str(part) for part in place]
        made_on_the_way = names == key[: len(names)] and len(lines_to(self.path, place)) < len(place)
        return key == names[: len(key)] or made_on_the_way


def at_line(path: Path, line: int) -> str:
    """How a line of a file is named in a fault.

    >>> at_line(Path("recipe.yaml"), 12)
    'recipe.yaml, line 12'
    """
    return f"{path}, line {line}"


def named_place(fault: str) -> KeyPath:
    """The place that a fault begins with; the top of the file where it begins with none.

    >>> named_place("rewards[1].weight: expected a number"), named_place("no such file: x")
    (('rewards', 1, 'weight'), ())
    """
    found = PLACE.match(fault)
    parts = re.findall(r"[\w-]+", found[1]) if found else []
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def line_of(path: Path, place: KeyPath) -> int:
    """The line (from 1) of the key or item at ``place``, or of the nearest one above it that the file has."""
    return (1, *lines_to(path, place))[-1]


def lines_to(path: Path, place: KeyPath) -> list[int]:
    """The lines (from 1) of the keys and items that lead to ``place``, as far as the file has them."""
    node = _composed(here_or_shipped(path).read_text(encoding="utf-8-sig"))
    lines = list[int]()
    for part in place:
        found = _step(node, part)
        if found is None:
            break
        line, node = found
        lines.append(line)
    return lines


def located_faults(path: Path, faults: Iterable[tuple[KeyPath, object]]) -> str:
    """Faults with their places, one a line, each with the file and line in front of it."""
    return "\n".join(f"{at_line(path, line_of(path, place))}: {fault}" for place, fault in faults)


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
