"""The memory that ``clinalign check`` estimates, against every peak that was measured on a GPU."""

from pathlib import Path

import pytest
import torch
from verify_figures import read
from verify_model import Scale
from verify_updates import Estimates

FIGURES = Path(__file__).with_name("figures")
BOUND = 0.01
"""Greatest relative error of all cells measured so far. README.md and docs/train/cluster.md name it."""


@pytest.mark.filterwarnings("default")  # peft asks for a property that transformers is about to rename
def test_every_measured_peak_is_what_check_estimates(tmp_path):
    """The cells differ in trainer, layout, shape and checkpointing; nothing of the formula was fitted to them."""
    measured = [f for folder in sorted(FIGURES.iterdir()) for f in read(folder) if "peak_mib" in f]
    assert len(measured) >= 12
    estimates = Estimates(Scale("cuda", torch.bfloat16, False), tmp_path)
    rows = {}
    for figure in measured:
        said, _ = estimates.of(figure)
        peak = figure["peak_mib"] * 2**20 / 1e9
        rows[figure["cell"]] = (said["device"], peak, said["device"] / peak)
    table = "\n".join(
        f"{cell}: {said:.2f} GB for {peak:.2f}, {ratio:.4f}" for cell, (said, peak, ratio) in rows.items()
    )
    assert all(abs(ratio - 1) <= BOUND for _, _, ratio in rows.values()), table
    assert len(rows) == len({figure["cell"] for figure in measured})
