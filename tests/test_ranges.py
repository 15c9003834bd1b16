"""The ranges of pyproject.toml: every extra resolves, alone and under each file of ``constraints/``; CI is pinned.

What resolves is asked of the package registry; where it or uv is missing, those tests are skipped.
"""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
TIMEOUT_S = 300
UNREACHABLE = ("Failed to fetch", "Request failed", "error sending request", "dns error", "timed out", "Network")


def uv():
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.is_file() else shutil.which("uv")


def fault_of(project, *options):
    """What uv says of a project that cannot be installed with these extras and constraints, or an empty text."""
    if uv() is None:
        pytest.skip("uv is not installed")
    told = [uv(), "pip", "compile", "--quiet", "--python", sys.executable, str(project), *options]
    try:
        done = subprocess.run(told, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the package registry gave no answer within {TIMEOUT_S} s")
    if done.returncode and any(word in done.stderr for word in UNREACHABLE):
        pytest.skip(f"the package registry is not reached: {done.stderr.strip()[-300:]}")
    return done.stderr if done.returncode else ""


def constraint(name):
    return ROOT / "constraints" / f"{name}.txt"


def pins(name):
    """Versions by package of a constraints file."""
    lines = [line for line in constraint(name).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return dict(line.lower().replace("_", "-").split("==") for line in lines if line)


@pytest.mark.slow
@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_resolves(extra):
    assert fault_of(ROOT / "pyproject.toml", "--extra", extra) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "extras"), [("lower", ["dev"]), ("vllm", ["dev", "vllm"]), ("upper", ["dev", "docs"])]
)
def test_the_tests_environment_resolves_under_its_constraints(name, extras):
    options = [option for extra in extras for option in ("--extra", extra)]
    assert fault_of(ROOT / "pyproject.toml", *options, "--constraint", str(constraint(name))) == ""


@pytest.mark.slow
def test_what_cannot_be_installed_is_found(tmp_path):
    project = tmp_path / "pyproject.toml"
    needs = '["vllm==0.31.0", "transformers>=5.18"]'
    project.write_text(f'[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = {needs}\n')
    assert "transformers" in fault_of(project)


def test_continuous_integration_takes_every_direct_dependency_in_one_version():
    direct = [Requirement(text) for text in (*PROJECT["dependencies"], *EXTRAS["dev"], *EXTRAS["docs"])]
    assert {need.name for need in direct} <= pins("upper").keys()


@pytest.mark.parametrize("name", ["lower", "vllm", "upper"])
def test_a_pin_lies_within_its_range(name):
    ranges = [Requirement(text) for text in (*PROJECT["dependencies"], *EXTRAS["dev"], *EXTRAS["vllm"])]
    pinned = pins(name)
    assert [str(need) for need in ranges if need.name in pinned and pinned[need.name] not in need.specifier] == []


@pytest.mark.parametrize("package", ["torch", "torchvision", "transformers", "trl"])
def test_the_lower_environment_holds_the_least_version_of_a_range(package):
    (need,) = [Requirement(text) for text in PROJECT["dependencies"] if Requirement(text).name == package]
    least = next(part.version for part in need.specifier if part.operator == ">=")
    assert pins("lower")[package].startswith(f"{least}.")
