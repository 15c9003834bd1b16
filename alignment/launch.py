"""The line that starts a recipe on many processes, and nothing more: torchrun, accelerate or sbatch.

torchrun is ours (``torchrun.py``), which hands a cluster's warning on to the ranks.

Every node runs the same line; torchrun's rendezvous numbers them. What is trained, DeepSpeed among it, is the recipe's
alone. Left out: copying files to nodes, and choosing a partition (SLURM reads ``SBATCH_PARTITION`` and the like).
"""

import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from data_builders.interruptions import handled_by
from rewards.strict_yaml import InputError

PORT = 29500
WARNED_S = 300
"""How long before the end of its time Slurm warns a job (all steps, not the batch script); ranks write a checkpoint."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
CPU = {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Place:
    """Where a recipe runs: ``gpus`` processes on each of ``nodes``; ``cpu``: processes without a GPU (gloo).

    ``head``: host (and port) of the first node, needed for several nodes without SLURM; ``node``: this node's number,
    which only accelerate needs.
    """

    nodes: int = 1
    gpus: int = 1
    cpu: bool = False
    head: str | None = None
    node: int | None = None
    by: Literal["torchrun", "accelerate"] = "torchrun"

    @property
    def endpoint(self) -> tuple[str, str]:
        """Host and port of the rendezvous.

        Raises: InputError if several nodes have no meeting point.
        """
        if self.head is None:
            raise InputError(f"launch: {self.nodes} nodes meet at the first one; name it: --head HOST, or use --slurm.")
        host, _, port = self.head.partition(":")
        return host, port or str(PORT)


@dataclass(frozen=True)
class Run:
    """A recipe with its overrides."""

    recipe: Path
    overrides: list[str] = field(default_factory=list[str])

    @property
    def arguments(self) -> list[str]:
        """What every process is asked to do."""
        return ["-m", "alignment", "train", str(self.recipe), *self.overrides]


def environment(place: Place) -> dict[str, str]:
    """Nothing is fetched or reported; without GPUs DeepSpeed and torch are told so."""
    return OFFLINE | (CPU if place.cpu else {})


def line(run: Run, place: Place) -> list[str]:
    """The command for one node.

    Raises: InputError for accelerate on the CPU (it would leave DeepSpeed out and not say so), or nodes without a head.
    """
    return _accelerate(run, place) if place.by == "accelerate" else _torchrun(run, place)


def _torchrun(run: Run, place: Place) -> list[str]:
    start = [sys.executable, "-m", "alignment.torchrun"]
    if place.nodes == 1:
        meet = ["--standalone"]
    else:
        host, port = place.endpoint
        meet = ["--nnodes", str(place.nodes), "--rdzv_id", run.recipe.stem, "--rdzv_backend", "c10d"]
        meet += ["--rdzv_endpoint", f"{host}:{port}"]
    return [*start, *meet, "--nproc_per_node", str(place.gpus), *run.arguments]


def _accelerate(run: Run, place: Place) -> list[str]:
    if place.cpu:
        raise InputError("launch: accelerate on the CPU trains without DeepSpeed and does not say so; use torchrun.")
    host, port = place.endpoint if place.nodes > 1 else ("127.0.0.1", str(PORT))
    if place.nodes > 1 and place.node is None:
        raise InputError("launch: accelerate needs this node's number, from 0: --node K. torchrun does not.")
    several = ["--multi_gpu"] if place.nodes * place.gpus > 1 else []
    return [
        *(sys.executable, "-m", "accelerate.commands.launch", *several, "--mixed_precision", "no"),
        *("--dynamo_backend", "no", "--num_machines", str(place.nodes)),
        *("--num_processes", str(place.nodes * place.gpus), "--machine_rank", str(place.node or 0)),
        *("--main_process_ip", host, "--main_process_port", port, *run.arguments),
    ]


def sbatch_script(run: Run, place: Place) -> str:
    """A batch script: one task a node, in which torchrun starts a process for each GPU."""
    where = Place(max(place.nodes, 2), place.gpus, head="HEAD")  # a rendezvous even of one node: jobs may share a host
    command = shlex.join(_torchrun(run, where)).replace(f"HEAD:{PORT}", '"$HEAD:$PORT"')
    command = command.replace(f"--nnodes {where.nodes}", f"--nnodes {place.nodes}")
    command = command.replace(f"--rdzv_id {run.recipe.stem}", '--rdzv_id "$SLURM_JOB_ID"')
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in environment(place).items())
    return f"""#!/usr/bin/env bash
#SBATCH --job-name=clinalign-{run.recipe.stem}
#SBATCH --nodes={place.nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={place.gpus}
#SBATCH --output=clinalign-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=USR1@{WARNED_S}
set -euo pipefail
{exports}
HEAD="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)"
PORT="$((20000 + SLURM_JOB_ID % 20000))"
srun {command}
"""


def shell_line(run: Run, place: Place) -> str:
    """The command with its environment, to be pasted into a shell."""
    return " ".join([*(f"{k}={shlex.quote(v)}" for k, v in environment(place).items()), shlex.join(line(run, place))])


def launch(run: Run, place: Place) -> int:
    """Runs the line on this node and returns its exit code.

    Raises: InputError if this node has fewer GPUs than asked for.
    """
    import torch

    command = line(run, place)
    if not place.cpu and torch.cuda.device_count() < place.gpus:
        raise InputError(
            f"launch: this node has {torch.cuda.device_count()} GPUs, not {place.gpus}. Lower --gpus, add --cpu, or "
            "look at the line only: --dry-run."
        )
    settled = OFFLINE | dict(os.environ) | (CPU if place.cpu else {})  # what a user has said of the network stays
    process = subprocess.Popen(command, env=settled)
    warned = signal.SIGUSR1 if place.by == "torchrun" else signal.SIGTERM  # of which accelerate would die
    with handled_by(lambda number, _: _pass_on(process, warned if number == signal.SIGUSR1 else number)):
        code = process.wait()
    return code if code >= 0 else 128 - code


def _pass_on(process: "subprocess.Popen[bytes]", number: int) -> None:
    """To the launcher, whose ranks write a checkpoint; a terminal's Ctrl-C it gets by itself."""
    if number != signal.SIGINT:
        process.send_signal(number)


def submit(run: Run, place: Place, folder: Path) -> str:
    """Hands the batch script to SLURM; the script stays in the run's folder. Returns what sbatch says.

    Raises: InputError where there is no sbatch, or it refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "launch.sbatch"
    script.write_text(sbatch_script(run, place), encoding="utf-8")
    try:
        done = subprocess.run(["sbatch", str(script)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise InputError(
            f"launch: no sbatch on this machine. The script is in {script}; submit it from there."
        ) from None
    if done.returncode:
        raise InputError(f"launch: sbatch refused {script}: {done.stderr.strip()}")
    return done.stdout.strip()
