"""The one Jinja environment: HTML pages with every value escaped; Markdown and prompts for language models as they are.

A template stands beside the module that fills it. What it names and is not given is an error, never an empty text.
"""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

UNESCAPED = (".md.j2", ".txt.j2")
"""Names of templates that make no page: Markdown of released fields only, and texts that a model reads."""


@cache
def template(name: str, *, beside: str) -> Template:
    """The template of this name in the folder of the file ``beside``, which is the caller's ``__file__``."""
    environment = Environment(
        loader=FileSystemLoader(Path(beside).parent),
        autoescape=not name.endswith(UNESCAPED),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
