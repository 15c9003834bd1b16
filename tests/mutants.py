"""Mutation run of the files that hold formulas: ``make mutants``, or ``python -m tests.mutants FILE ...``.

Operators, comparisons, truths and numbers are changed one at a time by Cosmic Ray's operators, and each mutant is tried
against its file's own tests. Survivors that mean the same as the original stand in ``mutants.txt`` with the reason; any
other, and a line there that no longer survives, ends with exit code 1. A mutant lives in a fork, in which torch is
loaded already, and nothing is written to the sources. Left out: mutmut, which passes over constants of modules, fields
of classes and whatever stands under a decorator, where half of our numbers are.
"""

import contextlib
import importlib
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_name("mutants.txt")
OWN = ("alignment", "data_builders", "rewards", "tests")
BOXES = (
    "tests/rewards/boxes/test_box_values.py",
    "tests/rewards/boxes/test_boxes.py",
    "tests/rewards/boxes/test_box_rewards.py",
    "tests/rewards/test_golden.py",
    "-k",
    "box",
)
FIGURES = ("tests/alignment/metrics/test_metrics.py", "tests/alignment/metrics/test_capability_outcomes.py")
TESTS = {
    "alignment/training/losses.py": ("tests/alignment/training/test_losses.py",),
    "alignment/training/dpo_terms.py": ("tests/alignment/training/test_dpo_terms.py",),
    "alignment/metrics/intervals.py": FIGURES,
    "alignment/metrics/outcomes.py": FIGURES,
    "alignment/metrics/ratios.py": FIGURES,
    "data_builders/pairs/relevance.py": ("tests/data_builders/pairs/test_relevance.py",),
    "rewards/ratings/bootstrap.py": ("tests/rewards/ratings/test_bootstrap.py",),
    "rewards/boxes/box_overlap.py": BOXES,
    "rewards/boxes/geometry.py": BOXES,
    "rewards/combination.py": ("tests/rewards/test_combination.py",),
    "rewards/rules/compare.py": ("tests/rewards/rules/test_compare.py",),
    "rewards/judges/crpo.py": ("tests/rewards/judges/test_crpo.py",),
    "rewards/rules/decision.py": ("tests/rewards/rules/test_decision.py",),
    "rewards/boxes/medmo_box.py": BOXES,
    "rewards/boxes/medmo_box_safe.py": BOXES,
    "rewards/ratings/preference_metrics.py": ("tests/rewards/ratings/test_preference_metrics.py",),
    "rewards/rules/stages.py": ("tests/rewards/rules/test_stages.py",),
}
OPERATORS = (
    *(f"ReplaceBinaryOperator_{swap}" for swap in ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "Pow_Mul", "Mod_Div")),
    *(f"ReplaceBinaryOperator_{swap}" for swap in ("FloorDiv_Div", "BitOr_BitAnd", "BitAnd_BitOr")),
    *(f"ReplaceComparisonOperator_{swap}" for swap in ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Eq_NotEq", "NotEq_Eq")),
    *(f"ReplaceComparisonOperator_{swap}" for swap in ("Lt_Gt", "LtE_GtE", "Gt_Lt", "GtE_LtE", "Is_IsNot", "IsNot_Is")),
    *(f"ReplaceUnaryOperator_{swap}" for swap in ("USub_UAdd", "Delete_Not", "Delete_Invert")),
    *("ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd", "AddNot"),
    "NumberReplacer",
)


class Mutant(NamedTuple):
    """``before`` and ``after``: the changed line, its spaces made single."""

    file: str
    before: str
    after: str


def listed() -> dict[Mutant, str]:
    """The survivors that are known, with the reason why nothing can kill them.

    A line is ``FILE: BEFORE => AFTER  # REASON``; those that begin with ``#`` are comments.
    """
    lines = (line for line in LIST.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#"))
    found = {}
    for line in lines:
        change, why = line.rsplit("  # ", 1)
        file, change = change.split(": ", 1)
        found[Mutant(file, *change.split(" => ", 1))] = why
    return found


def single_spaced(line: str) -> str:
    return " ".join(line.split())


def is_formula(mutant: Mutant) -> bool:
    """False for frozen and strict classes, a strict ``zip``, the ``*`` before keyword-only parameters, and types."""
    strict = mutant.after == mutant.before.replace("strict=True", "strict=False")
    keyword_only = "*," in mutant.before and "/," in mutant.after
    of_types = mutant.before == mutant.after.replace("& None", "| None")
    return not (mutant.before.startswith(("@", "model_config")) or strict or keyword_only or of_types)


def mutants(file: str) -> dict[str, Mutant]:
    """Mutated source -> what was changed."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    code = (ROOT / file).read_text(encoding="utf-8")
    found = {}
    for name in OPERATORS:
        for occurrence in count():
            mutated = mutate_code(code, get_operator(f"core/{name}")(), occurrence)
            if mutated is None:
                break
            pairs = zip(code.splitlines(), mutated.splitlines(), strict=True)
            before, after = next((a, b) for a, b in pairs if a != b)
            mutant = Mutant(file, single_spaced(before), single_spaced(after))
            if is_formula(mutant):
                found[mutated] = mutant
    return found


def tried(file: str, code: str, limit_s: int) -> int:
    """The process in which a file's own tests run on ``code`` in place of the file; its exit code is pytest's."""
    if pid := os.fork():
        return pid
    signal.alarm(limit_s)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    code_of_exit = 70
    try:
        install(file, code)
        code_of_exit = run_tests(file)
    finally:
        os._exit(code_of_exit)


def install(file: str, code: str) -> None:
    """Import ``file`` anew with other code, and let all else of ours be imported anew, from it."""
    for name in [name for name in sys.modules if name.split(".")[0] in OWN and name != __name__]:
        del sys.modules[name]
    name = file.removesuffix(".py").replace("/", ".")
    package, _, stem = name.rpartition(".")
    spec = importlib.util.spec_from_file_location(name, ROOT / file)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    exec(compile(code, file, "exec"), module.__dict__)
    setattr(importlib.import_module(package), stem, module)


def run_tests(file: str, *options: str) -> int:
    import pytest

    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *options, *TESTS[file]]))


def survivors(file: str, workers: int) -> Iterator[Mutant]:
    """The mutants of a file that pass its tests.

    Raises: SystemExit if the tests fail without any mutation.
    """
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        run_tests(file, "--collect-only")  # what our modules import from outside is then loaded once
    started = time.monotonic()
    code = (ROOT / file).read_text(encoding="utf-8")
    if os.waitpid(tried(file, code, 600), 0)[1]:
        raise SystemExit(f"{file}: {' '.join(TESTS[file])} fails without a mutation.")
    limit_s = 20 + int(10 * (time.monotonic() - started))
    waiting, running = list(mutants(file).items()), dict[int, Mutant]()
    print(f"{file}: {len(waiting)} mutants", flush=True)
    while waiting or running:
        while waiting and len(running) < workers:
            mutated, mutant = waiting.pop()
            running[tried(file, mutated, limit_s)] = mutant
        pid, status = os.wait()
        mutant = running.pop(pid)
        if status == 0:
            yield mutant


def main() -> None:
    os.environ["CI"] = "mutants"  # Hypothesis draws the same examples in each run (see conftest.py)
    os.chdir(ROOT)
    files = sys.argv[1:] or list(TESTS)
    known = listed()
    alive: set[Mutant] = set()
    for file in files:
        for mutant in survivors(file, workers=int(os.environ.get("WORKERS", os.cpu_count() or 1))):
            alive.add(mutant)
            if mutant not in known:
                print(f"  survived: {mutant.before} => {mutant.after}", flush=True)
    new = alive - set(known)
    dead = [mutant for mutant in known if mutant.file in files and mutant not in alive]
    for mutant in dead:
        print(f"{LIST.name}: no longer survives: {mutant.file}: {mutant.before} => {mutant.after}")
    print(f"{len(alive)} survivors, {len(new)} of them not in {LIST.name}")
    raise SystemExit(bool(new or dead))


if __name__ == "__main__":
    main()
