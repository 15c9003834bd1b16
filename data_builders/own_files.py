"""Which files of a built data set are its own: a new build replaces these, and stops where a user's lie among them.

Known by the card, which lists every file of rows, and by the names of what is written beside these: by a build, by
``audit-splits --quarantine``, and by ``counterparts`` into ``pool/``. Left out: rows that a user changed in place.
"""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_builders.cards import CARD, RULES, format_fault
from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json

BESIDE = re.compile(
    r"gallery\.html|splits\.json|relevance-[^/]+\.jsonl|quarantine/reasons\.jsonl|quarantine/pool/[^/]+\.parquet"
    r"|pool/[^/]+\.(parquet|fresh|sbatch|counterparts\.jsonl?(\.lock)?)|pool/\.[^/]+\.parquet\.(lock|unfinished)"
    r"|pool/[^/]+\.rows/.+|pool/rule_sets/\.?[^/]+\.yaml(\.unfinished)?"
)


def own_files_of_set(folder: Path) -> Callable[[str], bool]:
    """Whether a path in a data set's folder is of the set. Of a card that no build wrote, the card itself is not.

    Raises: InputError if the set is of a newer format: which files are its own is not known here.
    """
    card: dict[str, Any] = {}
    with contextlib.suppress(InputError):
        card = read_json(folder / CARD, "")
    if fault := format_fault(card, folder / CARD):
        raise InputError(fault)
    listed = card.get("sha256")
    if not isinstance(listed, dict) or "spec" not in card:
        return lambda path: bool(BESIDE.fullmatch(path))
    rows = {str(name) for name in listed}
    half_written = {str(Path(name).with_suffix(".fresh")) for name in rows}
    kept = {str(name) for name in card.get(RULES) or ()}
    own = {CARD, *rows, *half_written, *kept, *(f"quarantine/{name}" for name in rows)}
    return lambda path: path in own or bool(BESIDE.fullmatch(path))
