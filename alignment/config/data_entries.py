"""The rows that a recipe's data entry names."""

from pathlib import Path

from alignment.config.recipe import Recipe
from rewards.config.input_error import InputError
from rewards.config.strict_yaml import regular


def file_of_entry(path: str) -> Path:
    """Where the rows of a ``data`` entry lie, or would: named by the file, or by it without its ending."""
    return Path(path) if path.endswith(".parquet") else Path(f"{path}.parquet")


def parquet(path: str) -> Path:
    """The Parquet file that a ``data`` entry names.

    Raises: InputError if there is none, its footer is damaged, or its set is of a newer format than is known here.
    """
    from data_builders.row_checks import open_parquet

    file = file_of_entry(path)
    if not regular(file).is_file():
        near = sorted(str(p.with_suffix("")) for p in file.parent.parent.glob("*/*.parquet"))
        have = f" There: {', '.join(near)}." if near else " Build it first: clinalign build SPEC.yaml."
        raise InputError(f"data: no file {file}.{have}")
    open_parquet(file).close()
    return file


def columns_of(path: str) -> list[str]:
    """Column names of a data entry, read from the file's footer."""
    import pyarrow.parquet as pq

    return pq.read_schema(parquet(path)).names


def kept_places(recipe: Recipe) -> list[int]:
    """Places of the training rows that ``data.kinds``, ``data.tasks`` and ``data.limit`` leave."""
    import pyarrow.parquet as pq

    file = parquet(recipe.data.train)
    places = list(range(pq.read_metadata(file).num_rows))
    for column, wanted in (("kind", recipe.data.kinds), ("task", recipe.data.tasks)):
        if wanted is not None:
            values = pq.read_table(file, columns=[column])[column].to_pylist()
            places = [place for place in places if values[place] in wanted]
    return places[: recipe.data.limit]
