"""The side-by-side benchmark: its arithmetic, its rows, and one real pair of tiny runs. No time is asserted."""

import subprocess
import sys

import numpy as np
import pytest
from datasets import Dataset
from safetensors.numpy import save_file

from alignment.bench.differences import weights_compared
from alignment.bench.side_by_side import Shape, bench, prepared, table, theoretical_ratios
from alignment.models.processors import load_processor
from alignment.shared_prefix.prompt_groups import collated, group
from rewards.config.input_error import InputError

pytestmark = pytest.mark.filterwarnings("default")
TINY = Shape(image_tokens=4, answer_tokens=8, prompts=1, hidden_size=32, num_layers=1)


def test_the_theoretical_ratio_of_dpo_by_hand():
    # prompt 100, answers of 50: stock 2 x 150 tokens, ours 100 + 2 x 50; with the reference 4 forwards, without 3
    ratios = theoretical_ratios("dpo", 100, Shape(answer_tokens=50))
    assert ratios == pytest.approx({"ours_reference_each_step": 1.5, "ours": 2.0})


def test_the_theoretical_ratio_of_grpo_by_hand():
    assert theoretical_ratios("grpo", 100, Shape(answer_tokens=50, answers=4)) == {"ours": 2.0}


def test_an_image_token_count_that_is_no_square_is_refused(tmp_path):
    with pytest.raises(InputError, match="no square; try 225 or 256"):
        prepared("dpo", Shape(image_tokens=250), tmp_path, steps=1)


def test_rows_have_the_asked_numbers_of_tokens_and_answers(tmp_path):
    settings = prepared("reward", Shape(image_tokens=9, answer_tokens=12, answers=3, hidden_size=32), tmp_path, steps=1)
    processor = load_processor(settings["model"])
    row = Dataset.from_parquet(settings["data"])[0]
    batch = collated(processor, [group(processor, row["images"], row["prompt"], row["answers"])], shared=True)
    image = processor.tokenizer.convert_tokens_to_ids("<image>")
    assert int((batch["input_ids"] == image).sum()) == 9
    assert len(batch["answer_lengths"]) == 3
    assert all(abs(int(n) - 12) <= 2 for n in batch["answer_lengths"])
    assert int((batch["segments"] == 0).sum()) == settings["prompt_tokens"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dpo", "grpo", "reward"])
def test_ours_and_stock_learn_the_same(tmp_path, kind):
    shape = TINY if kind == "dpo" else Shape(**{**vars(TINY), "answers": 3})
    result = bench(kind, shape, runs=2, folder=tmp_path)
    for compared in result["stock_over_ours"].values():
        assert compared["largest_loss_difference"] <= 1e-4
        assert compared["largest_loss"] > 1e-3
        assert compared["peak_mib"] > 0
        assert len(result["methods"]["stock"]["losses"]) == 3  # two, and the first that is not measured
        if kind != "reward":  # nothing is trained there
            assert compared["largest_grad_norm_difference"] <= 1e-4 * compared["largest_grad_norm"]
            assert compared["largest_weight_difference"] <= 1e-3 * compared["largest_weight_change"]
            assert min(result["methods"]["stock"]["grad_norms"]) > 0.1
    names = [line.split("|")[1].strip() for line in table(result).splitlines()[2:]]
    assert names == ["stock", "ours", *(["ours_reference_each_step"] if kind == "dpo" else [])]


def spread(median):
    return {"median": median, "low": median - 1, "high": median + 1}


def test_a_table_has_a_line_a_method_with_ratios_beside_ours_alone():
    stock = {"step_s": spread(4.0), "update_s": spread(8.0), "peak_mib": 300.0}
    ours = {"step_s": spread(2.0), "update_s": spread(5.0), "peak_mib": 200.0}
    ratios = {
        "step_s": spread(2.0), "update_s": spread(1.6), "cpu_s": spread(3.0), "peak_mib": 1.5,
        "largest_loss_difference": 1e-6, "largest_loss": 0.693,
    }  # fmt: skip
    result = {
        "methods": {"stock": stock, "ours": ours},
        "stock_over_ours": {"ours": ratios},
        "theoretical": {"ours": 2.0},
    }
    head, rule, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(result).splitlines()]
    assert {len(head), len(rule), *map(len, lines)} == {12}
    assert lines == [
        ["stock", "4 (3-5)", "8 (7-9)", "300", *[""] * 8],
        [
            "ours", "2 (1-3)", "5 (4-6)", "200", "2x (1-3)", "1.6x (0.6-2.6)", "3x (2-4)", "1.50x", "2.00x",
            "1e-06 (0.69)", "", "",
        ],
    ]  # fmt: skip


def test_weights_are_compared_beside_how_far_they_have_moved(tmp_path):
    for method, name, value in (("stock", "before", 1.0), ("stock", "after", 3.0), ("ours", "after", 2.5)):
        (tmp_path / method / name).mkdir(parents=True)
        save_file({"w": np.array([0.0, value])}, tmp_path / method / name / "model.safetensors")
    compared = weights_compared(str(tmp_path / "stock"), str(tmp_path / "ours"))
    assert compared == {"largest_weight_difference": 0.5, "largest_weight_change": 2.0}
    assert weights_compared(None, None) == {}


@pytest.mark.slow
def test_a_peak_is_the_process_s_own_and_not_that_of_a_larger_one_that_started_it():
    ballast = np.ones((800, 2**17))  # 800 MiB, more than the libraries take
    code = "from alignment.bench.worker import peak_mib; print(peak_mib())"
    peak = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 0 < peak < ballast.nbytes / 2**20
