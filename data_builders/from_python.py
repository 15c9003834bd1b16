"""A build from Python, with paths as text: the set that a spec asks for, its card, its rows.

Left out: ``Dataset.from_parquet``, which copies every picture into the user's home folder and leaves it there.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec, read_spec
from data_builders.cards import read_card as card_of_folder
from data_builders.row_checks import open_parquet
from data_builders.sources.source import sources
from rewards.config.input_error import InputError, nearest
from rewards.config.strict_yaml import validated

if TYPE_CHECKING:
    from datasets import Dataset

SpecLike = BuildSpec | Mapping[str, Any] | Path | str
"""A spec as it was read, its content, or its file."""


def build_data(spec: SpecLike, overrides: Iterable[str] = ()) -> Path:
    """The folder of the built data set, which replaces the one that was there.

    ``overrides``: ``key=value``, for a spec in a file.
    Raises: InputError with every fault of the spec, and as ``build``.
    """
    if isinstance(spec, Path | str):
        return build(read_spec(Path(spec), list(overrides)), inputs=[Path(spec)])
    if changes := list(overrides):
        raise InputError(f"build_data: overrides are for a spec in a file, got {changes[0]!r}; change the spec itself.")
    return build(spec if isinstance(spec, BuildSpec) else validated(BuildSpec, dict(spec), where="spec"))


def read_card(folder: Path | str) -> dict[str, Any]:
    """What the card of a built set says: counts, what was left out and why, licence, spec, SHA-256 of each file.

    Raises: InputError if there is none, it is damaged, or of a newer format.
    """
    return card_of_folder(Path(folder))


def read_rows(entry: Path | str) -> "Dataset":
    """The rows of an entry such as ``data/x/prompt/test`` in memory, ready for a trainer; images are decoded when read.

    Raises: InputError if there is no such file of rows, or it is damaged.
    """
    import pyarrow.parquet as pq
    from datasets import Dataset

    file = Path(entry) if str(entry).endswith(".parquet") else Path(f"{entry}.parquet")
    if not file.is_file():
        there = sorted(str(path.with_suffix("")) for path in file.parent.parent.glob("*/*.parquet"))
        have = f" There: {', '.join(there)}." if there else " Build the set first (build_data)."
        raise InputError(f"no rows at {file}.{nearest(str(file.with_suffix('')), there)}{have}")
    open_parquet(file).close()
    return Dataset(pq.read_table(file))


def source_names() -> tuple[str, ...]:
    """The names that ``source: {name: ...}`` may have.

    >>> "phantom_chest" in source_names()
    True
    """
    return tuple(sorted(sources()))
