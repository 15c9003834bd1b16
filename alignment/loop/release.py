"""The release of a loop: made anew with it, where there is nothing yet or the loop's own release, as it was made.

Which one is its own stands in the loop's ``released.json``. Left out: releases that were changed by hand; they stay.
"""

import json
from pathlib import Path

from alignment.release.manifest import MANIFEST, faults_of
from data_builders.digest import sha256
from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json

NOTE = "released.json"


def release_folder(output: str) -> Path:
    """Where the release of a loop with this output goes."""
    return Path("released") / Path(output).name


def check_release(output: str, run: Path, *, fresh: bool) -> None:
    """Before anything is built: the release can be made, or stands. Its own is noted, as the run may be replaced.

    Raises: InputError if its folder holds something else than the loop's own release, or one that was changed.
    """
    out = release_folder(output)
    is_there = out.is_file() or (out.is_dir() and any(out.iterdir()))
    if not is_there:
        return
    if _is_of_run(out, output, run):
        _note(out, output)
    elif fresh or not _is_of(out, run):
        raise InputError(
            f"{out}: is not the release of this loop as it was made, so it is not replaced. Move it elsewhere, or name "
            "another chain.output in the loop."
        )


def loop_release(output: str, run: Path, *, fresh: bool) -> Path:
    """The release of the run; made if it is not there, is of other weights, or the loop is run afresh.

    Raises: InputError as ``check_release`` and ``release`` do.
    """
    out = release_folder(output)
    if fresh or not _is_of(out, run):
        from alignment.release.release import release

        check_release(output, run, fresh=fresh)
        release(run, out, replace=True)
        _note(out, output)
    return out


def _note(out: Path, output: str) -> None:
    note = {"released": str(out), "manifest_sha256": sha256(out / MANIFEST)}
    (Path(output) / NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def _is_of_run(out: Path, output: str, run: Path) -> bool:
    """Whether this loop made the folder, by its note or by the weights that stand, and nothing in it has changed."""
    if not (out / MANIFEST).is_file() or faults_of(out):
        return False
    note = _content(Path(output) / NOTE)
    return note.get("manifest_sha256") == sha256(out / MANIFEST) or _is_of(out, run)


def _is_of(out: Path, run: Path) -> bool:
    """Whether the folder holds a release of the very weights of the run, with the evaluation that it has now."""
    from alignment.provenance.weights_digest import model_sha256

    has_weights = any((run / "model" / name).is_file() for name in ("config.json", "adapter_config.json"))
    released, now = _content(out / "evaluation.json"), _content(run / "evaluation" / "evaluation.json")
    if any(
        released.get(name) != now.get(name) for name in ("data_sha256", "num_rows", "max_new_tokens") if name in now
    ):
        return False
    weights = released.get("model_sha256")
    return has_weights and weights is not None and weights == model_sha256(str(run))


def _content(file: Path) -> dict[str, object]:
    """What stands in a JSON file; nothing where there is none, or none that is readable."""
    try:
        return read_json(file, "")
    except InputError:
        return {}
