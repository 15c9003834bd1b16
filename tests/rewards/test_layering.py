"""Imports run alignment -> data_builders -> rewards, and the two lower floors load no torch."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOORS = {"rewards": 0, "data_builders": 1, "alignment": 2}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def test_no_floor_imports_one_above_it():
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for top, floor in FLOORS.items()
        for path in (ROOT / top).rglob("*.py")
        for name in imported(path)
        if FLOORS.get(name, -1) > floor
    ]
    assert wrong == []


def test_the_lower_floors_load_no_torch():
    names = [
        ".".join(p.relative_to(ROOT).with_suffix("").parts)
        for top in ("rewards", "data_builders")
        for p in (ROOT / top).rglob("*.py")
    ]
    modules = [name.removesuffix(".__init__") for name in names]
    code = f"import sys, importlib; [importlib.import_module(m) for m in {modules!r}]; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
