"""Every command that writes where it is told checks the place before it reads or computes anything: one sentence.

The commands are read from the program, so that a new one must say here how it is tried.
"""

from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer.main
import yaml
from PIL import Image
from typer.testing import CliRunner

from alignment.audit.files import audits
from alignment.cli.app import app
from alignment.cli.inspection import PICTURES, _is_ours, _save
from data_builders.output_folders import check_file
from rewards.config.input_error import InputError

COMMANDS = typer.main.get_command(app).commands
FILES = {"inspect": "x.png", "audit": "x.html", "new-rules": "x.yaml"}
"""Commands that write one file, and a name that it can have; the others write folders, or files beside each other."""
TRIED = {
    "export": ("other.parquet", "llava", "OUT"),
    "eval": ("gone", "other.parquet", "--out", "OUT"),
    "release": ("gone", "OUT"),
    "counterparts": ("other.parquet", "OUT", "--model", "a=gone"),
    "inspect": ("other.parquet", "--model", "gone", "--out", "OUT"),
    "audit": ("grpo.yaml", "--out", "OUT"),
    "new-rules": ("gone", "OUT"),
    "soak": ("grpo.yaml", "--out", "OUT"),
    "eval-reward-model": ("gone", "other.parquet", "--out", "OUT"),
}
"""By command: arguments that name something else, or nothing, or much: only the output is looked at."""
RECIPE = {
    "method": "grpo", "output": "runs/x", "model": {"path": "tiny"}, "data": {"train": "other"},
    "rewards": [{"name": "finding_f1"}],
}  # fmt: skip


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A working directory with a table of something else, a sound recipe, and years of work."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({name: [1] for name in ("images", "prompt", "facts", "task")}), tmp_path / "other.parquet")
    (tmp_path / "grpo.yaml").write_text(yaml.safe_dump(RECIPE))
    (tmp_path / "work").mkdir()
    for name in ("thesis.tex", "answers.jsonl", "x.png", "x.html", "x.yaml"):
        (tmp_path / "work" / name).write_text("years of work")
    return tmp_path


def everything(folder):
    return {p.relative_to(folder): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def refused(name, out, desk):
    """The sentence with which the command refuses its output; nothing may have been written."""
    before = everything(desk)
    done = CliRunner().invoke(app, [name, *(str(out) if word == "OUT" else word for word in TRIED[name])])
    assert done.exit_code == 2, done.output
    assert everything(desk) == before
    [told] = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    return told


def test_every_command_with_an_output_is_tried():
    with_output = {name for name, command in COMMANDS.items() if any(p.name == "out" for p in command.params)}
    assert with_output == TRIED.keys()


@pytest.mark.parametrize("place", ["grpo.yaml/x", "/proc/nowhere/x"])
@pytest.mark.parametrize("name", TRIED)
def test_a_place_where_nothing_can_be_written_is_told_first(name, place, desk):
    out = f"{place.removesuffix('/x')}/{FILES[name]}" if name in FILES else place
    assert "othing can be written there" in refused(name, out, desk)


@pytest.mark.parametrize("name", sorted(TRIED.keys() - FILES.keys() - {"counterparts"}))
def test_a_folder_that_holds_something_else_is_told_first(name, desk):
    assert "work" in refused(name, "work", desk)


@pytest.mark.parametrize("name", sorted(TRIED.keys() - FILES.keys() - {"counterparts", "eval"}))
def test_a_file_is_told_where_a_folder_is_wanted(name, desk):
    assert "work/thesis.tex" in refused(name, "work/thesis.tex", desk)


@pytest.mark.parametrize(
    ("name", "out"),
    [("inspect", "other.parquet"), ("audit", "grpo.yaml"), ("counterparts", "other.parquet"), ("soak", ".")],
)
def test_what_is_read_is_not_written_over(name, out, desk):
    assert out in refused(name, out, desk)


@pytest.mark.parametrize(("name", "out"), [("inspect", "work"), ("audit", "work"), ("inspect", "work/thesis.tex")])
def test_a_file_that_cannot_be_of_its_kind_is_told_first(name, out, desk):
    assert f"error: {out}: expected a name that ends in ." in refused(name, out, desk)


@pytest.mark.parametrize(("name", "out"), [("inspect", "work/x.png"), ("audit", "work/x.html")])
def test_a_file_that_the_command_did_not_write_is_not_written_over(name, out, desk):
    assert f"error: {out}: is there already, and not of this command; it is not replaced." in refused(name, out, desk)


def test_the_picture_of_a_patient_is_not_written_over_by_default(desk):
    Image.new("L", (8, 8)).save(desk / "inspect.png")
    before = everything(desk)
    done = CliRunner().invoke(app, ["inspect", "other.parquet", "--model", "gone"])
    assert done.exit_code == 2
    assert "inspect.png: is there already, and not of this command" in done.stderr
    assert everything(desk) == before


def test_the_default_page_of_an_audit_is_not_written_over(desk, monkeypatch):
    monkeypatch.setattr("alignment.audit.files.read_recipe", lambda *_: SimpleNamespace(output="runs/x"))
    (desk / "runs" / "x").mkdir(parents=True)
    (desk / "runs" / "x" / "audit.html").write_text("<title>Audit of the ward</title>")
    with pytest.raises(InputError, match=r"audit\.html: is there already, and not of this command"):
        next(audits(desk / "grpo.yaml", [], limit=1, out=None))


@pytest.mark.parametrize("name", ["x.png", "x.JPG", "x.jpeg"])
def test_a_picture_of_inspect_is_known_and_may_be_replaced(tmp_path, name):
    picture = Image.new("RGB", (8, 8))
    picture.save(tmp_path / name)
    assert not _is_ours(tmp_path / name)
    _save(picture, tmp_path / name)
    assert _is_ours(tmp_path / name)
    check_file(tmp_path / name, kinds=PICTURES, is_own=_is_ours)


@pytest.mark.parametrize("name", ["x", "x.", ".png", "x.bmp", "x.tiff", "x png"])
def test_a_name_without_a_pictures_ending_is_told(name, desk):
    assert f"{name}: expected a name that ends in .png or .jpg or .jpeg" in refused("inspect", name, desk)


def test_a_file_that_is_read_or_is_a_folder_is_no_output(tmp_path):
    own = tmp_path / "x.png"
    own.mkdir()
    with pytest.raises(InputError, match=r"x.png: is a folder. Name a file in it."):
        check_file(own, kinds=[".png"])
    read = tmp_path / "y.png"
    read.write_bytes(b"")
    (tmp_path / "z.png").symlink_to(read)
    with pytest.raises(InputError, match=r"z.png: is read, and would be written over"):
        check_file(tmp_path / "z.png", kinds=[".png"], inputs=[read, tmp_path / "gone.png"])
    check_file(read, kinds=[".png"])
    check_file(tmp_path / "new" / "folder" / "x.PNG", kinds=[".png"])
    assert not (tmp_path / "new").exists()
