"""The house: floors stand on floors, rooms on rooms, no circle of files, and no room is overfull."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("rewards", "data_builders", "alignment")
"""From the ground up: a floor imports those before it."""
ROOMS = {
    "rewards": (
        ("config",), ("answers",), ("rules",), ("reading",), ("boxes",), ("reports",), ("dialogues",), ("llm",),
        ("judges",), ("ratings",), ("attacks",),
    ),
    "data_builders": (
        ("imaging",), ("rendering",), ("phantoms",), ("splits",), ("pairs",), ("formats",), ("sources",),
        ("curriculum",), ("dialogues",), ("grounding",), ("build",),
    ),
    "alignment": (
        ("distributed",), ("config",), ("checks",), ("shared_prefix", "metrics"), ("models",), ("data", "provenance"),
        ("reward_functions",), ("pairs", "audit", "resuming"), ("dialogues",), ("training", "evaluation"),
        ("planning", "bench", "reward_models", "release"), ("loop",), ("cli",),
    ),
}  # fmt: skip
"""From the ground up: a room imports rooms before its own line, and itself."""
MOST_FILES = 15


@cache
def files():
    """Every module by its dotted name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for floor in FLOORS
        for path in sorted((ROOT / floor).rglob("*.py"))
    }


@cache
def imports():
    """For each module: the modules of ours that it imports, at its head or within its functions."""
    found = {}
    for name, path in files().items():
        read = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                read |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                read |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        found[name] = (read & set(files())) - {name}
    return found


def room_of(module):
    """A module's room; None for what stands on a floor's own ground, such as the rule sets, which are no code."""
    parts = module.split(".")
    is_room = len(parts) > 1 and (ROOT / parts[0] / parts[1]).is_dir() and parts[1] != "rule_sets"
    return parts[1] if is_room else None


def test_no_floor_imports_one_above_it():
    level = {floor: number for number, floor in enumerate(FLOORS)}
    wrong = [
        f"{name} imports {other}"
        for name, read in imports().items()
        for other in read
        if level[other.split(".")[0]] > level[name.split(".")[0]]
    ]
    assert wrong == []


@pytest.mark.parametrize("floor", FLOORS)
def test_no_room_imports_one_on_its_line_or_above(floor):
    level = {room: number for number, line in enumerate(ROOMS[floor]) for room in line}
    of_floor = {name for name in files() if name.startswith(f"{floor}.") and room_of(name)}
    assert {room_of(name) for name in of_floor} == set(level)
    wrong = [
        f"{name} imports {other}"
        for name in of_floor
        for other in imports()[name] & of_floor
        if room_of(other) != room_of(name) and level[room_of(other)] >= level[room_of(name)]
    ]
    assert wrong == []


def test_no_circle_of_files():
    left = {name: set(read) for name, read in imports().items()}
    while free := [name for name, read in left.items() if not read]:
        for name in free:
            del left[name]
        for read in left.values():
            read.difference_update(free)
    assert sorted(left) == []  # these import one another


def test_no_room_holds_more_files_than_one_reads_in_a_sitting():
    folders = {path.parent for path in files().values()}
    held = {str(f.relative_to(ROOT)): len([p for p in f.glob("*.py") if p.name != "__init__.py"]) for f in folders}
    assert {folder: number for folder, number in held.items() if number > MOST_FILES} == {}


def test_every_room_says_what_it_is_for():
    rooms = [path for path in files().values() if path.name == "__init__.py"]
    assert len(rooms) > 40
    assert [str(path) for path in rooms if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))] == []


def test_tests_stand_in_the_rooms_that_they_test():
    rooms = {(floor, room) for floor, lines in ROOMS.items() for line in lines for room in line}
    folders = {
        path.relative_to(ROOT / "tests").parts[:-1]
        for floor in FLOORS
        for path in (ROOT / "tests" / floor).rglob("test_*.py")
    }
    assert {folder for folder in folders if len(folder) > 1} - rooms == set()


def test_the_lower_floors_load_no_torch():
    modules = [name for name in files() if not name.startswith("alignment")]
    code = f"import sys, importlib; [importlib.import_module(m) for m in {modules!r}]; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
