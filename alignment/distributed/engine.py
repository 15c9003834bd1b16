"""DeepSpeed on whatever hardware there is.

accelerate ignores DeepSpeed in silence when ``use_cpu`` is set, and believes in one process when the state is not
prepared before the first ``TrainingArguments``; both are settled here. Left out: launching (see ``launch.py``).
"""

import contextlib
import ctypes
import gc
import inspect
import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

from rewards.config.shipped import here_or_shipped

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
    """The trainer section, made ready for DeepSpeed where it names a ``deepspeed`` file, which may be a shipped one."""
    file = trainer.get("deepspeed")
    if not file:
        return _on_several_cpus(trainer)
    import torch
    from accelerate import PartialState

    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    if torch.cuda.is_available():
        PartialState()
    else:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        _without_shared_memory()
        PartialState(backend="gloo")
    named = str(here_or_shipped(Path(file))) if isinstance(file, str) else file
    return {**trainer, "deepspeed": named, "accelerator_config": {"use_configured_state": True}}


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
