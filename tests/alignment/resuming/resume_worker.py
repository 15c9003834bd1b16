"""Trains a recipe; given a step, is killed by SIGKILL in the middle of the next one (on one rank, if given one).

After the last step: between the last checkpoint and the saved model.
"""

import logging
import os
import signal
import sys
import traceback
from pathlib import Path

import torch
from transformers import TrainerCallback

from alignment.checks.read_recipe import read_recipe
from alignment.distributed.processes import leave_process_group
from alignment.distributed.ranks import end_with_the_others
from alignment.resuming import training as resuming
from alignment.training.run import run
from data_builders.interruptions import Stopped, handled_by, stop
from rewards.config.input_error import InputError


class Killed(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_pre_optimizer_step(self, args, state, control, **_):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.Signals[os.environ.get("KILL_WITH", "SIGKILL")])

    on_train_end = on_pre_optimizer_step


def train(recipe, step, rank="all"):
    """Trains; a step of 0 or more: until it is killed after that step."""
    if step >= 0 and rank in ("all", os.environ.get("RANK", "0")):
        noted = resuming.note_rows

        def with_killer(trainer, *more):
            noted(trainer, *more)
            trainer.add_callback(Killed(step))

        resuming.note_rows = with_killer
    run(read_recipe(recipe), inexact="INEXACT" in os.environ)
    end_with_the_others(0)  # rank 0 may hold what they meet at
    leave_process_group()


def child(recipe, step, log, env):
    """A process's whole work, under this environment; what it says goes to ``log``."""
    os.environ.update(env)
    with log.open("w") as opened:
        sys.stdout = sys.stderr = opened
        logging.basicConfig(stream=opened, force=True)
        torch.set_num_threads(1)
        try:
            train(recipe, step, rank=env.get("KILL_RANK", "1" if "RANK" in env else "all"))
        except InputError as fault:
            opened.write(str(fault))
            sys.exit(1)
        except Stopped as stopped:
            opened.write(stopped.stands)
            opened.flush()
            leave_process_group(stopped.exit_code)
            sys.exit(stopped.exit_code)
        except Exception:
            logging.exception("not an error of ours")
            sys.exit(1)


def main():
    """As the command does: the launcher's SIGTERM, sent as soon as another rank dies, cuts off nothing that is said."""
    with handled_by(stop):
        try:
            train(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
        except (InputError, Stopped) as end:
            with handled_by(lambda *_: None):
                traceback.print_exc()
                sys.exit(f"{end.stands}" if isinstance(end, Stopped) else 1)


if __name__ == "__main__":
    main()
