"""Which tuples of answers are valid: search with pruning, so that a large tree is searched and a small one listed.

``possible`` says of a partial assignment whether it may still become valid; it must say False only of what no
completion can mend, and decide every full assignment. Left out: symbolic solvers; clinical trees are small.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from math import prod

Domains = Mapping[str, tuple[str, ...]]
Assignment = dict[str, str]
Possible = Callable[[Mapping[str, str]], bool]
MAX_LISTED = 1_000_000
"""Spaces of up to this many tuples are listed; larger ones are searched at each question."""


def space_size(domains: Domains) -> int:
    """How many tuples there are, valid or not.

    >>> space_size({"a": ("x", "y"), "b": ("u", "v", "w")})
    6
    """
    return prod(len(symbols) for symbols in domains.values())


def solutions(domains: Domains, possible: Possible, known: Mapping[str, str] | None = None) -> Iterator[Assignment]:
    """Every valid tuple that agrees with ``known``, in the order of the domains."""
    known = known or {}
    if any(known[name] not in domains.get(name, ()) for name in known):
        return
    free = [name for name in domains if name not in known]
    if possible(known):
        for found in _search(dict(known), free, domains, possible):
            yield {name: found[name] for name in domains}


def _search(partial: Assignment, free: list[str], domains: Domains, possible: Possible) -> Iterator[Assignment]:
    if not free:
        yield partial
        return
    for symbol in domains[free[0]]:
        extended = {**partial, free[0]: symbol}
        if possible(extended):
            yield from _search(extended, free[1:], domains, possible)


def largest_agreement(domains: Domains, possible: Possible, said: Mapping[str, str]) -> int:
    """The most of the answers in ``said`` that one valid tuple can share."""
    for size in range(len(said), 0, -1):
        for kept in combinations(said, size):
            if next(solutions(domains, possible, {name: said[name] for name in kept}), None) is not None:
                return size
    return 0
