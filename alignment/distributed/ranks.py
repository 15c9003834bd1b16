"""The processes of one launch end alike: a fault that one has found is the fault of all, and is told once.

Faults are handed on by the launcher's own store, before there is a process group in which the others could wait for
ever. A wait has no limit of its own: the work of rank 0 may take hours; it ends when a process gives no more signs of
life (``signs_of_life.py``). Left out: crashes, at which the launcher ends the other processes of its node.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from alignment.distributed.processes import is_launched, is_main_process, leave_process_group
from alignment.distributed.signs_of_life import FAULT, ended_early, give_signs, lost_store, silent_s
from data_builders.locks import only_one
from rewards.config.input_error import InputError

Found = TypeVar("Found")
Task = TypeVar("Task")
POLL_S = 0.1
LAST_WORD_S = 10.0
"""How long a process that ends by a fault waits for the others to end with it: longer ones are busy elsewhere."""
LARGEST = 4 << 20
"""Signs of one value of torch's store, which breaks off at 8 MB."""
ENDED = "ended"
ENDED_POLL_S = 2.0
_turns = count()


def num_ranks() -> int:
    """How many processes the launch has; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1")) if is_launched() else 1


def agreed(check: Callable[[], Found]) -> Found:
    """What ``check`` finds in this process, once it has found no fault in any. All processes come by here.

    Raises: InputError with the fault of rank 0, else of the first that has one.
    """
    if num_ranks() == 1:
        return check()
    turn, found, fault = f"turn {next(_turns)}", None, None
    with _store_at_hand():  # from here on this process gives signs of life
        pass
    try:
        silent_s()
        found = check()
    except InputError as raised:
        fault = raised
    with _store_at_hand() as store:
        _agree(store, turn, fault)
    raise_fault_of_another()
    assert fault is None
    return found  # pyright: ignore[reportReturnType]


def _agree(store: Any, turn: str, fault: InputError | None) -> None:
    rank = int(os.environ["RANK"])
    if fault is not None:
        if rank:  # rank 0 reads more than the others, such as every row
            _until(lambda: store.check([f"{turn}: 0"]) or store.check([FAULT]))
        where = f" (Found by rank {rank} on {socket.gethostname()}.)" if rank else ""
        store.compare_set(FAULT, "", f"{rank}\n{fault}{where}")
    if rank == 0:
        store.set(f"{turn}: 0", "done")
    store.add(turn, 1)
    _until(lambda: store.check([FAULT]) or store.add(turn, 0) >= num_ranks(), store)


def from_all(value: Any) -> list[Any]:
    """What each process gives, in the order of their ranks, as JSON has it. All processes come by here.

    It needs no process group, so that ranks of any device can exchange answers, and short work waits for long.

    Raises: InputError with the fault that any process has found.
    """
    if num_ranks() == 1:
        return [json.loads(json.dumps(value))]
    turn, rank = f"turn {next(_turns)}", int(os.environ["RANK"])
    names = [f"{turn}: {k}" for k in range(num_ranks())]
    with _store_at_hand() as store:
        _give(store, names[rank], json.dumps(value))
        _until(lambda: store.check([FAULT]) or store.check(names), store)
    raise_fault_of_another()
    with _store_at_hand() as store:
        return _read(store, turn, names)


def _give(store: Any, name: str, text: str) -> None:
    first, *more = [text[start : start + LARGEST] for start in range(0, len(text), LARGEST)]
    for n, part in enumerate(more, start=1):
        store.set(f"{name}/{n}", part)
    store.set(name, f"{len(more) + 1} {first}")  # last: whoever sees it finds the others


def _read(store: Any, turn: str, names: list[str]) -> list[Any]:
    values, keys = list[Any](), [*names, turn]
    for name in names:
        number, _, first = store.get(name).decode().partition(" ")
        more = [f"{name}/{n}" for n in range(1, int(number))]
        values.append(json.loads(first + "".join(store.get(part).decode() for part in more)))
        keys += more
    if store.add(turn, 1) == num_ranks():  # all have read them
        for key in keys:
            store.delete_key(key)
    return values


def of_rank_0(check: Callable[[], Found]) -> Found:
    """What ``check`` finds in rank 0, as JSON has it: one decision for all processes, which all come by here.

    Raises: InputError with the fault that it finds.
    """
    return from_all(agreed(lambda: check() if is_main_process() else None))[0]


def over_ranks(tasks: Sequence[Task], work: Callable[[Task], Any]) -> Iterator[tuple[Task, Any]]:
    """Every task with what ``work`` makes of it (as JSON has it), in their order, in every process.

    Of n processes each does every n-th task, and all wait for each other after every n tasks, so that rank 0 can keep
    what is done so far. What a task gives must not depend on the tasks before it. All processes come by here.
    """
    ranks = num_ranks()
    rank = int(os.environ["RANK"]) if ranks > 1 else 0
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
        of_rank_0(lambda: held.enter_context(only_one(output)))
        yield


def raise_fault_of_another() -> None:
    """To be asked by a process that waits for what another one makes.

    Raises: InputError with the fault that any process has found.
    """
    if not _store.cache_info().currsize:
        return
    with _store_at_hand() as store:
        if store.check([FAULT]):
            raise InputError(store.get(FAULT).decode().partition("\n")[2])


def tells(fault: str) -> bool:
    """Whether this process is the one to say it: always, unless another process says the same."""
    if num_ranks() == 1:
        return True
    mine = f"{os.environ['RANK']}\n{fault}"
    with contextlib.suppress(RuntimeError):  # the store is gone with the launcher
        first = _store().compare_set(FAULT, "", mine).decode()
        return first == mine or first.partition("\n")[2] != fault
    return True


def end_with_the_others(code: int) -> None:
    """Ends a process of several once all do, so that none is ended by the launcher first; else does nothing.

    A command that did its work without a word to the others (``code`` 0) has none to wait for.
    """
    if num_ranks() == 1 or (code == 0 and not _store.cache_info().currsize):
        return
    with contextlib.suppress(RuntimeError):
        store, last = _store(), time.monotonic() + LAST_WORD_S
        store.add(ENDED, 1)
        _until(lambda: store.add(ENDED, 0) >= num_ranks() or time.monotonic() > last)
    leave_process_group(code, always=True)


def _until(done: Callable[[], bool], store: Any = None) -> None:
    """Waits for all processes. ``store``: at which one that has ended, such as by a signal, is seen.

    Raises: InputError if one has.
    """
    wait, look = 0.001, time.monotonic() + ENDED_POLL_S
    while not done():  # short sleeps, between which signals are heard
        time.sleep(wait)
        wait = min(2 * wait, POLL_S)
        if store is not None and time.monotonic() > look:
            gone = [rank for rank in range(num_ranks()) if store.check([f"ended {rank}"])]
            if gone and not done():
                raise InputError(ended_early(store, gone[0]))
            look = time.monotonic() + ENDED_POLL_S


@contextlib.contextmanager
def _store_at_hand() -> Generator[Any]:
    """The launcher's store. Raises: InputError where it is gone, with the process that holds it."""
    try:
        yield _store()
    except RuntimeError as lost:
        raise InputError(lost_store()) from lost


@lru_cache(maxsize=1)
def _store() -> Any:
    """The store at which all processes of the launch meet; kept, since rank 0 may be who holds it."""
    from torch.distributed import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, rank, ranks = next(rendezvous("env://"))
    prefixed = PrefixStore("clinalign", store)
    with contextlib.suppress(InputError):  # a limit that is none, which ``agreed`` tells
        give_signs(prefixed, rank, ranks)
    return prefixed
