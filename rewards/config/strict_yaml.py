"""YAML read strictly: every fault of a file at once, each with its place and its cure.

Used for rule sets, build specs and recipes. Left out: inheritance between files and environment variables.
"""

import os
import re
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rewards.config.input_error import InputError, nearest, nearest_file
from rewards.config.shipped import here_or_shipped
from rewards.config.yaml_lines import Written, named_place
from rewards.config.yaml_loader import loaded

Model = TypeVar("Model", bound=BaseModel)
KIND = re.compile(r"(constrained-)?(int|str|float|bool)|literal\[.*\]")
"""What pydantic writes at the end of a place, for the kinds of which a value is none."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises: InputError if the file cannot be read, is not YAML, says a key twice, or does not hold a mapping.
    """
    text = read_text(path)
    try:
        content = loaded(text)
    except yaml.YAMLError as fault:
        raise InputError(f"{path}: not readable as YAML: {' '.join(str(fault).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected keys and values, got {type(content).__name__}.")
    return cast(dict[str, Any], content)


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark; ``recipes/...`` may be a shipped one.

    Raises: InputError naming the file that is missing, is a folder, may not be read, or is in another encoding.
    """
    try:
        return regular(here_or_shipped(path)).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as fault:
        raise InputError(
            f"{path}: line {line_of_byte(fault)}: not a text in UTF-8 (byte {fault.start} is "
            f"{fault.object[fault.start]:#04x}). Save it as UTF-8, if it is a text at all."
        ) from None
    except InputError:  # a ValueError too, but complete
        raise
    except (OSError, ValueError) as fault:  # ValueError: a null character in the path
        raise InputError(unreadable(path, fault)) from None


def line_of_byte(fault: UnicodeDecodeError) -> int:
    """The line (from 1) on which a whole file's bytes leave its encoding."""
    return fault.object[: fault.start].decode(fault.encoding, "replace").count("\n") + 1


def regular(path: Path) -> Path:
    """The path itself, where it is a file, a folder or nothing.

    Raises: InputError if it is a pipe, a device or a socket: to read one may never end.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise InputError(f"{path}: not a regular file but a pipe, a device or a socket. Name a file that holds it.")
    return path


def unreadable(path: Path, fault: OSError | ValueError) -> str:
    """Why a file cannot be opened, and what to do, in one sentence."""
    if isinstance(fault, FileNotFoundError):
        if path.is_symlink():
            return f"{path}: no such file; it is a link to {path.readlink()}, which is not there."
        return f"{path}: no such file.{nearest_file(path)}"
    if isinstance(fault, IsADirectoryError):
        return f"{path}: no such file; it is a folder. Name a file in it."
    if isinstance(fault, PermissionError):
        return f"{path}: may not be read. Ask its owner for the right to read it."
    reason = (fault.strerror or "cannot be read") if isinstance(fault, OSError) else str(fault)
    return f"{path}: {reason[:1].lower()}{reason[1:]}. Name a file that can be read."


def validated(model: type[Model], content: dict[str, Any], *, where: str | Path | Written) -> Model:
    """``content`` as ``model``. ``where``: what it is called, or the file that it is and whose lines are named.

    Raises: InputError with one line for each fault of the content.
    """
    try:
        return model.model_validate(content)
    except ValidationError as invalid:
        if isinstance(where, str):
            lines = [f"{where}: {fault}" for fault in fault_lines(model, invalid)]
        else:
            lines = located_lines(model, invalid, Written(where) if isinstance(where, Path) else where)
        raise InputError("\n".join(lines)) from None


def located_lines(model: type[BaseModel], invalid: ValidationError, source: Written) -> list[str]:
    """One sentence for each fault, with the file and line in front of it."""
    groups = _by_value(invalid)
    located = [(group[0]["loc"], _sentence(model, group)) for group in groups]
    return [f"{source.at(loc or named_place(fault))}: {fault}" for loc, fault in located]


def fault_lines(model: type[BaseModel], invalid: ValidationError) -> list[str]:
    """One sentence for each fault: place, what came, what was expected, cure."""
    return [_sentence(model, group) for group in _by_value(invalid)]


def _by_value(invalid: ValidationError) -> list[list[ErrorDetails]]:
    """Faults in their order; those of one value that is none of several kinds (a number, or 'all') stand together."""
    groups: list[list[ErrorDetails]] = []
    for fault in invalid.errors():
        if groups and _are_of_one_value(groups[-1][0]["loc"], fault["loc"]):
            groups[-1].append(fault)
        else:
            groups.append([fault])
    return groups


def _are_of_one_value(first: tuple[int | str, ...], second: tuple[int | str, ...]) -> bool:
    """Whether two places of faults differ in the kind alone that the value is none of."""
    kinds = [*first[-1:], *second[-1:]]
    return first != second and first[:-1] == second[:-1] and all(KIND.fullmatch(str(kind)) for kind in kinds)


def _sentence(model: type[BaseModel], group: list[ErrorDetails]) -> str:
    fault = group[0]
    place = ".".join(str(part) for part in (fault["loc"][:-1] if len(group) > 1 else fault["loc"]))
    if fault["type"] == "extra_forbidden":
        known = _keys_at(model, fault["loc"][:-1])
        hint = nearest(str(fault["loc"][-1]), known) or (f" Known keys: {', '.join(known)}." if known else "")
        return f"{place}: unknown key.{hint}"
    if fault["type"] == "missing":
        return f"{place}: this key is required."
    if fault["type"] == "value_error":
        message = fault["msg"].removeprefix("Value error, ")
        return f"{place}: {message}" if place else message
    wanted = ", or ".join(f["msg"].removeprefix("Input should be ") for f in group)
    is_input = fault["msg"].startswith("Input should be ")
    wanted = f"input should be {wanted}" if is_input else f"{wanted[0].lower()}{wanted[1:]}"
    return f"{place}: got {_shown(fault['input'])}; {wanted}." if place else f"got {_shown(fault['input'])}; {wanted}."


def _shown(value: Any) -> str:
    """The value as the user wrote it, with the cure for YAML's best-known trap."""
    if isinstance(value, str):
        trap = number_trap(value)
        return f"the string '{value}'{trap}"
    return f"{type(value).__name__} {str(value)[:80]}"


def number_trap(value: str) -> str:
    """How to write a number that YAML 1.1 took for a string, or an empty string.

    >>> number_trap("1e-6"), number_trap("1.0e3")
    (' (YAML needs a dot and a sign: 1.0e-6)', ' (YAML needs a dot and a sign: 1.0e+3)')
    """
    found = re.fullmatch(r"([-+]?)([0-9]*)(?:\.([0-9]*))?[eE]([-+]?)([0-9]+)", value)
    if found is None or not (found[2] or found[3]):
        return ""
    sign, whole, decimals, power_sign, power = found.groups()
    number = f"{sign}{whole or 0}.{decimals or 0}e{power_sign or '+'}{power}"
    return f" (YAML needs a dot and a sign: {number})"


def _keys_at(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The keys that a nested model knows at ``place``; empty where no single model stands there."""
    current: Any = model
    for part in place:
        if isinstance(part, int) or not _is_model(current):
            continue
        field = current.model_fields.get(part)
        current = _model_in(field.annotation) if field else None
    return list(current.model_fields) if _is_model(current) else []


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _model_in(annotation: Any) -> Any:
    """The one pydantic model inside an annotation such as ``list[Model]`` or ``Model | None``."""
    if _is_model(annotation):
        return annotation
    inner = [found for arg in getattr(annotation, "__args__", ()) if (found := _model_in(arg)) is not None]
    return inner[0] if inner else None
