"""The files of the user's own that rule a run: found where its rows lie and in its recipe, and kept in its folder."""

from pathlib import Path

from alignment.config.recipe import Recipe
from data_builders.cards import rules_of_rows
from data_builders.curriculum.curriculum import is_file, load_curriculum
from data_builders.entries import file_of_entry
from rewards.config.json_lines import read_json
from rewards.rules.kept_files import files_of, known_in
from rewards.rules.known_files import KEPT, KnownFile, known_file, read_file
from rewards.rules.rule_set import register


def rules_of_run(recipe: Recipe) -> dict[str, KnownFile]:
    """The files of the user's own that rule a run, by the names under which its folder keeps them.

    These are the rule sets that its rows' sets keep or its recipe names, and a curriculum that it trains along.
    Raises: InputError as ``rules_of_rows``.
    """
    named = [recipe.data.train, *([recipe.sampling.built] if recipe.sampling.built else [])]
    rows = [file for name in named if (file := file_of_entry(name)).is_file()]
    found = {name: file for one in rows for name, file in rules_of_rows(one).items() if name.startswith(KEPT)}
    found |= files_of(register(Path(path)).id for path in recipe.rule_sets)
    section = recipe.data.curriculum
    if section and section.file and is_file(section.file):
        found[f"curricula/{load_curriculum(section.file).id}.yaml"] = read_file(Path(section.file))
    return found


def rules_kept_in(folder: Path, record: str, *, cure: str) -> dict[str, KnownFile]:
    """The files that a run or an evaluation keeps by its ``record`` (a JSON file in it), known from now on.

    Nothing where there is no such record. ``cure`` and what is raised: as ``known_in``.
    """
    return known_in(folder, _listed_in(folder, record, cure=cure), cure=cure)


def _listed_in(folder: Path, record: str, *, cure: str) -> object:
    return read_json(folder / record, cure).get("rules") if (folder / record).is_file() else None


def know_rules_of_model(model: str) -> None:
    """Makes the rule sets known that a run or a released model keeps, but where a file of the same id is known already.

    Its own are for rows whose folder keeps none; where that keeps some, rows are judged by those.
    """
    for record in ("provenance.json", "evaluation.json"):
        listed = _listed_in(Path(model), record, cure="")
        if isinstance(listed, dict):
            listed = {name: digest for name, digest in listed.items() if known_file(Path(name).stem) is None}
        known_in(Path(model), listed, cure="Make it anew, or name your file: --rules FILE.")
