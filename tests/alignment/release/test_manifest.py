"""A release that verifies is, byte for byte, what was released."""

import json
import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from alignment.cli.app import app
from alignment.release.manifest import faults_of, make_readable, verify, write_manifest
from rewards.config.input_error import InputError

FILES = {"model.safetensors": b"\x00weights\xff", "README.md": b"# card\n", "inner/chat template.jinja": b"{{ x }}"}


def released(folder):
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    write_manifest(folder)
    return folder


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_one_changed_byte_anywhere_is_found(data):
    with tempfile.TemporaryDirectory() as scratch:
        folder = released(Path(scratch))
        file = folder / data.draw(st.sampled_from([*FILES, "manifest.json"]))
        content = bytearray(file.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        file.write_bytes(content)
        try:
            assert faults_of(folder)
        except InputError:  # a manifest that is none any more
            assert file.name == "manifest.json"


def test_what_is_as_it_was_has_no_fault(tmp_path):
    assert faults_of(released(tmp_path)) == {}
    assert verify(tmp_path) == 3


def test_an_added_folder_is_told_by_its_name_and_an_emptied_one_by_its_files(tmp_path):
    released(tmp_path)
    (tmp_path / "DOE_JANE" / "CT").mkdir(parents=True)
    (tmp_path / "inner" / "ROE_JIM").mkdir()
    (tmp_path / "inner" / "chat template.jinja").unlink()
    added, gone = "is not in the manifest", "is missing"
    assert faults_of(tmp_path) == {
        "DOE_JANE/CT/": added, "inner/ROE_JIM/": added, "inner/chat template.jinja": gone
    }  # fmt: skip
    (tmp_path / "inner" / "ROE_JIM").rmdir()
    assert faults_of(tmp_path) == {"DOE_JANE/CT/": added, "inner/chat template.jinja": gone}


def test_renamed_added_missing_and_linked_files_are_named(tmp_path):
    released(tmp_path)
    (tmp_path / "README.md").rename(tmp_path / "readme.md")
    (tmp_path / "inner" / "more.bin").write_bytes(b"")
    (tmp_path / "model.safetensors").rename(tmp_path.parent / "elsewhere")
    (tmp_path / "model.safetensors").symlink_to(tmp_path.parent / "elsewhere")
    (tmp_path / "inner" / "gone").symlink_to(tmp_path / "nowhere")
    assert faults_of(tmp_path) == {
        "README.md": "is missing",
        "inner/gone": "is not in the manifest",
        "inner/more.bin": "is not in the manifest",
        "model.safetensors": "has changed",
        "readme.md": "is not in the manifest",
    }


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "inner/../../secret", "a\\..\\b", "", ".", "./README.md", "inner//x", "a\0b"]
)
def test_a_manifest_that_points_out_of_its_folder_is_refused(tmp_path, name):
    released(tmp_path / "out")
    (tmp_path / "secret").write_text("x")
    file = tmp_path / "out" / "manifest.json"
    content = json.loads(file.read_text())
    content["files"][name] = {"sha256": "0" * 64, "bytes": 1}
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"manifest.json: expected files of this folder, got"):
        faults_of(tmp_path / "out")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "[" * 100_000, '{"files": 1}', '{"files": ["README.md"]}', "\udcff"]
)
def test_a_damaged_manifest_is_told_in_one_sentence(tmp_path, content):
    released(tmp_path)
    (tmp_path / "manifest.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"manifest.json: .*Release it again from its run"):
        faults_of(tmp_path)


def test_every_field_that_is_added_to_a_manifest_is_a_change(tmp_path):
    file = released(tmp_path) / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"note": "x"}, indent=2, sort_keys=True) + "\n")
    assert faults_of(tmp_path) == {"manifest.json": "has changed"}


def test_the_command_ends_with_1_where_anything_changed(tmp_path):
    released(tmp_path)
    sound = CliRunner().invoke(app, ["verify", str(tmp_path)])
    assert (sound.exit_code, sound.output) == (0, f"verified: {tmp_path}\n")
    (tmp_path / "a\x1b[2J").write_text("x")
    changed = CliRunner().invoke(app, ["verify", str(tmp_path)])
    assert (changed.exit_code, changed.output) == (1, "'a\\x1b[2J' is not in the manifest\n")


@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o002, 0o664, 0o775)])
def test_files_and_folders_are_readable_by_whom_the_umask_lets(tmp_path, umask, file_mode, folder_mode):
    released(tmp_path / "out")
    for path in ((tmp_path / "out"), *(tmp_path / "out").rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    before = os.umask(umask)
    try:
        make_readable(tmp_path / "out")
    finally:
        os.umask(before)
    modes = {p: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "out", *(tmp_path / "out").rglob("*"))}
    assert {modes[p] for p in modes if p.is_file()} == {file_mode}
    assert {modes[p] for p in modes if p.is_dir()} == {folder_mode}
