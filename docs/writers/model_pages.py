"""Reference pages of what users write in YAML: a section a model, a row a key, straight from the pydantic models."""

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from docs.writers.pieces import code, docstring, table, type_text

LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "multiple_of": "a multiple of"}


def models_page(title: str, intro: str, roots: list[type[BaseModel]]) -> str:
    """The page of these models and of all that they hold."""
    return "\n\n".join([f"# {title}", intro, *(model_section(model) for model in every_model(roots))]) + "\n"


def every_model(roots: list[type[BaseModel]]) -> list[type[BaseModel]]:
    """These and all that stand in their keys, each once, in the order in which they are met."""
    found: dict[type[BaseModel], None] = {}
    waiting = list(roots)
    while waiting:
        model = waiting.pop(0)
        if model not in found:
            found[model] = None
            waiting += [inner for field in model.model_fields.values() for inner in _models_in(field.annotation)]
    return list(found)


def _models_in(hint: Any) -> list[type[BaseModel]]:
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return [hint]
    return [model for inner in get_args(hint) for model in _models_in(inner)]


def model_section(model: type[BaseModel]) -> str:
    """Heading, docstring and table of keys."""
    rows = [_row(name, field) for name, field in model.model_fields.items()]
    extra = "\n\nFurther keys are its knobs." if model.model_config.get("extra") == "allow" else ""
    return f"## {model.__name__}\n\n{docstring(model)}{extra}\n\n{table(['key', 'what it takes', 'default'], rows)}"


def _row(name: str, field: FieldInfo) -> list[str]:
    limits = ", ".join(
        f"{word} {getattr(limit, sign):g}"
        for limit in field.metadata
        for sign, word in LIMITS.items()
        if getattr(limit, sign, None) is not None
    )
    taken = type_text(field.annotation, _link) + (f"; {limits}" if limits else "")
    return [code(name), taken, default_text(field.get_default(call_default_factory=True, validated_data={}))]


def _link(model: type[BaseModel]) -> str:
    return f"[{model.__name__}](#{model.__name__.lower()})"


def default_text(value: Any) -> str:
    """A default as YAML would have it.

    >>> default_text(None), default_text(True), default_text([]), default_text(PydanticUndefined)
    ('none', '`true`', '`[]`', '**required**')
    """
    if value is PydanticUndefined:
        return "**required**"
    if value is None:
        return "none"
    if isinstance(value, BaseModel):
        return "its own defaults"
    return code(str(value).lower() if isinstance(value, bool) else str(value))


def sources_section(sources: dict[str, ModuleType]) -> str:
    """What each source of a build takes beside its name, and under which licence its records stand."""
    return "\n\n".join(["## Sources", *(_source(name, sources[name]) for name in sorted(sources))])


def _source(name: str, module: ModuleType) -> str:
    function = getattr(module, name)
    hints = get_type_hints(function)
    rows = [
        [code(parameter.name), _knob(hints[parameter.name]), default_text(_default(parameter))]
        for parameter in inspect.signature(function).parameters.values()
    ]
    listed = table(["knob", "what it takes", "default"], rows)
    return f"### {name}\n\n{docstring(function)}\n\nLicence: {module.LICENCE}\n\n{listed}"


def _knob(hint: Any) -> str:
    return "path" if hint is Path else type_text(hint, lambda model: code(model.__name__)).replace("`Path`", "path")


def _default(parameter: inspect.Parameter) -> Any:
    return PydanticUndefined if parameter.default is inspect.Parameter.empty else parameter.default
