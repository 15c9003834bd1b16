"""A source by its name: its generator, checked knobs, its licence. A new source is one file in a folder here."""

import inspect
from collections.abc import Callable, Collection, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Optional, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Strict, ValidationError, create_model, model_validator

from data_builders.pairs.lesion_heat import Mask
from data_builders.schema import Quarantined, Sample, Written
from rewards.config.input_error import nearest
from rewards.config.named_modules import modules_with
from rewards.config.strict_yaml import fault_lines
from rewards.rules.rule_set import register


@cache
def sources() -> dict[str, ModuleType]:
    """The module of each source by name: a file in a folder here that says its ``LICENCE``."""
    return modules_with("LICENCE", "data_builders.sources")


class Source(BaseModel):
    """A source by name; its knobs are further keys, checked against the signature of its function."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @model_validator(mode="after")
    def _is_known(self) -> "Source":
        if self.name not in sources():
            hint = nearest(self.name, list(sources()))
            raise ValueError(f"no source named '{self.name}'.{hint} Known: {', '.join(sources())}.")
        self.checked_knobs()
        if rule_set := self.file("rule_set"):
            register(rule_set)  # a curriculum may name it by its id
        return self

    @property
    def knobs(self) -> dict[str, Any]:
        """The further keys, as written."""
        return dict(self.model_extra or {})

    def file(self, knob: str) -> Path | None:
        """The YAML file that a knob names, such as the user's own rule set or column map; None where it names none."""
        value = self.knobs.get(knob)
        return Path(value) if isinstance(value, str) and value.endswith((".yaml", ".yml")) else None

    @property
    def function(self) -> Callable[..., Iterator[Sample | Written | Quarantined]]:
        """The generator of samples."""
        return getattr(sources()[self.name], self.name)

    @property
    def masks(self) -> Callable[[Sample], dict[str, Mask]] | None:
        """The source's own ``lesion_masks(sample)``, where it knows more of a lesion than its box."""
        return getattr(sources()[self.name], "lesion_masks", None)

    @property
    def licence(self) -> str:
        """Under which its records stand: as its knob ``licence`` says where it has one, else as its file does."""
        return self.knobs.get("licence") or sources()[self.name].LICENCE

    def checked_knobs(self) -> dict[str, Any]:
        """The knobs in the types that the function declares.

        Raises: ValueError with every unknown, missing or ill-typed knob.
        """
        model = _knobs_of(self.function)
        try:
            read = model.model_validate(self.knobs)
        except ValidationError as invalid:
            faults = "; ".join(line.rstrip(".") for line in fault_lines(model, invalid))
            raise ValueError(f"'{self.name}': {faults}. Knobs: {', '.join(model.model_fields)}.") from None
        return {knob: getattr(read, knob) for knob in self.knobs}

    def samples(self) -> Iterator[Sample | Written | Quarantined]:
        """What the source yields, in its order."""
        return self.function(**self.checked_knobs())


def _knobs_of(function: Callable[..., Any]) -> type[BaseModel]:
    """The keyword parameters of a source as a strict model."""
    hints = get_type_hints(function)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        default: Any = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[name] = (_as_yaml(hints[name]), default)
    return create_model("Knobs", __config__=ConfigDict(extra="forbid", strict=True), **fields)


def _as_yaml(hint: Any) -> Any:
    """The type of a knob as YAML can write it: a path as a string, a collection as a list."""
    path: Any = Annotated[Path, Strict(False)]
    if hint is Path or Path in get_args(hint):
        return path if hint is Path else Optional[path]  # noqa: UP045 (no union of a variable in a type position)
    return list[get_args(hint)] if get_origin(hint) is Collection else hint
