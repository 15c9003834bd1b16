"""A build from Python, with paths as text: the set that a spec asks for, its card, its rows.

Left out: ``Dataset.from_parquet``, which copies every picture into the user's home folder and leaves it there.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec, read_spec
from data_builders.entries import existing_file
from data_builders.row_checks import open_parquet
from data_builders.sources.source import sources
from rewards.config.input_error import InputError
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


def read_rows(entry: Path | str) -> "Dataset":
    """The rows of an entry such as ``data/x/prompt/test`` in memory, ready for a trainer; images are decoded when read.

    Raises: InputError if there is no such file of rows, or it is damaged.
    """
    import pyarrow.parquet as pq
    from datasets import Dataset

    file = existing_file(entry)
    open_parquet(file).close()
    return Dataset(pq.read_table(file))


def source_names() -> tuple[str, ...]:
    """The names that ``source: {name: ...}`` may have.

    >>> "phantom_chest" in source_names()
    True
    """
    return tuple(sorted(sources()))
