"""The command line: one command a step of the loop, and filters for any shell.

Each command does one step, says where its output went, and ends with one clear sentence and exit code 2 on bad input.
"""

import os
import shlex
import sys

import typer
from rich.markup import escape

from alignment.cli.cluster import launch
from alignment.cli.data import audit_splits_command, build, export, inspect
from alignment.cli.evaluation import counterparts, evaluate_command, release, verify, winrate
from alignment.cli.faults import Commands, console
from alignment.cli.recipes import recipes
from alignment.cli.reward_models import eval_reward_model
from alignment.cli.rewards import audit, check_rules, eval_reader_command, list_rewards, new_rules, read, score
from alignment.cli.runs import bench, cache, check, demo, run, train
from alignment.cli.soak import ledger, soak
from alignment.distributed.engine import end_with_the_launcher, share_cores
from alignment.distributed.processes import is_first_of_node, is_main_process, leave_process_group
from data_builders.interruptions import Stopped, handled_by, stop

app = typer.Typer(
    cls=Commands,
    help="Align medical vision-language models by preferences and verifiable rewards.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.command()(recipes)
app.command()(cache)
app.command()(build)
app.command()(export)
app.command(context_settings={"ignore_unknown_options": True})(launch)
app.command()(check)
app.command()(train)
app.command("eval")(evaluate_command)
app.command()(release)
app.command()(verify)
app.command()(run)
app.command()(demo)
app.command()(counterparts)
app.command()(winrate)
app.command()(bench)
app.command()(inspect)
app.command("rewards")(list_rewards)
app.command()(check_rules)
app.command()(new_rules)
app.command()(audit)
app.command()(score)
app.command()(read)
app.command("eval-reader")(eval_reader_command)
app.command()(soak)
app.command()(ledger)
app.command("eval-reward-model")(eval_reward_model)
app.command("audit-splits")(audit_splits_command)


def main() -> None:
    """Runs a command; a user's mistake is one sentence for each fault and exit code 2, never a traceback."""
    share_cores()
    if not is_main_process():
        os.environ.setdefault("TQDM_DISABLE", "1")  # no bars of libraries beside those of rank 0
    end_with_the_launcher()
    if "--json" in sys.argv:  # libraries that log to standard output must not spoil the one JSON object on it
        sys.stdout = sys.stderr
    with handled_by(stop):
        try:
            app()
        except Stopped as stopped:
            _end(stopped)


def _end(stopped: Stopped) -> None:
    """Says once on every node what stands and which command goes on; ends with 128 and the signal's number."""
    if is_first_of_node():
        command = shlex.join(["clinalign", *(word for word in sys.argv[1:] if word != "--fresh")])
        again = "the same launch" if "RANK" in os.environ else command
        sentence = f"stopped by {stopped.name}. {stopped.stands} Go on with: {again}".replace(".  ", ". ")
        console.print(escape(sentence), highlight=False, soft_wrap=True)
    leave_process_group(stopped.exit_code)
    sys.exit(stopped.exit_code)


if __name__ == "__main__":
    main()
