"""What must stand in one split where no patient is known: records that share a picture, by what the picture shows.

Left out: pictures that are alike and not the same (``clinalign audit-splits`` finds those).
"""

from collections.abc import Iterable


class ImageGroups:
    """Pictures by their key; those of one record are one group, and so are groups that share a picture."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def join(self, keys: Iterable[str]) -> None:
        """These pictures are of one record.

        >>> groups = ImageGroups()
        >>> for keys in (["c", "b"], ["d"], ["a", "b"]):
        ...     groups.join(keys)
        >>> [groups.name(key) for key in "abcd"]
        ['a', 'a', 'a', 'd']
        """
        names = sorted({self.name(key) for key in keys})
        for name in names:
            self._above[name] = names[0]

    def name(self, key: str) -> str:
        """The group of a picture: its smallest key, so that the order of records does not matter."""
        path = [key]
        while (above := self._above.get(path[-1], path[-1])) != path[-1]:
            path.append(above)
        self._above.update(dict.fromkeys(path, path[-1]))
        return path[-1]
