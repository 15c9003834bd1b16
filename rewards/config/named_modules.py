"""Modules found by their names: a package's public names, imported when first asked for, and whatever lies in rooms."""

import pkgutil
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package (PEP 562) whose public names are those of these modules.

    >>> lazy_names("rewards.config", {"pi": "math"})("pi")
    3.141592653589793
    """

    def of(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        value = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return of


def modules_with(mark: str, package: str) -> dict[str, ModuleType]:
    """The modules in the rooms of a package that define ``mark``, each by the name of its file, room by room.

    >>> "medmo_box" in modules_with("BOUNDS", "rewards")
    True
    """
    rooms = [import_module(f"{package}.{room.name}") for room in _within(import_module(package)) if room.ispkg]
    files = [(file.name, import_module(f"{room.__name__}.{file.name}")) for room in rooms for file in _within(room)]
    return {name: module for name, module in files if hasattr(module, mark)}


def _within(package: ModuleType) -> list[pkgutil.ModuleInfo]:
    return list(pkgutil.iter_modules(package.__path__))
