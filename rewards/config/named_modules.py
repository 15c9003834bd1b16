"""Modules that are known by the names of their files, with no list of them: what lies in a room is there."""

import pkgutil
from importlib import import_module
from types import ModuleType


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
