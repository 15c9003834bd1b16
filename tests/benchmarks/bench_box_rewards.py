"""How many answers of three boxes a minute of processor time each box reward scores on one core, parsing included.

Run: python tests/benchmarks/bench_box_rewards.py
"""

import time
import timeit

from rewards.loading import load_reward

ANSWER = "nodules [[12,34,56,78],[20,20,40,44],[60,61,90,88]]"
TRUTH = [[12, 30, 50, 70], [22, 20, 44, 44], [60, 60, 88, 90]]
UNITS = {"box_grid": 1000}
REWARDS = {
    "box_overlap": {},
    "medmo_box": {},
    "medmo_box_safe": {},
    "box_measure": {},
    "box_measure map_odlength": {"formula": "map_odlength"},
}
NUMBER, REPEATS = 5000, 7


def a_minute(name: str, knobs: dict[str, str]) -> float:
    """Rewards a minute, by the best of some repeats: others may use the machine at the same time."""
    reward = load_reward(name.partition(" ")[0], **knobs)
    best = min(
        timeit.repeat(
            lambda: reward(ANSWER, boxes=TRUTH, **UNITS), timer=time.process_time, number=NUMBER, repeat=REPEATS
        )
    )
    return 60 * NUMBER / best


if __name__ == "__main__":
    for name, knobs in REWARDS.items():
        print(f"{name:26} {a_minute(name, knobs):12,.0f} rewards a minute")
