"""Nothing is lost at an output, and nothing left behind, whenever a process dies and whoever else writes there."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_builders.build.build import build
from data_builders.build.build_spec import BuildSpec
from data_builders.locks import lock_file, only_one
from data_builders.output_folders import (
    named_files,
    new_folder,
    recover,
    refuse_foreign,
    refuse_needed,
    refuse_nested,
    refuse_others,
    remove,
    removed,
    replaced,
    unfinished,
)
from rewards.config.input_error import InputError

ROOT = Path(__file__).parents[3]
SPEC = {
    "source": {"name": "phantom_chest", "patients": 8, "images_per_patient": 1, "size": 64},
    "splits": {"sft": 1.0},
    "rows": {"instruction": ["sft"]},
    "tasks": {"presence": 1},
}


def old_and_new(tmp_path):
    """An output that holds one file."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    return out


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_new_folder_takes_the_place_of_the_old_one_and_nothing_else_stays(tmp_path):
    out = old_and_new(tmp_path)
    with new_folder(out) as grown:
        (grown / "new").write_text("new")
        assert names(out) == ["old"]
    assert names(out) == ["new"]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("at", [1, 2], ids=["before the first rename", "between the renames"])
def test_ctrl_c_around_the_renames_leaves_the_old_folder(tmp_path, monkeypatch, at):
    out, rename, calls = old_and_new(tmp_path), Path.rename, []

    def interrupted(path, target):
        calls.append(path)
        if len(calls) == at:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), new_folder(out) as grown:
        (grown / "new").write_text("new")
    assert names(tmp_path) == ["out"]
    assert names(out) == ["old"]


def killed(code, tmp_path):
    """Runs this code in a process that ends by SIGKILL."""
    head = (
        "import os, signal\nfrom pathlib import Path\nfrom data_builders.locks import only_one\n"
        "from data_builders.output_folders import new_folder, remove\n"
        "kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\nout = Path('out')\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", head + code], cwd=tmp_path, env=env, check=False)
    assert done.returncode == -signal.SIGKILL


BETWEEN = """
with only_one(out), new_folder(out) as grown:
    (grown / 'new').write_text('new')
    rename = Path.rename
    Path.rename = lambda a, b: (rename(a, b), kill())
"""
GROWING = """
with only_one(out), new_folder(out) as grown:
    (grown / 'new').write_text('new')
    kill()
"""
REMOVING = """
import shutil
shutil.rmtree = kill
with only_one(out):
    remove(out)
"""


def test_sigkill_between_the_renames_is_set_right_at_the_next_start(tmp_path, caplog):
    out = old_and_new(tmp_path)
    killed(BETWEEN, tmp_path)
    assert not out.exists()
    with only_one(out):
        recover(out)
    assert names(out) == ["old"]
    assert names(tmp_path) == ["out"]
    assert "put back as it was" in caplog.text
    assert str(unfinished(out)) in caplog.text  # the half-made copy is named


@pytest.mark.parametrize("code", [GROWING, REMOVING], ids=["growing", "removing"])
def test_what_a_killed_process_left_behind_goes_with_the_next_start(tmp_path, code, caplog):
    out = old_and_new(tmp_path)
    killed(code, tmp_path)
    assert unfinished(out).exists() or removed(out).exists()
    with only_one(out), new_folder(out) as grown:
        (grown / "newer").write_text("newer")
    assert names(tmp_path) == ["out"]
    assert names(out) == ["newer"]
    assert "had left it behind" in caplog.text


def test_a_living_process_keeps_its_folder_and_the_second_is_told_at_once(tmp_path):
    out = tmp_path / "out"
    hold = f"import sys, time\nsys.path.insert(0, {str(ROOT)!r})\nfrom pathlib import Path\n"
    hold += "from data_builders.locks import only_one\nfrom data_builders.output_folders import new_folder\n"
    hold += "with only_one(Path('out')), new_folder(Path('out')) as f:\n    print('held', flush=True)\n    input()\n"
    command = [sys.executable, "-c", hold]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        since = time.monotonic()
        with pytest.raises(InputError, match=rf"out: process {first.pid} on .* is writing there now"), only_one(out):
            pytest.fail("two at one output")
        assert time.monotonic() - since < 1
        assert unfinished(out).is_dir()
        first.kill()
    with only_one(out):  # the lock died with its process
        recover(out)
    assert names(tmp_path) == []


def test_a_build_at_an_output_where_another_is_at_work_is_refused_and_its_staging_stays(tmp_path):
    spec = BuildSpec.model_validate({**SPEC, "output": str(tmp_path / "data")})
    with only_one(tmp_path / "data"):
        unfinished(tmp_path / "data").mkdir()
        with pytest.raises(InputError, match="is writing there now"):
            build(spec)
        assert unfinished(tmp_path / "data").is_dir()
    build(spec)
    assert names(tmp_path) == ["data"]


def test_one_output_has_one_lock_by_whatever_path_it_is_named(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    assert lock_file(Path("link")) == lock_file(tmp_path / "real") == lock_file(Path("x/../real"))


def test_a_lock_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="nothing can be written there"), only_one(tmp_path / "file" / "out"):
        pytest.fail("held")


def test_the_folder_behind_a_link_is_replaced_and_the_link_stays(tmp_path):
    out = old_and_new(tmp_path)
    (tmp_path / "link").symlink_to("out")
    with new_folder(tmp_path / "link") as grown:
        (grown / "new").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert names(out) == ["new"]


def test_a_folder_is_removed_whole(tmp_path):
    remove(old_and_new(tmp_path))
    remove(tmp_path / "not there")
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["thesis.tex", "mark.yaml.bak", "mark.yaml.tmp", "model"])
def test_files_of_something_else_are_not_replaced(tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("")
    with pytest.raises(InputError, match=rf"holds files \({name}\) but no mark.yaml, so it is not a run"):
        refuse_foreign(tmp_path / "out", mark="mark.yaml", kind="a run")


@pytest.mark.parametrize("name", ["mark.yaml", "mark.yaml.123.tmp", ".lock", "launch.sbatch"])
def test_a_folder_of_ours_may_be_replaced(tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("")
    refuse_foreign(tmp_path / "out", mark="mark.yaml", kind="a run", besides=["launch.sbatch"])


@pytest.mark.parametrize("out", [".", "..", "sub/..", "/"])
def test_no_folder_that_holds_the_working_directory_is_replaced(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="holds the working directory"):
        refuse_needed(Path(out))


def test_no_folder_that_holds_the_home_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "out" / "me"))
    with pytest.raises(InputError, match="holds your home folder"):
        refuse_needed(tmp_path / "out")
    refuse_needed(tmp_path / "outer")


@pytest.mark.parametrize("inner", ["x/recipe.resolved.yaml", "x/manifest.json", "x/.git/HEAD"])
def test_a_folder_that_holds_what_another_command_made_is_not_replaced(tmp_path, inner):
    (tmp_path / "out" / inner).parent.mkdir(parents=True)
    (tmp_path / "out" / inner).write_text("")
    with pytest.raises(InputError, match="also holds x"):
        refuse_nested(tmp_path / "out")


def test_a_build_does_not_replace_the_folder_that_holds_its_source_or_its_spec(tmp_path):
    out = tmp_path / "data"
    build(BuildSpec.model_validate({**SPEC, "output": str(out)}))
    shutil.copytree(out, tmp_path / "copy")
    (out / "spec.yaml").write_text("")
    with pytest.raises(InputError, match=r"spec\.yaml, which is read"):
        build(BuildSpec.model_validate({**SPEC, "output": str(out)}), inputs=[out / "spec.yaml"])
    relevance = {"scores": str(out / "card.json"), "kinds": ["hallucination"]}
    with pytest.raises(InputError, match=r"card\.json, which is read"):
        build(BuildSpec.model_validate({**SPEC, "output": str(out), "relevance": relevance}))
    assert {p.name for p in (tmp_path / "copy").iterdir()} <= {p.name for p in out.iterdir()}


def test_files_are_found_in_whatever_names_them(tmp_path):
    for name in ("train.parquet", "mine.py", "folder"):
        (tmp_path / name).write_text("")
    content = {
        "output": str(tmp_path / "folder"), "data": {"train": f"{tmp_path}/train"}, "method": "sft",
        "rewards": [{"name": f"{tmp_path}/mine.py:margin"}, {"name": "length"}], "text": "a\0b/c. " * 3,
        "long": "a/" * 9999,
    }  # fmt: skip
    assert list(named_files(content)) == [tmp_path / "train.parquet", tmp_path / "mine.py"]


def test_the_names_beside_an_output_are_hidden_and_differ(tmp_path):
    beside = [unfinished(tmp_path / "x"), replaced(tmp_path / "x"), removed(tmp_path / "x"), lock_file(tmp_path / "x")]
    assert len({*beside}) == 4
    assert all(p.name.startswith(".x.") and p.parent == tmp_path for p in beside)


def everything(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("card", ["{}", "[]", "no JSON", '{"sha256": ["x.txt"], "spec": {}}'])
def test_a_card_that_no_build_wrote_gives_no_folder_away(tmp_path, card):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "x.txt").write_text("gold")
    (tmp_path / "precious" / "card.json").write_text(card)
    before = everything(tmp_path)
    with pytest.raises(InputError, match=r"precious also holds card\.json, x\.txt, which a build did not write"):
        build(BuildSpec.model_validate({**SPEC, "output": str(tmp_path / "precious")}))
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    "theirs",
    ["notes.txt", "corrections/radiologist_edits.csv", "instruction/mine.parquet", "quarantine/why.md",
     "gallery.html.bak", "prompt/.hidden", "pool/mine.csv"],
)  # fmt: skip
def test_a_file_that_was_added_to_a_set_is_named_and_the_set_stays(tmp_path, theirs):
    spec = BuildSpec.model_validate({**SPEC, "output": str(tmp_path / "data")})
    out = build(spec)
    (out / theirs).parent.mkdir(exist_ok=True)
    (out / theirs).write_text("a day of work")
    before = everything(tmp_path)
    with pytest.raises(InputError, match=f"data also holds {theirs}, which a build did not write"):
        build(spec, progress=lambda _: pytest.fail("something was computed"))
    assert everything(tmp_path) == before


def test_what_commands_write_into_a_set_goes_with_it(tmp_path):
    spec = BuildSpec.model_validate({**SPEC, "output": str(tmp_path / "data")})
    out = build(spec)
    fresh = everything(out)
    for name in (
        ".lock", ".DS_Store", "splits.json", "relevance-sft.jsonl", "quarantine/reasons.jsonl", "instruction/sft.fresh",
        "quarantine/instruction/sft.parquet", "pool/align.parquet", "pool/align.counterparts.json", "pool/align.sbatch",
        "pool/align.counterparts.jsonl", "pool/align.counterparts.jsonl.lock", "pool/.align.parquet.lock",
        "pool/.align.parquet.unfinished", "pool/align.rows/parquet/x.arrow", "quarantine/pool/align.parquet",
    ):  # fmt: skip
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("")
    (out / "empty").mkdir()
    build(spec)
    assert everything(out) == fresh


def test_a_link_in_a_set_is_somebody_elses(tmp_path):
    out = old_and_new(tmp_path)
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "old").write_text("")
    (out / "link").symlink_to(tmp_path / "far")
    refuse_others(out, is_own={"old", "link"}.__contains__, kind="a run")
    with pytest.raises(InputError, match="also holds link, which"):
        refuse_others(out, is_own=lambda path: path == "old", kind="a run")


def test_no_more_than_three_files_are_named(tmp_path):
    for name in "abcde":
        (tmp_path / name).write_text("")
    with pytest.raises(InputError, match="also holds a, b, c and 2 more, which a run did not write"):
        refuse_others(tmp_path, is_own=lambda _: False, kind="a run")


def test_a_lock_that_can_be_made_nowhere_is_not_held_by_another_process():
    with pytest.raises(InputError, match=r"^/proc/x: nothing can be written there \("), only_one(Path("/proc/x")):
        pytest.fail("held")


def test_a_full_disk_leaves_no_lock_behind(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(InputError, match=r"nothing can be written there \(No space left"), only_one(tmp_path / "o"):
            pytest.fail("held")
    assert names(tmp_path) == []
    with only_one(tmp_path / "o"):
        assert lock_file(tmp_path / "o").exists()
