"""The check for one GPU, whole, on a CPU with the toy model: only sizes, device and precision differ."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from verify_figures import read

ROOT = Path(__file__).parents[2]


def verify(folder, *arguments, **env):
    """Runs the script, and gives what it printed and the figures by name."""
    command = [sys.executable, str(ROOT / "tests/gpu/verify.py"), str(folder), "--tiny", *arguments]
    paths = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, env={**os.environ, **paths, **env}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    return done.stdout, figures


def value(figures, name):
    """The one figure of that name."""
    (found,) = [f["value"] for f in figures if f["name"] == name]
    return found


def assert_a_page_has_the_figures(folder):
    """The tables of a page are written anew, and what stands around them stays."""
    page = folder / "gpu.md"
    page.write_text((ROOT / "docs/evidence/gpu.md").read_text(encoding="utf-8") + "after\n", encoding="utf-8")
    before, _, _ = page.read_text(encoding="utf-8").partition("<!-- figures")
    for _ in range(2):
        verify(folder, "--table", "--page", str(page))
    text = page.read_text(encoding="utf-8")
    assert text.startswith(before)
    assert text.endswith("<!-- end of figures -->\nafter\n")
    assert text.count("| grpo 6+5 x2 ours |") == 2  # in the updates and in the memory
    assert f"| {value(read(folder), 'commit')} |" in text
    assert "| packed, sdpa with mask bfloat16 |" in text
    assert "| no GPU | torch " in text


@pytest.mark.slow
def test_the_whole_runs_on_a_cpu_and_nothing_fails(tmp_path):
    limits = [word for part in "abcdef" for word in (f"--limit-{part}", "900")]
    _, figures = verify(tmp_path, "--in-one", *limits, TORCH_COMPILE_DISABLE="1")
    assert [f for f in figures if f.get("status") == "failed"] == []
    assert {f["part"] for f in figures} == {*"abcdef", "draw"}
    # packed is the repeated layout: in float32 to rounding, in bfloat16 no further off than the repeated one is
    for form in ("packed, sdpa with mask", "cached, sdpa", "repeated, tower in one call against windows"):
        assert value(figures, f"{form} float32: log-probability") < 1e-5
        assert value(figures, f"{form} float32: gradient") < 1e-5
        own = value(figures, "repeated, sdpa bfloat16: gradient")
        assert 0 < value(figures, f"{form} bfloat16: gradient") < 2 * own
    # both trainers take the same first step: the same loss, the same norm of the gradient
    updates = {f["cell"]: f for f in figures if "grad_norms" in f}
    cells = [("grpo 6+5 x2", "stock"), ("grpo 6+5 x2", "stock, tower in one call")]
    for cell, method in [*cells, ("dpo 12+7 x4", "stock, tower in one call")]:
        ours, stock = updates[f"{cell} ours"], updates[f"{cell} {method}"]
        assert ours["losses"][0] == pytest.approx(stock["losses"][0], abs=1e-5)
        assert ours["grad_norms"][0] == pytest.approx(stock["grad_norms"][0], rel=1e-4)
        assert ours["grad_norms"][0] > 1e-3
        assert ours["useful_flops"] == stock["useful_flops"] > 0
        assert value(figures, f"{cell} ours: faster than {method}") > 0
        assert ("its own attention" in stock["tower"]) == (method == "stock")
        assert ours["tower_spared"]
        assert not stock["tower_spared"]
    plain, compiled = updates["grpo 6+5 x2 ours"], updates["grpo 6+5 x2 ours, compiled"]
    assert compiled["losses"][0] == pytest.approx(plain["losses"][0], abs=1e-5)
    assert compiled["grad_norms"][0] == pytest.approx(plain["grad_norms"][0], rel=1e-4)
    assert {f["name"].partition(": ")[0] for f in figures if "estimate" in f} == set(updates)
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert table.count("\n") == len(figures) + 2
    assert_a_page_has_the_figures(tmp_path)


@pytest.mark.slow
def test_a_part_that_runs_out_of_time_costs_no_other(tmp_path):
    shown, figures = verify(tmp_path, "--parts", "b,e", "--limit-b", "0.001", "--limit-e", "300", "--commit", "abc")
    assert value(figures, "commit") == "abc"
    assert "ran out of time" in next(f["note"] for f in figures if f["name"] == "part b")
    assert value(figures, "liger_kernel") == "not there"
    assert "| e | part e |" in shown
    names = {"figures.jsonl", "figures.json", "table.md", "begun.jsonl", "log.txt"}
    assert {file.name for file in tmp_path.iterdir()} <= names
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "[b] started" in log
    assert "[e] started" in log
