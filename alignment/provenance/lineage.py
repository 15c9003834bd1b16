"""What a model was trained on, step by step: the runs from its base to it, each with its data, as its folder says.

Left out: whether an earlier run was trained anew since; a run notes which model it starts from, not its hash.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alignment.provenance.data_summary import Json, data_summary
from alignment.provenance.released_fields import DATA, RECIPE
from alignment.provenance.weights_digest import files_sha256, folder_of, weight_files
from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json
from rewards.rules.kept_files import known_in
from rewards.rules.known_files import KnownFile


@dataclass(frozen=True)
class Step:
    """One run: its recipe and provenance as written, what is told of its data, and where it lies."""

    recipe: Json
    provenance: Json
    folder: Path = Path()

    @property
    def data(self) -> list[Json]:
        """The summary of each file that it was trained on."""
        files = self.provenance.get("data_sha256")
        found = files.items() if isinstance(files, dict) else ()
        return [data_summary(Path(path), digest) for path, digest in found]

    def rules(self) -> dict[str, KnownFile]:
        """The rule sets of the user's own that it was trained under, by name in its folder; known from now on.

        Raises: InputError if one is not there any more, or is another.
        """
        cure = "Make the run again with: clinalign train RECIPE.yaml --fresh."
        return known_in(self.folder, self.provenance.get("rules"), cure=cure)

    @property
    def published(self) -> Json:
        """Its method and its data."""
        return {"method": RECIPE(self.recipe).get("method", "training"), "data": [DATA(one) for one in self.data]}


def steps_of(run: Path) -> list[Step]:
    """The runs that led to this one, the first first; a run of pairs stands before the run that trained on them.

    Raises: InputError if the run has no recipe or provenance.
    """
    return _steps(run, frozenset())


def trained_on(model: str) -> list[str] | None:
    """SHA-256 of all data that led to a run's model; None where it is no run, or its records are not readable."""
    try:
        steps = steps_of(Path(model)) if _is_run(Path(model)) else None
    except InputError:
        return None
    if steps is None:
        return None
    return sorted({data["sha256"] for step in steps for data in step.data if "sha256" in data})


def _steps(run: Path, seen: frozenset[Path]) -> list[Step]:
    step = Step(*run_records(run), run)
    start = Path(str(step.recipe["model"]["path"]))
    seen |= {run.resolve()}
    before = _steps(start, seen) if _is_run(start) and start.resolve() not in seen else []
    pairs = [Step(*run_records(made), made) for made in _runs_of_data(step.provenance)]
    return [*before, *pairs, step]


def _runs_of_data(provenance: Json) -> list[Path]:
    files = provenance.get("data_sha256")
    return [Path(path).parent.parent for path in files if _is_run(Path(path).parent.parent)] if files else []


def _is_run(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("recipe.resolved.yaml", "provenance.json"))


def run_records(run: Path) -> tuple[Json, Json]:
    """The resolved recipe and the provenance of a run.

    Raises: InputError if one is not readable.
    """
    try:
        recipe: Any = yaml.safe_load((run / "recipe.resolved.yaml").read_text(encoding="utf-8"))
        provenance = read_json(run / "provenance.json", "")
        known = isinstance(recipe["method"], str) and isinstance(recipe["model"]["path"], str)
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        recipe, provenance, known = None, None, False
    if not known or not isinstance(provenance, dict):
        raise InputError(
            f"{run}: its recipe.resolved.yaml or provenance.json is not readable. Make the run again with: "
            "clinalign train RECIPE.yaml --fresh."
        )
    return recipe, provenance


def base_name(steps: list[Step]) -> str:
    """What the first run started from: ``tiny``, ``smollm2``, a cached model of the hub by its name, else its hash."""
    path = str(steps[0].recipe["model"]["path"])
    if path in ("tiny", "smollm2"):
        return f"{path} (made by clinalign)"
    if Path(path).exists():
        files = weight_files(Path(path)) or weight_files(Path(path) / "model")
        return f"a model without a public name, SHA-256 {files_sha256(files)}" if files else "a model that is not named"
    return public_name(steps) or "a model that is not named"


def public_name(steps: list[Step]) -> str | None:
    """The name of the cached model of the hub that the first run started from; None if it was another."""
    path = str(steps[0].recipe["model"]["path"])
    is_name = re.fullmatch(r"[\w.-]+/[\w.-]+", path, re.ASCII) and not Path(path).exists()
    return path if is_name and folder_of(path) else None
