"""The pages that are made while the site is built: references out of the code, and the house's own files.

They are not kept in the repository: nothing can differ from the code then, and no change of a docstring needs a second
file. What is told of a class or a command stands in its docstring alone.
"""

import os
import posixpath
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from docs.writers import pieces
from docs.writers.command_pages import commands_page
from docs.writers.model_pages import models_page, sources_section
from docs.writers.reward_pages import rewards_page

ROOT = Path(__file__).parents[2]
HOUSE = {
    "house/contributing.md": "CONTRIBUTING.md",
    "house/changes.md": "CHANGELOG.md",
    "house/alignment.md": "alignment/README.md",
    "house/data_builders.md": "data_builders/README.md",
    "house/rewards.md": "rewards/README.md",
    "house/recipes.md": "recipes/README.md",
    "house/rule_sets.md": "rewards/rule_sets/README.md",
    "house/gpu.md": "tests/gpu/README.md",
}
"""Page -> file of the repository that is shown as it is."""
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)\s#]+)(#[^)\s]*)?\)")


def recipe_page() -> str:
    """What a recipe, a chain and a loop may say."""
    from alignment.config.chain import Chain
    from alignment.config.recipe import Recipe
    from alignment.loop.loop_file import Loop

    intro = """A recipe is one YAML file for one run; a chain names several, each starting from what one before it
made; a loop adds the data set, what is compared and what is released. They are read strictly: an unknown key is an
error with the nearest name. `clinalign check FILE` names every fault at once. `trainer` is TRL's own vocabulary, handed
on verbatim to its config of the method."""
    return models_page("Recipes, chains and loops", intro, [Recipe, Chain, Loop])


def build_page() -> str:
    """What a build spec may say, and what each source takes."""
    from data_builders.build.build_spec import BuildSpec
    from data_builders.sources.source import sources

    intro = "`clinalign build SPEC.yaml` reads one YAML file that says what to build, before anything is drawn."
    return models_page("Build specs", intro, [BuildSpec]) + "\n" + sources_section(sources()) + "\n"


def rules_page() -> str:
    """What a rule-set file may say."""
    from rewards.rules.rule_set import RuleSet, shipped

    intro = f"""One YAML file for one clinical task. `clinalign check-rules FILE` names every fault at once, each with
its line and cure. How one is written stands in [How do I write a rule set?](../house/rule_sets.md). Shipped:
{", ".join(f"`{name}`" for name in shipped())}."""
    return models_page("Rule sets", intro, [RuleSet])


def compatibility_page() -> str:
    """What works with what."""
    from alignment.checks.compatibility import table

    intro = """`clinalign check --compatibility` prints this table; a recipe that asks for what is refused is refused
before a model is loaded. What "works" names the test that shows it."""
    return f"# What works with what\n\n{intro}\n\n{table()}\n"


def boxes_page() -> str:
    """What scripted answers earn under each box reward, worked out anew."""
    from rewards.attacks.box_comparison import comparison

    found = comparison()
    names = [*next(iter(found.values()))]
    rows = [
        [case, *("-" if scores[n] is None else f"{scores[n]:.3f}" for n in names)] for case, scores in found.items()
    ]
    intro = """`clinalign audit --boxes`: one lesion of a fifth of the width (or two, or none) in an image of 1000 x
1000. A reward that pays a whole image, spam or a touching box teaches it."""
    return f"# Box rewards under scripted answers\n\n{intro}\n\n{pieces.table(['answer', *names], rows)}\n"


def command_page() -> str:
    """Every command."""
    return commands_page(import_module("alignment.cli.app").app)


REFERENCE: dict[str, Callable[[], str]] = {
    "reference/commands.md": command_page,
    "reference/recipe.md": recipe_page,
    "reference/build.md": build_page,
    "reference/rewards.md": rewards_page,
    "reference/rules.md": rules_page,
    "reference/boxes.md": boxes_page,
    "reference/compatibility.md": compatibility_page,
}


def house_page(page: str) -> str:
    """A file of the repository as a page: links to files that are pages lead there, others become their text."""
    file = HOUSE[page]
    return LINK.sub(lambda link: _relinked(link, page, file), (ROOT / file).read_text(encoding="utf-8"))


def _relinked(link: re.Match[str], page: str, file: str) -> str:
    target = posixpath.normpath(posixpath.join(posixpath.dirname(file), link[3]))
    found = next((shown for shown, source in HOUSE.items() if source == target), None)
    if target.startswith("docs/") and target.endswith(".md"):
        found = target.removeprefix("docs/")
    if found is None:
        return link[2]
    return f"[{link[2]}]({os.path.relpath(found, posixpath.dirname(page))}{link[4] or ''})"


def made_pages() -> dict[str, str]:
    """Every page that is made, by its path in the site's folder."""
    return {page: make() for page, make in REFERENCE.items()} | {page: house_page(page) for page in HOUSE}
