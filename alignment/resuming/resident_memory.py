"""Resident memory of a run, step by step: what its process holds, and whether that grows.

Left out: memory of a GPU, and of the data loader's workers.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from scipy import stats

STATUS = Path("/proc/self/status")
WARM_UP = 0.5
"""The share of a run's steps after which memory is looked at."""
BLOCKS = 10
"""Parts of the steps after the warm-up, whose means growth is judged by."""
Steps = Sequence[Mapping[str, Any]]
"""Lines of a ledger: ``step``, ``rss_mib``, ``held_mib``."""


def resident_mib() -> dict[str, float]:
    """This process' resident memory (``rss_mib``), and what of it the process holds (``held_mib``).

    Not held: pages of mapped files, such as the data's. They become resident as rows are read, until the whole file is,
    and the kernel takes them back when memory is short. Where the system does not tell them apart, all is held.
    """
    rss = psutil.Process().memory_info().rss / 2**20
    mapped = re.search(r"RssFile:\s+(\d+) kB", STATUS.read_text(encoding="utf-8")) if STATUS.is_file() else None
    held = rss - int(mapped[1]) / 1024 if mapped else rss
    return {"rss_mib": round(rss, 2), "held_mib": round(held, 2)}


def memory(ranks: Sequence[Steps]) -> dict[str, object]:
    """What memory does in a run: of rank 0 its size, of the rank that grows most its growth.

    None for a growth that so few steps cannot show.
    """
    middle, last = ranks[0][int(WARM_UP * len(ranks[0]))], ranks[0][-1]
    grown = max((found for lines in ranks if (found := growth(lines))), key=lambda g: g.per_1000, default=None)
    return {
        "rss_mib_after_warm_up": middle["rss_mib"],
        "rss_mib_at_the_end": last["rss_mib"],
        "held_mib_after_warm_up": middle["held_mib"],
        "held_mib_at_the_end": last["held_mib"],
        "held_mib_growth_per_1000_steps": grown and grown.per_1000,
        "held_mib_growth_95_percent": grown and [grown.low, grown.high],
    }


@dataclass(frozen=True)
class Growth:
    """MiB of held memory gained in 1000 steps, and its 95 % interval."""

    per_1000: float
    low: float
    high: float


def growth(lines: Steps) -> Growth | None:
    """The slope of a least-squares line after the warm-up; None with fewer steps there than ``BLOCKS``.

    The line goes through the means of blocks of steps: the allocator takes and gives back in jumps that last for many
    steps, so that single steps are not independent, and would make the interval too narrow.
    """
    late = np.array([(line["step"], line["held_mib"]) for line in lines[int(WARM_UP * len(lines)) :]])
    if len(late) < BLOCKS:
        return None
    steps, means = np.array([block.mean(axis=0) for block in np.array_split(late, BLOCKS)]).T
    steps, means = steps - steps.mean(), means - means.mean()
    slope, spread = float(steps @ means / (steps @ steps)), float(np.sqrt(steps @ steps))
    error = float(np.linalg.norm(means - slope * steps)) / np.sqrt(BLOCKS - 2) / spread
    half = float(stats.t.ppf(0.975, BLOCKS - 2)) * error
    return Growth(*(round(1000 * float(found), 2) for found in (slope, slope - half, slope + half)))
