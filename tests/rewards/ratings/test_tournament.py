import asyncio
import math

import pytest

from rewards.config.input_error import InputError
from rewards.judges.facts_judge import FactsJudge
from rewards.judges.judging import DIMENSIONS, Case
from rewards.ratings.tally import Tally
from rewards.ratings.tournament import tournament

TRUTH = (
    '{"rule_set":"chest_xray@1","findings":{"nodule":{"polarity":"present","side":"left"},'
    '"effusion":{"polarity":"absent"}}}'
)
CASES = [Case("Describe.", facts=TRUTH)] * 6
TEXTS = {"good": "There is a nodule on the left. No effusion.", "fair": "There is a nodule on the left."}
TEXTS["bad"] = "There is an effusion."
POOLS = [[{"model": name, "text": text} for name, text in TEXTS.items()] for _ in CASES]


def held(pools=POOLS, judge=None, **settings):
    return asyncio.run(tournament(judge or FactsJudge(), CASES, pools, resamples=20, **settings))


class First:
    """Always prefers what is shown first."""

    calls_left = None

    async def compare(self, pairs):
        return [dict.fromkeys(DIMENSIONS, 1.0)] * len(pairs)

    def num_calls(self, pairs):
        return len(pairs)


def test_the_better_reports_rank_higher():
    found = held()
    assert found.tallies["good", "fair"] == Tally(6, 0, 0)
    assert found.elo["good"].value > found.elo["fair"].value > found.elo["bad"].value
    assert (found.position_bias[0], found.intransitive) == (0.0, 0.0)


def test_a_judge_that_takes_the_first_decides_nothing_and_is_seen():
    found = held(judge=First())
    assert all(own == Tally(0, 6, 0) for own in found.tallies.values())
    assert found.position_bias[0] == 1.0
    assert {round(r.value, 6) for r in found.elo.values()} == {1000.0}


def test_opponents_of_the_training_do_not_play():
    assert set(held(trained_against=["fair"]).elo) == {"good", "bad"}
    with pytest.raises(InputError, match="fair was trained against"):
        held(models=["good", "fair"], trained_against=["fair"])


def test_a_name_without_answers_and_a_lonely_model_are_refused():
    with pytest.raises(InputError, match=r"no answer of 'god' in the pool.*Did you mean 'good'"):
        held(models=["god", "bad"])
    with pytest.raises(InputError, match="needs two models, got: good"):
        held(models=["good"])


def test_a_case_that_one_did_not_answer_does_not_count():
    found = held(pools=[POOLS[0], *[pool[:2] for pool in POOLS[1:]]])
    assert found.tallies["good", "bad"] == Tally(1, 0, 0)
    assert found.tallies["good", "fair"] == Tally(6, 0, 0)


def test_two_models_that_shared_no_case_are_told_to_have_met_never():
    good, fair, bad = POOLS[0]
    found = held(pools=[[good, fair], [fair, bad], *[[good, fair]] * 4])
    assert found.tallies["good", "bad"] == Tally(0, 0, 0, 0)
    assert len(found.tallies) == 3


def test_failures_are_counted_and_rate_nobody():
    blind = [Case("Describe.")] * 6
    found = asyncio.run(tournament(FactsJudge(), blind, POOLS, resamples=5))
    assert found.tallies["good", "bad"] == Tally(0, 0, 0, 6)
    assert found.elo == {}
    assert math.isnan(found.position_bias[0])
