"""The wheel: it holds every file of the packages and every recipe, and its commands work in an empty folder."""

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("rewards", "data_builders", "alignment")
BUILD = "import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])"
RUN = """
import shlex, sys
import alignment, data_builders, rewards
from alignment.cli.app import app
print(alignment.__file__, data_builders.__file__, rewards.__file__)
for line in sys.stdin:
    print(">", line.strip(), flush=True)
    assert not app(shlex.split(line), standalone_mode=False)
"""
COMMANDS = """
build recipes/data/phantom_chest_small.yaml
check recipes/sft/phantom_chest.yaml data.train=data/phantom_chest_small/instruction/sft
check recipes/sft/qwen2_5_vl_7b_lora.yaml data.train=data/phantom_chest_small/instruction/sft --tokens 99 --gpus 2
train recipes/sft/phantom_chest.yaml data.train=data/phantom_chest_small/instruction/sft trainer.max_steps=1 \
trainer.per_device_train_batch_size=2
eval runs/phantom_chest/sft data/phantom_chest_small/prompt/test --limit 2
audit --boxes
rewards
recipes
recipes loops/mmedpo --to mine.yaml
check-rules chest_xray
launch recipes/chains/phantom_chest.yaml data=data/phantom_chest_small --gpus 2 --cpu --dry-run
launch mine.yaml --gpus 2 --slurm --dry-run
demo --help
bench --help
"""
"""What is tried where nothing of the checkout is: what reads a file of each kind that the wheel holds."""


def setuptools_is_there():
    try:
        return int(version("setuptools").split(".")[0]) >= 77  # pyproject.toml's own bound
    except PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def tracked():
    """Every file that git knows, or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("no git checkout, whose files a wheel could be compared with")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tracked, tmp_path_factory):
    """Built of those files alone: a build folder that somebody left behind cannot add to it."""
    if not setuptools_is_there():
        pytest.skip("setuptools 77 or newer is not installed, and nothing is fetched")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=source, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_what_git_tracks_of_the_packages_and_the_recipes(wheel, tracked):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    of_packages = {n for n in tracked if n.startswith(tuple(f"{p}/" for p in PACKAGES)) and not n.endswith(".md")}
    recipes = {n for n in tracked if n.startswith("recipes/") and not n.endswith(".md")}
    assert len(recipes) > 50
    assert held == {"clinalign.py"} | of_packages | {
        n.replace("recipes/", "alignment/shipped_recipes/", 1) for n in recipes
    }


@pytest.mark.slow
def test_every_command_works_in_an_empty_folder(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    empty = tmp_path / "empty"
    empty.mkdir()
    env = {"PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", RUN]
    done = subprocess.run(
        command, input=COMMANDS.strip(), cwd=empty, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert all(file.startswith(str(tmp_path / "site")) for file in done.stdout.split("\n")[0].split())
    for name in ("data/phantom_chest_small/gallery.html", "runs/phantom_chest/sft/evaluation/report.html"):
        assert (empty / name).is_file()
    assert not (empty / "recipes").exists()
    assert done.stderr.count("`clinalign recipes NAME` copies one to edit") == 1
