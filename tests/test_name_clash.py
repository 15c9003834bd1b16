"""Another distribution's package of the same name is found at start and named. The site folders here are made up."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("alignment", "data_builders", "rewards")
THEIRS = "import torch  # the package of somebody else\n"


def installed(site, name, version, files):
    """A distribution in a site folder as pip leaves it there: its files, and RECORD with their sizes."""
    for path, text in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{path},sha256=x,{len(text)}\n" for path, text in files.items()]
    (info / "RECORD").write_text("".join([*lines, f"{info.name}/RECORD,,\n"]))


def of_clinalign():
    packages = {f"{name}/__init__.py": f'"""{name}."""\n' for name in PACKAGES}
    command = {"alignment/cli/__init__.py": "", "alignment/cli/app.py": "def main():\n    print('it ran')\n"}
    return {"clinalign.py": (ROOT / "clinalign.py").read_text(), **packages, **command}


HANDBOOK = {"alignment/__init__.py": THEIRS, "alignment/configs.py": "", "alignment/data.py": ""}


@pytest.fixture
def site(tmp_path):
    installed(tmp_path / "site", "clinalign", "0.1.0", of_clinalign())
    return tmp_path / "site"


def started(*path, code="import clinalign; clinalign.main()"):
    """The command in a new process that sees these folders and the standard library."""
    command = [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {[*map(str, path)]!r}; {code}"]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def refused(*path):
    done = started(*path)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_packages_of_its_own_start_without_a_word_and_without_asking_for_other_distributions(site):
    done = started(site, code="import clinalign; clinalign.main(); assert 'importlib.metadata' not in sys.modules")
    assert (done.returncode, done.stdout, done.stderr) == (0, "it ran\n", "")


def test_a_package_that_was_written_over_names_who_did_it(site):
    installed(site, "alignment-handbook", "0.4.0", HANDBOOK)
    said = refused(site)
    assert f"{site}/alignment/__init__.py: was written over by alignment-handbook 0.4.0" in said
    assert "Uninstall it, then install clinalign again" in said


def test_a_package_that_went_with_another_is_missed(site):
    (site / "alignment" / "__init__.py").unlink()
    said = refused(site)
    assert f"{site}/alignment/__init__.py: is missing. It goes where another distribution" in said
    assert "such as alignment-handbook, is uninstalled. To mend it, install clinalign again" in said


def test_files_of_another_beside_its_own_are_a_warning(tmp_path):
    site = tmp_path / "site"
    installed(site, "alignment-handbook", "0.4.0", HANDBOOK)
    installed(site, "clinalign", "0.1.0", of_clinalign())
    done = started(site)
    assert (done.returncode, done.stdout) == (0, "it ran\n")
    assert "alignment-handbook 0.4.0 installs a package 'alignment' too (configs.py, data.py)" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_that_was_changed_by_hand_is_nobodys_fault(site):
    (site / "alignment" / "__init__.py").write_text("changed = True\n")
    (site / "alignment" / "mine.py").write_text("")
    assert started(site).stderr == ""


def test_of_a_checkout_the_package_that_python_finds_first_is_named(tmp_path):
    installed(tmp_path / "site", "alignment-handbook", "0.4.0", HANDBOOK)
    for path, text in of_clinalign().items():
        (tmp_path / "checkout" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "checkout" / path).write_text(text)
    said = refused(tmp_path / "site", tmp_path / "checkout")
    assert f"{tmp_path}/site/alignment/__init__.py: is of alignment-handbook 0.4.0" in said


def test_a_file_of_ones_own_that_takes_a_name_is_named(site, tmp_path):
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk" / "rewards.py").write_text("def my_reward(response): ...\n")
    said = refused(tmp_path / "desk", site)
    assert f"{tmp_path}/desk/rewards.py: Python finds it before clinalign's package 'rewards'. Rename it" in said


@pytest.mark.parametrize("package", ["alignment", "data_builders"])
def test_python_names_it_too(package, tmp_path):
    (tmp_path / "rewards.py").write_text("")
    done = started(tmp_path, ROOT, code=f"import {package}")
    assert f"ImportError: {tmp_path}/rewards.py: Python finds it before clinalign's package" in done.stderr


def test_of_several_processes_the_first_says_it(site, monkeypatch):
    shutil.rmtree(site / "data_builders")
    monkeypatch.setenv("RANK", "1")
    done = started(site)
    assert (done.returncode, done.stderr) == (2, "")
