"""What of the user's own rules a built set: the files that its spec names, and the rule sets that its rows name."""

from pathlib import Path

from data_builders.build.build_spec import BuildSpec
from data_builders.build.tally import Tally
from data_builders.curriculum.curriculum import is_file, load_curriculum
from rewards.rules.kept_files import files_of
from rewards.rules.known_files import KnownFile, read_file
from rewards.rules.rule_set import register


def rule_sets_of(tally: Tally) -> set[str]:
    """The ids of all rule sets that rows name: those of their facts, and the guidelines of a curriculum."""
    if tally.curriculum is None:
        return tally.rule_sets
    curriculum = tally.curriculum.curriculum
    guidelines = {name for task in curriculum.tasks.values() for name in curriculum.guidelines_of(task)}
    return tally.rule_sets | guidelines


def files_in(spec: BuildSpec) -> dict[str, KnownFile]:
    """The rule sets, the curriculum and the column map that a spec names by path, by their names in the built set.

    They are as they are now; the rule sets are known from now on.
    """
    named, columns = [*spec.rule_sets, spec.source.file("rule_set")], spec.source.file("columns")
    found = files_of(register(Path(path)).id for path in named if path)
    if spec.curriculum and is_file(spec.curriculum.file):
        name = load_curriculum(spec.curriculum.file).id
        found[f"curricula/{name}.yaml"] = read_file(Path(spec.curriculum.file))
    if columns:
        found[f"column_maps/{columns.name}"] = read_file(columns)
    return found
