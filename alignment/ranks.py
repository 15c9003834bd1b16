"""The processes of one launch end alike: a fault that one has found is the fault of all, and is told once.

Faults are handed on by the launcher's own store, before there is a process group in which the others could wait for
ever. Left out: crashes, at which the launcher ends the other processes.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from alignment.engine import is_main_process, leave_process_group
from data_builders.locks import only_one
from rewards.strict_yaml import InputError

Found = TypeVar("Found")
Task = TypeVar("Task")
POLL_S = 0.1
LAST_WORD_S = 10.0
"""How long a process that ends by a fault waits for the others to end with it: longer ones are busy elsewhere."""
LARGEST = 4 << 20
"""Signs of one value of torch's store, which breaks off at 8 MB."""
FAULT, ENDED = "fault", "ended"
_turns = count()


def num_ranks() -> int:
    """How many processes the launch has; 1 without a launcher."""
    meet = {"RANK", "MASTER_ADDR"} <= os.environ.keys()
    return int(os.environ.get("WORLD_SIZE", "1")) if meet else 1


def agreed(check: Callable[[], Found]) -> Found:
    """What ``check`` finds in this process, once it has found no fault in any. All processes come by here.

    Raises: InputError with the fault of rank 0, else of the first that has one.
    """
    if num_ranks() == 1:
        return check()
    store, turn, rank = _store(), f"turn {next(_turns)}", int(os.environ["RANK"])
    found = fault = None
    try:
        found = check()
    except InputError as raised:
        fault = raised
        if rank:  # rank 0 reads more than the others, such as every row
            _until(lambda: store.check([f"{turn}: 0"]) or store.check([FAULT]))
        store.compare_set(FAULT, "", f"{rank}\n{fault}")
    if rank == 0:
        store.set(f"{turn}: 0", "done")
    store.add(turn, 1)
    _until(lambda: store.check([FAULT]) or store.add(turn, 0) >= num_ranks())
    raise_fault_of_another()
    assert fault is None
    return found  # pyright: ignore[reportReturnType]


def from_all(value: Any) -> list[Any]:
    """What each process gives, in the order of their ranks, as JSON has it. All processes come by here.

    It needs no process group, so that ranks of any device can exchange answers, and short work waits for long.

    Raises: InputError with the fault that any process has found.
    """
    if num_ranks() == 1:
        return [json.loads(json.dumps(value))]
    store, turn, rank = _store(), f"turn {next(_turns)}", int(os.environ["RANK"])
    own = _parts(json.dumps(value))
    for n, part in enumerate(own[1:], start=1):
        store.set(f"{turn}: {rank}/{n}", part)
    store.set(f"{turn}: {rank}", f"{len(own)} {own[0]}")  # last: whoever sees it finds the others
    names = [f"{turn}: {k}" for k in range(num_ranks())]
    _until(lambda: store.check([FAULT]) or store.check(names))
    raise_fault_of_another()
    values: list[Any] = []
    for name in names.copy():
        number, _, first = store.get(name).decode().partition(" ")
        more = [f"{name}/{n}" for n in range(1, int(number))]
        values.append(json.loads(first + "".join(store.get(part).decode() for part in more)))
        names += more
    if store.add(turn, 1) == num_ranks():  # all have read them
        for name in (*names, turn):
            store.delete_key(name)
    return values


def _parts(text: str) -> list[str]:
    return [text[start : start + LARGEST] for start in range(0, len(text), LARGEST)]


def over_ranks(tasks: Sequence[Task], work: Callable[[Task], Any]) -> Iterator[tuple[Task, Any]]:
    """Every task with what ``work`` makes of it (as JSON has it), in their order, in every process.

    Of n processes each does every n-th task, and all wait for each other after every n tasks, so that rank 0 can keep
    what is done so far. What a task gives must not depend on the tasks before it. All processes come by here.
    """
    ranks, rank = num_ranks(), int(os.environ.get("RANK", "0"))
    for start in range(0, len(tasks), ranks):
        some = tasks[start : start + ranks]
        done = from_all(work(some[rank]) if rank < len(some) else None)
        yield from zip(some, done, strict=False)  # in the last round some processes have no task


@contextlib.contextmanager
def alone_at(output: Path) -> Generator[None]:
    """No other launch writes to ``output`` within this block: rank 0 holds its lock. All processes come by here.

    Raises: InputError if another process is in such a block, or nothing can be written there.
    """
    with contextlib.ExitStack() as held:
        agreed(lambda: held.enter_context(only_one(output)) if is_main_process() else None)
        yield


def raise_fault_of_another() -> None:
    """To be asked by a process that waits for what another one makes.

    Raises: InputError with the fault that any process has found.
    """
    if _store.cache_info().currsize and _store().check([FAULT]):
        raise InputError(_store().get(FAULT).decode().partition("\n")[2])


def tells(fault: str) -> bool:
    """Whether this process is the one to say it: always, unless another process says the same."""
    if num_ranks() == 1:
        return True
    own = f"{os.environ['RANK']}\n{fault}"
    with contextlib.suppress(RuntimeError):  # the store is gone with the launcher
        said = _store().compare_set(FAULT, "", own).decode()
        return said == own or said.partition("\n")[2] != fault
    return True


def end_with_the_others(code: int) -> None:
    """Ends a process of several once all do, so that none is ended by the launcher first; else does nothing."""
    if num_ranks() == 1:
        return
    with contextlib.suppress(RuntimeError):
        store, last = _store(), time.monotonic() + LAST_WORD_S
        store.add(ENDED, 1)
        _until(lambda: store.add(ENDED, 0) >= num_ranks() or time.monotonic() > last)
    leave_process_group(code, always=True)


def _until(done: Callable[[], bool]) -> None:
    wait = 0.001
    while not done():  # short sleeps, between which signals are heard
        time.sleep(wait)
        wait = min(2 * wait, POLL_S)


@lru_cache(maxsize=1)
def _store() -> Any:
    """The store at which all processes of the launch meet; kept, since rank 0 may be who holds it."""
    from torch.distributed import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://"))
    return PrefixStore("clinalign", store)
