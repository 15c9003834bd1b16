import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from alignment.cli.eval_reader import eval_reader
from rewards.config.input_error import InputError

NAMED = os.environ.get("CLINALIGN_OPEN_I")
needs_open_i = pytest.mark.skipif(
    not NAMED and find_spec("torchxrayvision") is None,
    reason="the Open-I reports are absent (pip install --no-deps torchxrayvision==1.5.7, or set CLINALIGN_OPEN_I)",
)


def reports(root: Path, told: dict[int, tuple[str, list[str]]]) -> Path:
    for number, (findings, tags) in told.items():
        mesh = "".join(f"<major>{tag}</major>" for tag in tags)
        text = f'<r><AbstractText Label="FINDINGS">{findings}</AbstractText>{mesh}</r>'
        (root / f"{number}.xml").write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def four(tmp_path):
    """Odd: an effusion found, a nodule in doubt, a mass not tagged. Even: one that must not count."""
    return reports(
        tmp_path,
        {
            1: ("Effusion. The pneumothorax has resolved.", ["Pleural Effusion/left"]),
            2: ("No fracture.", ["Fractures, Bone/ribs"]),
            3: ("Possible nodule.", ["Nodule/lung"]),
            5: ("Mass.", ["normal"]),
        },
    )


def test_precision_recall_and_f1_of_the_odd_reports(four):
    result = eval_reader(four)
    assert result["reports"]["scored"] == 3
    assert result["micro"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "tagged": 2}
    assert result["findings"]["effusion"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "tagged": 1}
    assert result["findings"]["nodule"]["recall"] == 0.0


def test_errors_are_counted_by_class(four):
    assert eval_reader(four)["errors"] == {
        "tagged, read as uncertain": 1,
        "read, not tagged: report tagged normal": 1,
    }
    assert eval_reader(four, half="even")["errors"] == {"tagged, read as absent": 1}


def test_only_errors_of_the_even_half_are_shown(four):
    assert eval_reader(four)["to_check"] == {}
    assert eval_reader(four, half="even")["to_check"] == {"tagged, read as absent": ["CXR2 fracture"]}


def test_the_keyword_matcher_knows_no_resolution_and_no_doubt(four):
    """It claims the resolved pneumothorax, the possible nodule and the mass, beside the effusion: 2 right of 4."""
    assert eval_reader(four)["keywords_micro"] == {"precision": 0.5, "recall": 1.0, "f1": 0.667, "tagged": 2}


def test_a_figure_of_nothing_is_none_and_reports_of_nothing_are_refused(four, tmp_path_factory):
    """Fracture: tagged and read in the even half alone. Mass: read once and never tagged: precision 0, no recall."""
    found = eval_reader(four)["findings"]
    assert found["fracture"] == {"precision": None, "recall": None, "f1": None, "tagged": 0}
    assert found["mass"] == {"precision": 0.0, "recall": None, "f1": 0.0, "tagged": 0}
    only_even = reports(tmp_path_factory.mktemp("even"), {2: ("No fracture.", ["normal"])})
    with pytest.raises(InputError, match="no report of the odd half can be scored"):
        eval_reader(only_even)


def test_another_half_is_refused(four):
    with pytest.raises(InputError, match="expected odd"):
        eval_reader(four, half="all")


@needs_open_i
@pytest.mark.slow
def test_real_reports_are_read_far_better_than_by_keywords():
    result = eval_reader(Path(NAMED) if NAMED else None)
    assert result["micro"]["f1"] > 0.92
    assert result["micro"]["f1"] > result["keywords_micro"]["f1"] + 0.08
