"""What the processes of a launch must find alike on the disks of their nodes, told before anything is computed.

A run's folder is one folder, on a disk that all nodes share: rank 0 writes the model, the others their share of every
checkpoint. Data may be a copy on each node, of the same bytes.
"""

import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from alignment.distributed.processes import is_first_of_node, is_main_process
from alignment.distributed.ranks import agreed, from_all, num_ranks, of_rank_0
from data_builders.digest import sha256
from rewards.config.input_error import InputError

MARK = ".shared-"
SEEN_WITHIN_S = 10.0
"""How late a node may see what another one has written; a network's disk may be busy."""
LATE_S = 120.0
"""The same for a name that was asked for before: a network's disk keeps in mind for a minute what was not there."""


def check_shared(folder: Path) -> None:
    """Makes the folder, and returns once every process has seen in it what rank 0 writes. All processes come by here.

    Raises: InputError naming the hosts whose folder is another one.
    """
    if num_ranks() == 1:
        folder.mkdir(parents=True, exist_ok=True)
        return
    mark = folder / of_rank_0(lambda: _marked(folder))
    try:
        seen = from_all([socket.gethostname(), _sees(mark)])
    finally:
        if is_main_process():
            mark.unlink(missing_ok=True)
    blind = [f"rank {rank} on {host}" for rank, (host, sees) in enumerate(seen) if not sees]
    if blind:
        more = f" and {len(blind) - 1} more" * (len(blind) > 1)
        raise InputError(
            f"output: {folder} is not one folder for all nodes: {blind[0]}{more} does not see what rank 0 on "
            f"{seen[0][0]} writes there. Name an output on a disk that all nodes share, by its whole path; data may "
            "be copies on each node."
        )


def _marked(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    forget_marks(folder)
    name = f"{MARK}{uuid.uuid4().hex}"  # never asked for before
    (folder / name).touch()
    return name


def forget_marks(folder: Path) -> None:
    """Removes what a launch that was killed meanwhile has left."""
    for left in folder.glob(MARK + "[0-9a-f]" * 32):
        left.unlink(missing_ok=True)


def _sees(mark: Path) -> bool:
    last = time.monotonic() + SEEN_WITHIN_S
    while not mark.is_file():
        if time.monotonic() > last:
            return False
        time.sleep(0.1)
    return True


def same_bytes(file: Path) -> str:
    """SHA-256 of a file that every node reads, each its own copy or all the same one. All processes come by here.

    Raises: InputError naming a node whose copy differs from that of rank 0.
    """
    found = from_all([socket.gethostname(), sha256(file) if is_first_of_node() else None])
    first, expected = found[0]
    for rank, (host, digest) in enumerate(found):
        if digest not in (None, expected):
            raise InputError(
                f"{file}: rank {rank} on {host} reads other bytes (SHA-256 {digest[:12]}) than rank 0 on {first} "
                f"({expected[:12]}). Copy the set to every node anew, or name one on a disk that all nodes share."
            )
    return str(expected)


def made_once(file: Path, make: Callable[[], object]) -> None:
    """Has rank 0 make a file, and where its disk is its node's own, the first process of every other node.

    It is made whole or not at all, unless it is there. All processes come by here.
    """
    of_rank_0(lambda: None if file.is_file() else make())
    agreed(lambda: make() if is_first_of_node() and not file.is_file() else None)
    agreed(lambda: wait_for(file, limit_s=LATE_S))


def check_same(what: str, content: object) -> None:
    """Returns if all processes were given the same. All processes come by here.

    Raises: InputError naming the first that was given something else, and in what.
    """
    found = from_all(content)
    for rank, other in enumerate(found):
        if other != found[0]:
            raise InputError(
                f"{what}: rank {rank} reads another one than rank 0 ({_difference(other, found[0])}). Give every node "
                "the same files, or name some on a disk that all nodes share."
            )


def _difference(other: object, first: object, path: str = "") -> str:
    if isinstance(other, dict) and isinstance(first, dict):
        names = [name for name in {**first, **other} if other.get(name) != first.get(name)]
        return _difference(other.get(names[0]), first.get(names[0]), f"{path}.{names[0]}".lstrip("."))
    return f"{path}: {other!r} instead of {first!r}"


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
