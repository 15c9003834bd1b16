"""DeepSpeed on whatever hardware there is.

accelerate ignores DeepSpeed in silence when ``use_cpu`` is set, and believes in one process when the state is not
prepared before the first ``TrainingArguments``; both are settled here. Left out: launching (see ``launch.py``).
"""

import atexit
import contextlib
import ctypes
import gc
import inspect
import os
import signal
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from rewards.config.input_error import InputError

PR_SET_PDEATHSIG = 1
"""Linux' name for: which signal this process gets when its parent dies (prctl(2))."""


def share_cores() -> None:
    """Lets waiting OpenMP threads sleep and texts be tokenized by one, unless the environment says otherwise.

    Called before torch is loaded. By default OpenMP's threads spin, so that two busy processes on the same cores slow
    each other down ten times and more.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def end_with_the_launcher() -> None:
    """Lets this process be asked to end (SIGTERM) when the launcher that started it is killed, and not train on alone.

    Left out: systems other than Linux.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def prepare_deepspeed(trainer: dict[str, Any]) -> dict[str, Any]:
    """The trainer section, made ready for DeepSpeed where it names a ``deepspeed`` file.

    Raises: InputError if ``use_cpu`` is set beside it: accelerate would then train without DeepSpeed and not say so.
    """
    if not trainer.get("deepspeed"):
        return _on_several_cpus(trainer)
    if trainer.get("use_cpu"):
        raise InputError(
            "trainer.use_cpu: leave it out beside trainer.deepspeed; with it DeepSpeed is silently not used."
        )
    import torch
    from accelerate import PartialState

    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    if torch.cuda.is_available():
        PartialState()
    else:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        _without_shared_memory()
        PartialState(backend="gloo")
    return {**trainer, "accelerator_config": {"use_configured_state": True}}


def _without_shared_memory() -> None:
    """DeepSpeed on the CPU does without an operator that it would compile for minutes, and that training never calls.

    In it a process waits for ever for one that has died; gloo says so.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _on_several_cpus(trainer: dict[str, Any]) -> dict[str, Any]:
    """The section for several processes without a GPU: unsaid, accelerate believes in one, and each trains alone."""
    import torch

    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or torch.cuda.is_available():
        return trainer
    return {"use_cpu": True, "ddp_backend": "gloo", **trainer}


def wait_for(file: Path, *, limit_s: float = 600) -> None:
    """Returns once another process of the run has made ``file``.

    Raises: InputError if it is not there in time, or another process has found a fault, or gives no more signs of life.
    """
    from alignment.distributed.ranks import raise_fault_of_another

    last = time.monotonic() + limit_s
    while not file.is_file():
        raise_fault_of_another()
        if time.monotonic() > last:
            raise InputError(f"{file}: not there after {limit_s:g} s. Rank 0 makes it, on a disk that all ranks share.")
        time.sleep(0.05)


@contextlib.contextmanager
def loaded_objects_left_alone() -> Generator[None]:
    """While it lasts, Python's garbage collector passes over what was loaded before.

    600,000 objects take it a quarter of a second a round, mostly within the rewards, which make most of a step's.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def let_go(trainer: Any) -> None:
    """Ends the engine of a run that has done its work: what comes next finds the libraries as a new process does.

    accelerate takes one DeepSpeed plugin a process, and transformers divides every model that it loads while a config
    of ZeRO-3 is there. The process group stays: DeepSpeed and torch take up the one that they find.
    """
    from accelerate.state import AcceleratorState
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    engines: list[Any] = [trainer.model_wrapped, getattr(trainer, "ref_model", None)]
    for engine in engines:
        if hasattr(engine, "destroy"):  # DeepSpeed's, which it keeps in tables of its own until then
            engine.destroy()
    trainer.accelerator.free_memory()
    _forget_modules()
    # accelerate has no public way (1.15); transformers does the same before each config without DeepSpeed
    AcceleratorState._reset_state(reset_partial_state=True)  # pyright: ignore[reportPrivateUsage]
    unset_hf_deepspeed_config()
    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)  # set by us and by accelerate


def _forget_modules() -> None:
    """Empties the tables in which DeepSpeed (0.19) keeps the modules of every engine of ZeRO-3 for good."""
    if "deepspeed" not in sys.modules:
        return
    from deepspeed.runtime.zero import parameter_offload
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator

    parameter_offload.FWD_MODULE_STACK.clear()
    for method in filter(inspect.isfunction, vars(PartitionedParameterCoordinator).values()):
        for inner in inspect.getclosurevars(method).nonlocals.values():  # a cache, wrapped by another decorator
            if hasattr(inner, "cache_clear"):
                inner.cache_clear()


def free_memory() -> None:
    """Collects what nobody holds any more, and gives the accelerator's memory back."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def leave_process_group(code: int = 0, *, always: bool = False) -> None:
    """Ends a process of several that has done its work, with this exit code; does nothing where there is no group.

    ``always``: also a process that is not in a group yet.

    What is registered with ``atexit`` still runs, but Python is not taken down: a thread of gloo that lets go of its
    last tensor meanwhile would abort the process ("terminate called without an active exception"), also where the
    group was destroyed before (3 of 100 pairs of processes; 0 of 200 this way).
    """
    if "torch" not in sys.modules:  # what has not loaded it has no group
        return
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
    elif not always:
        return
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):  # --json writes to the real one
        if stream is not None:
            stream.flush()
    os._exit(code)


def is_main_process() -> bool:
    """True on rank 0, and where there is only one process."""
    return not is_launched() or int(os.environ["RANK"]) == 0


def is_first_of_node() -> bool:
    """True in the first process of each node, and where there is only one process."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def is_launched() -> bool:
    """True in a process of torchrun or accelerate. Clusters set RANK and WORLD_SIZE for every program of a pod."""
    return {"RANK", "LOCAL_RANK", "MASTER_ADDR"} <= os.environ.keys()
