"""Rows: sources, render, corrupt, splits, and the data sets built from them. Loads no torch.

What people use from Python is exported here, and imported when it is first asked for; all else may move.
"""

from typing import TYPE_CHECKING

try:
    from rewards.config.named_modules import lazy_names
except ImportError as missing:  # such as a file rewards.py in one's own folder
    from clinalign import explained

    raise explained(missing) from missing

if TYPE_CHECKING:
    from data_builders.build.build_spec import BuildSpec, read_spec
    from data_builders.cards import read_card
    from data_builders.from_python import build_data, read_rows, source_names
    from data_builders.schema import Quarantined, Sample, Written
    from rewards.config.input_error import InputError

__all__ = [
    "BuildSpec",
    "InputError",
    "Quarantined",
    "Sample",
    "Written",
    "build_data",
    "read_card",
    "read_rows",
    "read_spec",
    "source_names",
]
__getattr__ = lazy_names(
    "data_builders",
    {
        **dict.fromkeys(("BuildSpec", "read_spec"), "data_builders.build.build_spec"),
        **dict.fromkeys(("build_data", "read_rows", "source_names"), "data_builders.from_python"),
        **dict.fromkeys(("Quarantined", "Sample", "Written"), "data_builders.schema"),
        "InputError": "rewards.config.input_error",
        "read_card": "data_builders.cards",
    },
)
