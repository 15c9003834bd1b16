"""A loop replaces its own release and no other; what is another's is refused before anything is built."""

import json
import shutil

import pytest
import yaml

from alignment.loop.evaluation import evaluated
from alignment.loop.loop_file import read_loop
from alignment.loop.release import NOTE, check_release, loop_release
from alignment.loop.run_loop import run_loop
from alignment.models.tiny import build_tiny
from alignment.release.manifest import verify
from data_builders.locks import only_one
from rewards.config.input_error import InputError
from tests.alignment.release.test_release import judged, records


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models that differ by their seed."""
    root = tmp_path_factory.mktemp("models")
    small = {"image_size": 32, "hidden_size": 32, "vision_hidden_size": 32}
    return [build_tiny(["Is there a nodule?", "Yes", "No"], root / str(k), seed=k, **small) for k in (0, 1)]


@pytest.fixture
def trained(models, tmp_path, monkeypatch):
    """A function that puts a trained and evaluated run of a loop in the place of the one that is there."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "x" / "one"

    def train(seed):
        shutil.rmtree(run, ignore_errors=True)
        run.parent.mkdir(parents=True, exist_ok=True)
        records(run)
        (run / "model").symlink_to(models[seed])
        return judged(run)

    return train


def weights_of(out):
    return json.loads((out / "evaluation.json").read_text())["model_sha256"]


def everything(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_fresh_loop_replaces_its_own_release(trained, tmp_path):
    out = loop_release("runs/x", trained(0), fresh=False)
    first = weights_of(out)
    (tmp_path / "runs" / "x" / NOTE).unlink()  # as of a version that kept none
    check_release("runs/x", trained(0), fresh=True)
    again = loop_release("runs/x", trained(1), fresh=True)
    assert again == out
    assert weights_of(out) != first
    assert verify(out) > 3
    assert sorted(p.name for p in (tmp_path / "released").iterdir()) == ["x"]


def test_a_loop_that_was_trained_anew_and_then_killed_goes_on_to_its_release(trained):
    out = loop_release("runs/x", trained(0), fresh=False)
    first, run = weights_of(out), trained(1)
    check_release("runs/x", run, fresh=False)
    loop_release("runs/x", run, fresh=False)
    assert weights_of(out) != first


def test_a_release_of_the_same_weights_stays_as_it_is(trained):
    out = loop_release("runs/x", trained(0), fresh=False)
    (out / "README.md").write_text("translated")
    check_release("runs/x", trained(0), fresh=False)
    assert (loop_release("runs/x", trained(0), fresh=False) / "README.md").read_text() == "translated"


@pytest.mark.parametrize("kind", ["notes", "file", "other weights", "changed", "no manifest"])
def test_what_is_not_the_loops_own_release_is_refused_and_stays(trained, tmp_path, kind):
    out = tmp_path / "released" / "x"
    run = trained(0)
    if kind == "file":
        out.parent.mkdir()
        out.write_text("mine")
    elif kind == "notes":
        out.mkdir(parents=True)
        (out / "thesis.tex").write_text("years of work")
    else:
        loop_release("runs/x", run, fresh=False)
    if kind == "other weights":
        (tmp_path / "runs" / "x" / NOTE).unlink()
        run = trained(1)
    elif kind == "changed":
        (out / "README.md").write_text("translated")
    elif kind == "no manifest":
        (out / "manifest.json").unlink()
    before = everything(tmp_path)
    for refused in (check_release, loop_release):
        with pytest.raises(InputError, match=r"^released/x: is not the release of this loop as it was made"):
            refused("runs/x", run, fresh=True)
    assert everything(tmp_path) == before


@pytest.fixture
def loop_file(tmp_path):
    (tmp_path / "one.yaml").write_text("{method: sft, model: {path: tiny}, data: {train: none}, output: none}\n")
    content = {
        "spec": "none.yaml", "test": "prompt/test", "release": "one",
        "chain": {"output": "runs/x", "stages": [{"name": "one", "recipe": "one.yaml"}]},
        "compare": [{"before": "untrained", "after": "one", "metrics": ["finding_f1"]}],
    }  # fmt: skip
    (tmp_path / "loop.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "loop.yaml"


def test_a_loop_asks_for_its_release_before_it_builds(loop_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "released" / "x").mkdir(parents=True)
    (tmp_path / "released" / "x" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is not the release of this loop"):
        run_loop(loop_file, fresh=True)


def test_a_loops_evaluation_is_told_where_another_one_is_made(loop_file, trained, tmp_path):
    run = trained(0)
    with (
        only_one(run / "evaluation"),
        pytest.raises(InputError, match=r"evaluation: process \d+ on .* is writing there now"),
    ):
        evaluated(read_loop(loop_file), tmp_path / "data", run, run / "evaluation", controls=False)
