"""A checkpoint of other ranks gone on from (``clinalign train --inexact``): what is kept, what is not, and both told.

Kept: weights, the optimizer's moments, schedule, step, place in the order of rows, the loss since the last line of the
log. DeepSpeed's files, which are one a rank, are put together as its universal checkpoint beside them, which goes once
every rank has read it. Left out: optimizers without Adam's two moments, which that form does not hold.
"""

import argparse
import contextlib
import io
import json
import logging
import re
import shutil
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignment.distributed.ranks import agreed, of_rank_0
from alignment.resuming.checkpoints import step_of, write_whole
from alignment.resuming.kept_state import read_state
from alignment.resuming.ledger import Stretch
from alignment.resuming.plain_pickles import PlainPickles
from rewards.config.input_error import InputError
from rewards.config.json_lines import read_json

FOLDER, POINTER = "universal", "latest_universal"
"""In a checkpoint: the universal one, and the file by which DeepSpeed finds it."""
SLICES = "param_slice_mappings"
"""In DeepSpeed's optimizer states (0.19): where each parameter of a group lies in it, by its name."""
RANDOM = "the random states of each process (drawn anew from seed, step and rank)"
METRICS = "metrics since the last line of the log (of rank 0 only, of batches of another size; the loss is kept)"
ANSWERS = "the answers of the generation batch that it lies in (its rows are answered anew, some of them twice)"
INEXACT = "inexact_resumes"
"""In a run's provenance."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InexactResume:
    """A place at which a run went on under another number of ranks, as its provenance has it."""

    checkpoint: str
    step: int
    ranks_before: int
    ranks: int
    not_kept: list[str]

    def __str__(self) -> str:
        return (
            f"goes on inexactly: {self.checkpoint} was written by {self.ranks_before} processes, and this run has "
            f"{self.ranks}. Weights, optimizer, schedule and order of rows are kept. "
            f"Not kept: {'; '.join(self.not_kept)}."
        )


def inexact_resume(trainer: Any, checkpoint: Path, before: int) -> InexactResume:
    """What it costs this trainer to go on from a checkpoint of ``before`` ranks."""
    step, arguments = step_of(checkpoint), trainer.args
    lost = [RANDOM, METRICS, *_filled_up(trainer, checkpoint, before)]
    if hasattr(arguments, "steps_per_generation"):
        turns = arguments.steps_per_generation * trainer.num_iterations
        lost += [ANSWERS] if step * arguments.gradient_accumulation_steps % turns else []
    return InexactResume(checkpoint.name, step, before, arguments.world_size, lost)


def _filled_up(trainer: Any, checkpoint: Path, before: int) -> list[str]:
    """Of an epoch of whole rows: how many stand twice in it so that the last batch is full on every rank."""
    if trainer.order or trainer.batch_tokens or hasattr(trainer.args, "steps_per_generation"):
        return []
    sizes = read_json(checkpoint / "trainer_state.json", "")["train_batch_size"] * before, trainer.args.train_batch_size
    was, now = (-len(trainer.train_dataset) % at_once for at_once in (sizes[0], sizes[1] * trainer.args.world_size))
    return [f"rows seen twice to fill up an epoch's last batch ({was} before, {now} now)"] if was != now else []


def note_resumes(folder: Path, before: Sequence[Stretch], latest: InexactResume | None) -> None:
    """Writes into a run's provenance at which places it went on inexactly, those that were undone since left out.

    ``before``: the plan's of the ledger. Called by rank 0.
    """
    file = folder / "provenance.json"
    facts = read_json(file, "") if file.is_file() else {}
    resumes = [resume for resume in facts.get(INEXACT, []) if resume["step"] in {part.step for part in before}]
    resumes = [resume for resume in resumes if latest is None or resume["step"] < latest.step]
    resumes += [asdict(latest)] if latest else []
    if resumes != facts.get(INEXACT, []):
        write_whole(file, json.dumps(facts | {INEXACT: resumes}, indent=2))


def prepare_universal(trainer: Any, checkpoint: Path) -> None:
    """Makes DeepSpeed load this checkpoint of other ranks; nothing to do without DeepSpeed. Called by all ranks.

    Raises: InputError where it cannot be put together, or not every rank sees what rank 0 has put together.
    """
    if not trainer.is_deepspeed_enabled:
        return
    of_rank_0(lambda: put_together(checkpoint))
    agreed(lambda: _check_seen(checkpoint))
    settings = trainer.accelerator.state.deepspeed_plugin.deepspeed_config
    settings["checkpoint"] = {**settings.get("checkpoint", {}), "load_universal": True}


def put_together(checkpoint: Path) -> None:
    """Makes the universal checkpoint of DeepSpeed's shards, in their folder.

    Raises: InputError for pickles of another's, and for an optimizer that is not Adam.
    """
    from deepspeed.checkpoint import ds_to_universal

    _forget(checkpoint)
    logger.warning("%s: put together as a universal checkpoint.", checkpoint)
    settings = argparse.Namespace(
        input_folder=str(_shards(checkpoint)),
        output_folder=str(checkpoint / FOLDER),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    (checkpoint / FOLDER).mkdir()
    unheard = io.StringIO()
    quiet = contextlib.redirect_stdout(unheard), contextlib.redirect_stderr(unheard)
    try:
        with PlainPickles(checkpoint), quiet[0], quiet[1]:
            _check_names(checkpoint)
            ds_to_universal.main(settings)
    except KeyError as missing:  # what another optimizer than Adam keeps has other names, or none
        _forget(checkpoint)
        raise InputError(
            f"{checkpoint}: DeepSpeed's universal checkpoint holds the moments of Adam only, and its optimizer "
            "(trainer.optim) keeps others. Start it with the number of processes that wrote it, or add --fresh."
        ) from missing


def _check_names(checkpoint: Path) -> None:
    """Raises: InputError for a parameter's name that is none; DeepSpeed makes folders of them."""
    for file in sorted(_shards(checkpoint).glob("*.pt")):
        content = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
        groups = [*content.get("param_shapes", ()), *content.get("optimizer_state_dict", {}).get(SLICES, ())]
        for name in (name for group in groups for name in group):
            if not re.fullmatch(r"[\w.]+", name) or ".." in name:
                _forget(checkpoint)
                raise InputError(
                    f"{file}: names a parameter {name!r}, which is no name of one, so this run did not write it. "
                    f"Remove {checkpoint.name} to go on from the one before, or add --fresh to begin anew."
                )


def _shards(checkpoint: Path) -> Path:
    """The folder with DeepSpeed's files, which ``latest`` names."""
    name = (checkpoint / "latest").read_text(encoding="utf-8").strip()
    return checkpoint / Path(name).name


def _check_seen(checkpoint: Path) -> None:
    if not (checkpoint / POINTER).is_file():
        raise InputError(
            f"{checkpoint}: this process does not see what rank 0 has put together in it. To go on under another "
            "number of processes, put `output` on a disk that all nodes share."
        )


def finish_universal(trainer: Any, checkpoint: Path) -> None:
    """Once every rank has loaded: undoes what ``prepare_universal`` did. Called by all ranks."""
    if not trainer.is_deepspeed_enabled:
        return
    trainer.accelerator.state.deepspeed_plugin.deepspeed_config["checkpoint"]["load_universal"] = False
    engine = trainer.model_wrapped
    # DeepSpeed 0.19 takes this from its config when it is made and has no setter; left True, it would write its own
    # next checkpoint as one to be converted. An argument of `load_checkpoint` would let this go.
    engine._config.load_universal_checkpoint = False
    if engine.zero_optimization_partition_weights():
        _set_right(engine.optimizer.optimizer, trainer.weight_decays, trainer.lr_scheduler.get_last_lr())
    trainer.accelerator.wait_for_everyone()
    if trainer.args.process_index == 0:
        _forget(checkpoint)


def _set_right(optimizer: Any, weight_decays: Sequence[float], rates: Sequence[float]) -> None:
    """What DeepSpeed 0.19 loads wrong under ZeRO-3: every group has the settings of the first, all one count of steps.

    ``rates``: of the groups, by the schedule.
    """
    for state in optimizer.state.values():  # the count is one tensor, which each group would count up in its turn
        state["step"] = deepcopy(state["step"])
    for group, decay, rate in zip(optimizer.param_groups, weight_decays, rates, strict=True):
        group |= {"weight_decay": decay, "lr": rate}


def _forget(checkpoint: Path) -> None:
    (checkpoint / POINTER).unlink(missing_ok=True)
    shutil.rmtree(checkpoint / FOLDER, ignore_errors=True)


def joined_state(checkpoint: Path, before: int, *, turns: int, device: Any) -> dict[str, Any]:
    """What the ``before`` ranks kept, for each rank now: rank 0's, the mean of their losses, no generation batch.

    ``turns``: how many micro-batches a step takes now.
    """
    files = [checkpoint / f"state_of_rank{rank}.safetensors" for rank in range(before)]
    state = read_state(files[0], device)
    losses = [read_state(file, device)["loss"] for file in files]  # logged is their mean over the ranks
    state["loss"] = torch.stack(losses).mean(dim=0)
    if "buffer" in state:
        state |= {"buffer": None, "step": step_of(checkpoint) * turns}
    return state


def draw_anew(seed: int, step: int, rank: int) -> None:
    """Random states that no rank had before, the same whenever a run goes on from this step on this rank."""
    from transformers import set_seed

    set_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0]))
