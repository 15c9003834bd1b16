"""Models against each other on the answers that a pool holds: win rates, ratings, and what they are worth.

For evaluation: the judge and the opponents should be others than those trained against, and a name on both lists is
refused. Left out: asking the models, which ``clinalign counterparts`` does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from rewards.config.input_error import InputError, nearest
from rewards.judges.judging import Case, Judge, Pair, Verdict
from rewards.ratings.agreement import intransitive_share, position_bias
from rewards.ratings.bradley_terry import Game, Rating, elo_ratings
from rewards.ratings.tally import Tally, tally


@dataclass(frozen=True)
class Tournament:
    """``tallies[a, b]``: outcomes of a against b. ``elo``: over all, with intervals by case.

    Two that shared no case have a tally of zeros. ``position_bias``: share of verdicts that changed with the order
    (with its interval). ``intransitive``: share of circles among triples of models.
    """

    tallies: dict[tuple[str, str], Tally]
    elo: dict[str, Rating]
    position_bias: tuple[float, float, float]
    intransitive: float


async def tournament(
    judge: Judge,
    cases: Sequence[Case],
    pools: Sequence[Sequence[Mapping[str, Any]]],
    *,
    models: Sequence[str] | None = None,
    trained_against: Sequence[str] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> Tournament:
    """Every two models compared on every case that both answered, in both orders; an order that matters is a tie.

    ``pools``: for each case its answers (``model``, ``text``). ``models``: those that play, all by default; a name that
    a model was ``trained_against`` must not be among them. Raises: InputError on such a leak, on a model without an
    answer, or if fewer than two play.
    """
    answers = [{str(a["model"]): str(a["text"]) for a in pool} for pool in pools]
    players = _players(answers, models, trained_against)
    games = [
        (k, a, b)
        for a, b in combinations(players, 2)
        for k, entries in enumerate(answers)
        if a in entries and b in entries
    ]
    pairs = [Pair(cases[k], answers[k][a], answers[k][b]) for k, a, b in games]
    verdicts = await judge.compare([*pairs, *(pair.swapped for pair in pairs)])
    there, back = ([_mean(v) for v in side] for side in (verdicts[: len(pairs)], verdicts[len(pairs) :]))
    scores = [None if x is None or y is None else x if x == 1 - y else 0.5 for x, y in zip(there, back, strict=True)]
    by_pair: dict[tuple[str, str], list[float | None]] = {}
    for (_, a, b), score in zip(games, scores, strict=True):
        by_pair.setdefault((a, b), []).append(score)
    played = [Game(a, b, s, str(k)) for (k, a, b), s in zip(games, scores, strict=True) if s is not None]
    rated = {pair: [s for s in entries if s is not None] for pair, entries in by_pair.items()}
    return Tournament(
        tallies={pair: tally(by_pair.get(pair, [])) for pair in combinations(players, 2)},
        elo=elo_ratings(played, resamples=resamples, seed=seed) if played else {},
        position_bias=position_bias(there, back),
        intransitive=intransitive_share({pair: float(np.mean(entries)) for pair, entries in rated.items() if entries}),
    )


def _mean(verdict: Verdict | None) -> float | None:
    return None if verdict is None else float(np.mean(list(verdict.values())))


def _players(
    answers: Sequence[Mapping[str, str]], models: Sequence[str] | None, trained_against: Sequence[str]
) -> list[str]:
    known = list(dict.fromkeys(name for entries in answers for name in entries))
    for name in (*(models or ()), *trained_against):
        if name not in known:
            raise InputError(f"no answer of '{name}' in the pool.{nearest(name, known)} There: {', '.join(known)}.")
    leaked = [name for name in models or () if name in trained_against]
    if leaked:
        raise InputError(f"{', '.join(leaked)} was trained against; such a win rate says little. Name other opponents.")
    players = [name for name in models or known if name not in trained_against]
    if len(players) < 2:
        raise InputError(f"a tournament needs two models, got: {', '.join(players) or 'none'}.")
    return players
