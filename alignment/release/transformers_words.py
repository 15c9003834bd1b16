"""The words that transformers itself writes: what else stands in a model's files may be a name.

A configuration's text that does something stands in quotes in the code that reads it. Left out: what a word means.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PARTS = (
    "*.py",
    "generation/*.py",
    "integrations/*.py",
    "quantizers/*.py",
    "utils/*.py",
    "models/auto/*.py",
    "models/*/configuration_*.py",
    "models/*/*processing_*.py",
    "models/*/tokenization_*.py",
)
"""The files of transformers that read configurations, processors, tokenizers and templates."""


@cache
def is_quoted(text: str) -> bool:
    """Whether the text stands in quotes somewhere in transformers.

    >>> is_quoted("longest_edge"), is_quoted("Qvortrup")
    (True, False)
    """
    return any(f"{sign}{text}{sign}" in source for source in _sources() for sign in "\"'")


@cache
def is_field(text: str) -> bool:
    """Whether the text stands in quotes in transformers, or is the name of an argument or attribute there.

    >>> is_field("bnb_4bit_quant_type"), is_field("Qvortrup")
    (True, False)
    """
    named = re.compile(rf"(?<!\w){re.escape(text)}\s?[:=]")
    return is_quoted(text) or (text.isidentifier() and any(named.search(source) for source in _sources()))


@cache
def words() -> frozenset[str]:
    """Every word of four letters and more in transformers and tokenizers, in small letters."""
    return frozenset(word for source in _sources() for word in re.findall(r"[^\W\d_]{4,}", source.casefold()))


@cache
def _sources() -> tuple[str, ...]:
    return tuple(file.read_text(encoding="utf-8") for file in _files())


def _files() -> Iterator[Path]:
    for package, parts in (("transformers", PARTS), ("tokenizers", ("*.py", "*.pyi", "*/*.pyi"))):
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        for part in parts:
            yield from sorted(Path(spec.origin).parent.glob(part))
