"""Where the rows of a data entry lie: ``data/x/prompt/test`` names a Parquet file, with or without its ending.

Left out: what stands in the file (``row_checks``), which takes pyarrow.
"""

from pathlib import Path

from rewards.config.input_error import InputError, nearest
from rewards.config.strict_yaml import regular


def file_of_entry(entry: Path | str) -> Path:
    """Where the rows of an entry lie, or would.

    >>> file_of_entry("data/x/prompt/test").name
    'test.parquet'
    """
    return Path(entry) if str(entry).endswith(".parquet") else Path(f"{entry}.parquet")


def existing_file(entry: Path | str) -> Path:
    """The file of an entry.

    Raises: InputError with the entries that are there instead, if there is none, or it is no file.
    """
    file = file_of_entry(entry)
    if not regular(file).is_file():
        near = sorted(str(path.with_suffix("")) for path in file.parent.parent.glob("*/*.parquet"))
        have = f" There: {', '.join(near)}." if near else " Build it first: clinalign build SPEC.yaml."
        raise InputError(f"data: no file {file}.{nearest(str(file.with_suffix('')), near)}{have}")
    return file
