"""The line that starts a recipe, or another command, on many processes: torchrun, accelerate or sbatch.

torchrun is ours (``torchrun.py``), which hands a cluster's warning on to the ranks.

Every node runs the same line; torchrun's rendezvous numbers them. What is trained, DeepSpeed among it, is the recipe's
alone. The jobs of a loop: ``loop/jobs.py``. Left out: copying files to nodes, and choosing a partition or an account
(SLURM reads ``SBATCH_PARTITION``, ``SBATCH_ACCOUNT`` and the like).
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from data_builders.interruptions import handled_by
from rewards.config.input_error import InputError

PORT = 29500
WARNED_S = 300
"""How long before the end of its time Slurm warns a job (all steps, not the batch script); ranks write a checkpoint."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
CPUS_PER_GPU = 8
"""Unsaid, Slurm gives a task one CPU, which all processes of a node would share with their loaders of pictures."""
MEETING = """\
HEAD="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)"
PORT="$((20000 + SLURM_JOB_ID % 20000))"
"""
"""Where the nodes of a job meet, in its batch script."""
TIME = re.compile(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}")
MEMORY = re.compile(r"\d+[KMGT]?")
CPU = {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Machines:
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
    """A recipe or chain with its overrides. ``fresh``: begun anew where there is a run."""

    recipe: Path
    overrides: list[str] = field(default_factory=list[str])
    fresh: bool = False

    @property
    def name(self) -> str:
        """What a job is called by."""
        return self.recipe.stem

    @property
    def arguments(self) -> list[str]:
        """What every process is asked to do."""
        words = ["train", str(self.recipe), *self.overrides, *(["--fresh"] if self.fresh else [])]
        return ["-m", "alignment", *words]


@dataclass(frozen=True)
class Command:
    """Another command than ``train``, in its own words."""

    name: str
    words: list[str]
    fresh: bool = False

    @property
    def arguments(self) -> list[str]:
        """What every process is asked to do."""
        return ["-m", "alignment", *self.words, *(["--fresh"] if self.fresh else [])]


@dataclass(frozen=True)
class JobRequest:
    """What a job asks Slurm for beside nodes and GPUs, in Slurm's own words. None: what the cluster gives unasked.

    ``cpus``: of the one task of a node; ``CPUS_PER_GPU`` for each GPU by default. Raises: InputError for others.
    """

    time: str | None = None
    mem: str | None = None
    cpus: int | None = None

    def __post_init__(self) -> None:
        if self.time is not None and not TIME.fullmatch(self.time):
            raise InputError(f"--time {self.time}: expected such as 90 (minutes), 12:00:00 or 1-12:00:00.")
        if self.mem is not None and not MEMORY.fullmatch(self.mem):
            raise InputError(f"--mem {self.mem}: expected a number with K, M, G or T, such as 200G (of each node).")


CLUSTER_DEFAULTS = JobRequest()


def environment(machines: Machines) -> dict[str, str]:
    """Nothing is fetched or reported, unless the user wants it; without GPUs DeepSpeed and torch are told so."""
    return {name: os.environ.get(name, value) for name, value in OFFLINE.items()} | (CPU if machines.cpu else {})


def line(run: Run | Command, machines: Machines) -> list[str]:
    """The command for one node.

    Raises: InputError for accelerate on the CPU (it would leave DeepSpeed out and not say so), or nodes without a head.
    """
    return _accelerate(run, machines) if machines.by == "accelerate" else _torchrun(run, machines)


def _torchrun(run: Run | Command, machines: Machines) -> list[str]:
    start = [sys.executable, "-m", "alignment.distributed.torchrun"]
    if machines.nodes == 1:
        meet = ["--standalone"]
    else:
        host, port = machines.endpoint
        meet = ["--nnodes", str(machines.nodes), "--rdzv_id", run.name, "--rdzv_backend", "c10d"]
        meet += ["--rdzv_endpoint", f"{host}:{port}"]
    return [*start, *meet, "--nproc_per_node", str(machines.gpus), *run.arguments]


def _accelerate(run: Run | Command, machines: Machines) -> list[str]:
    if machines.cpu:
        raise InputError("launch: accelerate on the CPU trains without DeepSpeed and does not say so; use torchrun.")
    host, port = machines.endpoint if machines.nodes > 1 else ("127.0.0.1", str(PORT))
    if machines.nodes > 1 and machines.node is None:
        raise InputError("launch: accelerate needs this node's number, from 0: --node K. torchrun does not.")
    several = ["--multi_gpu"] if machines.nodes * machines.gpus > 1 else []
    return [
        *(sys.executable, "-m", "accelerate.commands.launch", *several, "--mixed_precision", "no"),
        *("--dynamo_backend", "no", "--num_machines", str(machines.nodes)),
        *("--num_processes", str(machines.nodes * machines.gpus), "--machine_rank", str(machines.node or 0)),
        *("--main_process_ip", host, "--main_process_port", port, *run.arguments),
    ]


def sbatch_script(run: Run | Command, machines: Machines, request: JobRequest = CLUSTER_DEFAULTS) -> str:
    """A batch script: one task a node, in which torchrun starts a process for each GPU."""
    where = Machines(
        max(machines.nodes, 2), machines.gpus, head="HEAD"
    )  # a rendezvous even of one node: jobs may share a host
    command = shlex.join(_torchrun(replace(run, fresh=False), where)).replace(f"HEAD:{PORT}", '"$HEAD:$PORT"')
    command = command.replace(f"--nnodes {where.nodes}", f"--nnodes {machines.nodes}")
    command = command.replace(f"--rdzv_id {shlex.quote(run.name)}", '--rdzv_id "$SLURM_JOB_ID"')
    return _head(run.name, machines, request, gpus=machines.gpus) + MEETING + _started(command, fresh=run.fresh)


def single_script(command: Command, request: JobRequest = CLUSTER_DEFAULTS) -> str:
    """A batch script of a command that is the work of one process, without a GPU."""
    words = shlex.join([sys.executable, *replace(command, fresh=False).arguments])
    return _head(command.name, Machines(), request, gpus=0) + _started(words, fresh=command.fresh)


def _head(name: str, machines: Machines, request: JobRequest, *, gpus: int) -> str:
    """The beginning of a batch script: what is asked of Slurm, and the environment; a user's own settings come first.

    A job that Slurm starts again, as when a node has failed, goes on in the same log. ``srun`` is told of the CPUs,
    which it does not take over from the job (Slurm 22.05 and later).
    """
    cpus = request.cpus or CPUS_PER_GPU * max(gpus, 1)
    lines = [
        f"--job-name=clinalign-{re.sub(r'[^A-Za-z0-9_.-]', '-', name)}",
        f"--nodes={machines.nodes}",
        "--ntasks-per-node=1",
        *([f"--gpus-per-node={gpus}"] if gpus else []),
        f"--cpus-per-task={cpus}",
        *([f"--time={request.time}"] if request.time else []),
        *([f"--mem={request.mem}"] if request.mem else []),
        "--output=clinalign-%j.log",
        "--open-mode=append",
        "--requeue",
        f"--signal=USR1@{WARNED_S}",
    ]
    variables = {name: shlex.quote(value) for name, value in environment(machines).items()}
    exports = [f"export {name}=${{{name}-{value}}}" for name, value in variables.items()]
    exports.append(f'export SRUN_CPUS_PER_TASK="${{SLURM_CPUS_PER_TASK:-{cpus}}}"')
    return "\n".join(["#!/usr/bin/env bash", *(f"#SBATCH {each}" for each in lines), "set -euo pipefail", *exports, ""])


def _started(command: str, *, fresh: bool) -> str:
    """The last lines of a batch script. A job that is started again goes on where it was: it is not begun anew."""
    if not fresh:
        return f"srun {command}\n"
    return f"""\
FRESH=--fresh
if [ "${{SLURM_RESTART_COUNT:-0}}" -gt 0 ]; then FRESH=; fi
srun {command} $FRESH
"""


def shell_line(run: Run | Command, machines: Machines) -> str:
    """The command with its environment, to be pasted into a shell."""
    return " ".join(
        [*(f"{k}={shlex.quote(v)}" for k, v in environment(machines).items()), shlex.join(line(run, machines))]
    )


def launch(run: Run | Command, machines: Machines) -> int:
    """Runs the line on this node and returns its exit code.

    Raises: InputError if this node has fewer GPUs than asked for.
    """
    import torch

    command = line(run, machines)
    if not machines.cpu and torch.cuda.device_count() < machines.gpus:
        raise InputError(
            f"launch: this node has {torch.cuda.device_count()} GPUs, not {machines.gpus}. Lower --gpus, add --cpu, or "
            "look at the line only: --dry-run."
        )
    process = subprocess.Popen(command, env=dict(os.environ) | environment(machines))
    warned = signal.SIGUSR1 if machines.by == "torchrun" else signal.SIGTERM  # of which accelerate would die
    with handled_by(lambda number, _: _pass_on(process, warned if number == signal.SIGUSR1 else number)):
        code = process.wait()
    return code if code >= 0 else 128 - code


def _pass_on(process: "subprocess.Popen[bytes]", number: int) -> None:
    """To the launcher, whose ranks write a checkpoint; a terminal's Ctrl-C it gets by itself."""
    if number != signal.SIGINT:
        process.send_signal(number)


def submit(run: Run | Command, machines: Machines, script: Path, request: JobRequest = CLUSTER_DEFAULTS) -> str:
    """Hands the batch script to SLURM; it stays where it is written. Returns what sbatch says.

    Raises: InputError where there is no sbatch, or it refuses.
    """
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(sbatch_script(run, machines, request), encoding="utf-8")
    try:
        done = subprocess.run(["sbatch", str(script)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise InputError(
            f"launch: no sbatch on this machine. The script is in {script}; submit it where there is one, from "
            f"{Path.cwd()}."
        ) from None
    if done.returncode:
        raise InputError(f"launch: sbatch refused {script}: {done.stderr.strip()}")
    return done.stdout.strip()
