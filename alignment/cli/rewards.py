"""Commands on rewards and rule sets: list, check, audit, score, read. All but ``audit`` load no torch."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alignment.cli.output import JsonFlag, Overrides, say
from rewards.config.input_error import InputError

if TYPE_CHECKING:
    from rewards.loading import BatchReward, Reward


Rules = Annotated[
    list[Path] | None, typer.Option("--rules", help="a rule set of your own that rows name by its id; repeatable")
]


def make_known(rules: list[Path] | None) -> None:
    """Makes rule sets known by their files. Raises: InputError as ``register``."""
    from rewards.rules.rule_set import register

    for file in rules or ():
        register(file)


def list_rewards(as_json: JsonFlag = False) -> None:
    """List the rewards: the columns each reads, the tasks it pays for, its bounds, and what it says."""
    from rewards.loading import available, available_batched, load_reward

    listed = [load_reward(name) for name in (*available(), *available_batched())]
    say({r.name: _described(r) for r in listed}, as_json)


def _described(reward: "Reward | BatchReward") -> dict[str, object]:
    return {
        "columns": list(reward.columns),
        "optional": list(reward.optional),
        "tasks": "all" if reward.tasks is None else list(reward.tasks),
        "bounds": list(reward.bounds),
        "says": reward.summary,
    }


def check_rules(
    rules: Annotated[str, typer.Argument(help="a rule set's YAML file, or the name of a shipped one")],
    data: Annotated[
        Path | None,
        typer.Option(help="records to check: CSV or JSON Lines with an `id` and label columns, as `labelled` reads"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check a rule set: every fault at once, each with its line and cure; with --data, labels outside the valid set.

    Example: clinalign check-rules rewards/rule_sets/bone_marrow.yaml
    """
    from alignment.cli.filters import check_rule_set

    say(check_rule_set(rules, data), as_json)


def new_rules(
    findings: Annotated[
        Path, typer.Argument(help="CSV with a column `finding`; `words`, `severity`, `sides`, `sizes` where known")
    ],
    out: Annotated[Path, typer.Argument(help="the YAML file to write; its name is the rule set's")],
    modality: Annotated[str, typer.Option(help="what the images are, such as 'chest radiograph'")] = "medical image",
    as_json: JsonFlag = False,
) -> None:
    """Write a first rule set from a table of findings. It can be built with at once, and says what to fill next.

    Example: clinalign new-rules findings.csv our_hospital.yaml --modality 'chest radiograph'
    """
    from data_builders.output_folders import check_file
    from data_builders.rendering.first_rules import first_rules
    from rewards.rules.rule_set import register

    check_file(out, kinds=(".yaml", ".yml"))
    if out.exists():
        raise InputError(f"{out}: is there already, and is not written over. Name another file.")
    text = first_rules(findings, name=out.stem, modality=modality)
    out.write_text(text, encoding="utf-8")
    rules = register(out)
    bare = [name for name, rule in rules.findings.items() if len(rule.phrases) == 1]
    fill = f"what its head names; have but one phrase: {', '.join(bare) or 'none'}"
    then = f"clinalign check-rules {out}; `source: {{name: table, root: FOLDER, rule_set: {out}}}` in a build's spec"
    written = {"written": str(out), "rule_set": rules.id, "findings": len(rules.findings)}
    say({**written, "fill": fill, "then": then}, as_json)


def audit(
    recipe: Annotated[Path | None, typer.Argument(help="a recipe with rewards, such as recipes/grpo/X.yaml")] = None,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option(help="how many rows of the recipe's data")] = 200,
    out: Annotated[Path | None, typer.Option(help="the HTML page; OUTPUT/audit.html by default")] = None,
    boxes: Annotated[bool, typer.Option("--boxes", help="Compare the box rewards under scripted answers.")] = False,
    rules: Rules = None,
    as_json: JsonFlag = False,
) -> None:
    """Attack a recipe's rewards on its own data: which scripted policy earns more than an honest answer?

    Ends with exit code 1 where an attack beats honesty that the header does not list (`# Beaten by: NAME, NAME`), and
    where a listed one no longer does. Of a chain or loop, every stage with rewards is tried.

    Example: clinalign audit recipes/grpo/phantom_chest.yaml, or clinalign audit --boxes
    """
    from alignment.audit.table import print_audit, print_box_comparison

    make_known(rules)
    if recipe is None and not boxes:
        raise InputError("audit: name a recipe, or give --boxes to compare the box rewards.")
    if boxes:
        print_box_comparison(as_json=as_json and recipe is None)
    if recipe is not None and print_audit(recipe, overrides or [], rows=rows, out=out, as_json=as_json):
        raise typer.Exit(1)


def score(
    reward: Annotated[str, typer.Argument(help="a reward's name, see `clinalign rewards`")],
    knobs: Annotated[list[str] | None, typer.Argument(help="knob=value")] = None,
    rules: Rules = None,
) -> None:
    """Score rows of JSON Lines from standard input (`response` and the reward's columns); adds `score` and components.

    Example: echo '{"response": "nodule [[0,0,5,5]]", "boxes": [[0,0,5,5]]}' | clinalign score box_overlap
    """
    from alignment.cli.filters import score_lines

    make_known(rules)
    for line in score_lines(reward, knobs or [], sys.stdin.buffer):
        sys.stdout.write(line + "\n")


def read(rule_set: Annotated[str, typer.Argument(help="a rule set's name or file")], rules: Rules = None) -> None:
    """Read facts from texts: JSON Lines with `text` on standard input; adds `facts`, evidence and unread sentences.

    Example: echo '{"text": "No effusion. Small nodule on the left."}' | clinalign read chest_xray
    """
    from alignment.cli.filters import read_lines

    make_known(rules)
    for line in read_lines(rule_set, sys.stdin.buffer):
        sys.stdout.write(line + "\n")


def eval_reader_command(
    source: Annotated[
        Path | None, typer.Argument(help="the archive or folder; the installed package by default")
    ] = None,
    half: Annotated[str, typer.Option(help="odd: held out; even: what the rules were tuned on")] = "odd",
    as_json: JsonFlag = False,
) -> None:
    """Read the Open-I reports and score the reading by their tags, beside a keyword matcher.

    Example: clinalign eval-reader
    """
    from alignment.cli.eval_reader import eval_reader

    result = eval_reader(source, half=half)
    findings = result.pop("findings")
    say({**result, "findings": findings} if as_json else {**result, **findings}, as_json)
