"""How many images of 512 x 512 pixels get lesion noise in a second of processor time on one core, by mask policy.

Run: python tests/benchmarks/bench_lesion_noise.py
"""

import time
import timeit

import numpy as np
from PIL import Image

from data_builders.pairs.lesion_noise import noised
from data_builders.pairs.settings import NoiseSettings
from data_builders.seeds import seeded

POLICIES = {
    "mass, all of it": NoiseSettings(),
    "mass, half of it": NoiseSettings(level=0.5),
    "quantile": NoiseSettings(mask="quantile", level=0.9),
}
NUMBER, REPEATS = 20, 5


def a_second(policy: NoiseSettings) -> float:
    """Images a second, by the best of some repeats: others may use the machine at the same time."""
    y, x = np.mgrid[:512, :512]
    heat = np.exp(-((x - 200) ** 2 + (y - 300) ** 2) / (2 * 40.0**2)).astype(np.float32)
    heat[heat < 0.1] = 0
    image, rng = Image.new("L", (512, 512), 128), seeded("lesion_noise", 5)
    best = min(
        timeit.repeat(lambda: noised(image, heat, policy, rng), timer=time.process_time, number=NUMBER, repeat=REPEATS)
    )
    return NUMBER / best


if __name__ == "__main__":
    for name, policy in POLICIES.items():
        print(f"{name:22} {a_second(policy):6,.0f} images a second")
