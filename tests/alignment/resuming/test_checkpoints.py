"""What counts as a whole checkpoint, and which one a run goes on from."""

import json
import logging

import pytest

from alignment.resuming.checkpoints import MANIFEST, fault, last_whole, seal, write_whole, written_by
from rewards.config.input_error import InputError


@pytest.fixture
def run(tmp_path):
    """A run's folder with two sealed checkpoints."""
    for step in (2, 10):
        folder = tmp_path / f"checkpoint-{step}"
        (folder / "global_step").mkdir(parents=True)
        (folder / "weights.safetensors").write_bytes(bytes(range(200)))
        (folder / "global_step" / "optimizer.pt").write_bytes(b"moments")
        seal(folder, step=step)
    return tmp_path


def test_the_manifest_names_every_file_with_size_and_hash(run):
    content = json.loads((run / "checkpoint-10" / MANIFEST).read_text())
    assert content["step"] == 10
    assert content["processes"] == 1
    assert content["files"]["global_step/optimizer.pt"][0] == len(b"moments")
    assert set(content["files"]) == {"weights.safetensors", "global_step/optimizer.pt"}


def test_the_newest_whole_checkpoint_is_taken_by_number_not_by_name(run):
    assert fault(run / "checkpoint-10") is None
    assert last_whole(run) == run / "checkpoint-10"


def tear(file):
    file.write_bytes(file.read_bytes()[:-1])


def flip(file):
    file.write_bytes(b"M" + file.read_bytes()[1:])


@pytest.mark.parametrize(
    ("harm", "name", "says"),
    [
        (tear, "weights.safetensors", "is torn: weights.safetensors has 199 bytes of 200"),
        (flip, "global_step/optimizer.pt", "is damaged: optimizer.pt"),
        (lambda file: file.unlink(), "weights.safetensors", "lacks weights.safetensors"),
        (lambda file: file.unlink(), MANIFEST, f"was not finished (no {MANIFEST})"),
    ],
)
def test_a_torn_checkpoint_is_named_and_the_one_before_it_used(run, caplog, harm, name, says):
    harm(run / "checkpoint-10" / name)
    with caplog.at_level(logging.WARNING):
        assert last_whole(run) == run / "checkpoint-2"
    assert len(caplog.messages) == 1
    assert says in caplog.messages[0]
    assert "the one before it is used" in caplog.messages[0]


def test_without_a_whole_checkpoint_there_is_none(run, tmp_path):
    for step in (2, 10):
        (run / f"checkpoint-{step}" / MANIFEST).unlink()
    assert last_whole(run) is None
    assert last_whole(tmp_path / "nowhere") is None


def test_another_number_of_processes_is_refused(run):
    file = run / "checkpoint-10" / MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | {"processes": 2}))
    told = "written by 2 processes, and this run has 1.* Start it with 2, add --inexact .* random states are not"
    with pytest.raises(InputError, match=told):
        last_whole(run)
    assert last_whole(run, inexact=True) == run / "checkpoint-10"
    assert written_by(run / "checkpoint-10") == 2


def test_a_file_is_replaced_in_one_step(tmp_path):
    file = tmp_path / "plan.json"
    write_whole(file, "old")
    write_whole(file, "new")
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]
