"""The list of survivors fits the sources that it speaks of."""

from pathlib import Path

import pytest

from tests.mutants import ROOT, TESTS, listed, single_spaced


@pytest.mark.parametrize("mutant", listed(), ids=lambda mutant: f"{mutant.file}: {mutant.after}")
def test_a_survivor_is_a_change_of_a_line_that_is_there_and_has_a_reason(mutant):
    lines = map(single_spaced, (ROOT / mutant.file).read_text(encoding="utf-8").splitlines())
    assert mutant.file in TESTS
    assert mutant.before in lines
    assert mutant.before != mutant.after
    assert len(listed()[mutant].split()) > 3


@pytest.mark.parametrize("file", TESTS)
def test_a_file_of_formulas_and_its_tests_are_there(file):
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in TESTS[file] if name.endswith(".py"))
    module = file.removesuffix(".py").replace("/", ".")
    assert f"{module} import" in text or f'"{Path(file).stem}"' in text
