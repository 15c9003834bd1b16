"""Ratings from pairwise comparisons: Bradley-Terry (1952) by penalised likelihood, and Elo, with bootstrap intervals.

Left out: ties as an outcome of their own (Rao-Kupper, Davidson); a tie counts as half a win for each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from rewards.config.input_error import InputError
from rewards.ratings.bootstrap import drawn_counts, interval

ELO_SCALE = 400 / math.log(10)


@dataclass(frozen=True)
class Game:
    """One comparison; ``score`` of ``first``: 1 won, 0.5 tied, 0 lost. ``case``: what was compared on."""

    first: str
    second: str
    score: float
    case: str = ""


@dataclass(frozen=True)
class Rating:
    """A rating and its bootstrap interval (NaN without one)."""

    value: float
    low: float = math.nan
    high: float = math.nan


def wins_matrix(comparisons: Sequence[Game], players: Sequence[str]) -> np.ndarray:
    """``wins[i, j]``: how often player i beat player j, ties as halves.

    Raises: InputError if a score lies outside [0, 1] or a player is compared with itself.
    """
    index = {name: k for k, name in enumerate(players)}
    wins = np.zeros((len(players), len(players)))
    for c in comparisons:
        if not 0 <= c.score <= 1 or c.first == c.second:
            raise InputError(
                f"comparison of '{c.first}' and '{c.second}' with score {c.score}: expected two, in [0, 1]."
            )
        wins[index[c.first], index[c.second]] += c.score
        wins[index[c.second], index[c.first]] += 1 - c.score
    return wins


def bradley_terry(wins: ArrayLike, *, ridge: float = 1e-6) -> np.ndarray:
    """Log-strengths that sum to zero: P(i beats j) = 1 / (1 + exp(s_j - s_i)).

    ``wins``: (n, n), ties as half a win each. ``ridge``: weight of sum(s^2) / 2, which keeps those finite who always
    won or lost. Players of disconnected groups are only comparable by that prior; see ``groups``.

    >>> bradley_terry([[0, 3], [1, 0]]).round(3).tolist()
    [0.549, -0.549]
    """
    w = np.asarray(wins, float)

    def loss(strength: np.ndarray) -> tuple[float, np.ndarray]:
        lead = strength[:, None] - strength[None, :]
        surprise = w * expit(-lead)
        gradient = surprise.sum(0) - surprise.sum(1) + ridge * strength
        return float((w * np.logaddexp(0, -lead)).sum() + ridge * (strength @ strength) / 2), gradient

    found = minimize(loss, np.zeros(len(w)), jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 1000})
    return found.x - found.x.mean()


def groups(wins: ArrayLike) -> list[list[int]]:
    """Players that comparisons connect, directly or through others; more than one group cannot be ranked together.

    >>> groups([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    [[0, 1], [2]]
    """
    w = np.asarray(wins, float)
    count, label = connected_components(w + w.T, directed=False)
    return [np.flatnonzero(label == k).tolist() for k in range(count)]


def bradley_terry_ratings(
    comparisons: Sequence[Game], *, ridge: float = 1e-2, resamples: int = 1000, seed: int = 0
) -> dict[str, Rating]:
    """Bradley-Terry log-strengths with 95 % intervals from a bootstrap over cases.

    Raises: InputError if the comparisons fall into groups that never met.
    """
    players = _connected_players(comparisons)
    by_case = _case_wins(comparisons, players)
    counts = drawn_counts(len(by_case), num_resamples=resamples, seed=seed)
    draws = np.array([bradley_terry(np.tensordot(count, by_case, 1), ridge=ridge) for count in counts])
    of_player = draws.reshape(-1, len(players)).T
    strengths = bradley_terry(by_case.sum(0), ridge=ridge)
    return {
        name: Rating(float(value), *(interval(drawn) or (math.nan, math.nan)))
        for name, value, drawn in zip(players, strengths, of_player, strict=True)
    }


def elo_ratings(
    comparisons: Sequence[Game],
    *,
    ridge: float = 1e-2,
    resamples: int = 1000,
    seed: int = 0,
    mean: float = 1000.0,
) -> dict[str, Rating]:
    """Elo ratings as the Bradley-Terry fit on Elo's scale (400 points: odds of ten), whatever the order of play."""
    strengths = bradley_terry_ratings(comparisons, ridge=ridge, resamples=resamples, seed=seed)
    scaled = {n: [mean + ELO_SCALE * v for v in (r.value, r.low, r.high)] for n, r in strengths.items()}
    return {name: Rating(*values) for name, values in scaled.items()}


def _connected_players(comparisons: Sequence[Game]) -> list[str]:
    players = sorted({name for c in comparisons for name in (c.first, c.second)})
    parts = groups(wins_matrix(comparisons, players))
    if len(parts) > 1:
        named = "; ".join(", ".join(players[k] for k in part) for part in parts)
        raise InputError(f"ratings: these groups were never compared with each other: {named}.")
    return players


def _case_wins(comparisons: Sequence[Game], players: list[str]) -> np.ndarray:
    """Wins by case: (cases, n, n)."""
    cases: dict[str, list[Game]] = {}
    for number, c in enumerate(comparisons):
        cases.setdefault(c.case or f"#{number}", []).append(c)
    return np.array([wins_matrix(of_case, players) for of_case in cases.values()])
