"""Overlap with written texts: equal to the libraries over a corpus, and as counts that add up over patients."""

import numpy as np
import pytest
import sacrebleu

from alignment.metrics.intervals import differences, summarise
from alignment.metrics.outcomes import score_answers
from rewards.reports.cider import cider_d
from rewards.reports.report_metrics import rouge_l_f1

REFERENCES = (
    "The heart is normal in size. No pleural effusion or pneumothorax is seen.",
    "Small left pleural effusion with adjacent atelectasis. Heart size is normal.",
    "No acute cardiopulmonary process.",
    "There is a large right pneumothorax. The mediastinum is shifted to the left.",
)
RESPONSES = (
    "Heart size is normal. No effusion or pneumothorax is seen.",
    "There is a small left pleural effusion. The heart is normal in size.",
    "",
    "There is a large right pneumothorax.",
)


def row(index, task="report", answer=None):
    """A prompt row whose reference is a written text, without facts."""
    return {
        "id": f"r{index}", "patient": f"p{index}", "task": task, "prompt": [], "boxes": None, "rule_set": "",
        "facts": '{"rule_set": ""}', "answer": REFERENCES[index] if answer is None else answer,
    }  # fmt: skip


ROWS = [row(k) for k in range(4)]


def test_values_are_those_of_the_libraries():
    found = summarise(score_answers(ROWS, RESPONSES))
    for order in (1, 2, 3, 4):
        metric = sacrebleu.BLEU(lowercase=True, max_ngram_order=order)
        want = metric.corpus_score(list(RESPONSES), [list(REFERENCES)]).score / 100
        assert found[f"bleu_{order}[report]"].value == pytest.approx(want, abs=1e-12)
        assert want > 0
    rouge = np.mean([rouge_l_f1(r, t) for r, t in zip(RESPONSES, REFERENCES, strict=True)])
    assert found["rouge_l[report]"].value == pytest.approx(rouge)
    assert found["cider_d[report]"].value == pytest.approx(cider_d(RESPONSES, REFERENCES))
    assert found["bleu_4[report]"].num_rows == found["bleu_4[report]"].num_patients == 4
    assert found["bleu_4[report]"].low < found["bleu_4[report]"].value < found["bleu_4[report]"].high


def test_an_interval_is_over_draws_of_patients():
    """Two patients: every draw is one of three mixtures, and BLEU of each is that of the library."""
    found = summarise(score_answers(ROWS[:2], RESPONSES[:2]))["bleu_2[report]"]
    metric = sacrebleu.BLEU(lowercase=True, max_ngram_order=2)
    alone = [metric.corpus_score([r], [[t]]).score / 100 for r, t in zip(RESPONSES[:2], REFERENCES[:2], strict=True)]
    assert (found.low, found.high) == pytest.approx((min(alone), max(alone)))


def test_reports_and_open_answers_are_told_apart():
    rows = [*ROWS, row(0, task="open", answer="left lower lobe")]
    found = summarise(score_answers(rows, [*RESPONSES, "the left lower lobe"]))
    assert found["rouge_l[open]"].value == pytest.approx(6 / 7)
    assert found["bleu_1[open]"].value == pytest.approx(3 / 4)
    assert "cider_d[open]" not in found  # of one text no n-gram is rare
    assert found["rouge_l[report]"].num_rows == 4


def test_thinking_is_no_part_of_the_text():
    plain, thought = (
        summarise(score_answers(ROWS, answers))
        for answers in (RESPONSES, [f"<think>effusion effusion</think><answer>{r}</answer>" for r in RESPONSES])
    )
    assert plain == thought


def test_a_difference_pairs_the_patients():
    before, after = (score_answers(ROWS, answers) for answers in (RESPONSES, REFERENCES))
    found = differences(before, after)
    assert found["bleu_4[report]"].value == pytest.approx(1 - summarise(before)["bleu_4[report]"].value)
    assert found["bleu_4[report]"].low > 0


def test_closed_answers_have_no_overlap():
    found = summarise(score_answers([row(0, task="closed", answer="yes")], ["yes"]))
    assert not [name for name in found if "bleu" in name or "rouge" in name]


def test_rows_that_only_overlap_judges_are_judged():
    from alignment.metrics.unjudged import why_unjudged

    assert why_unjudged(ROWS[0]) is None
    assert why_unjudged(row(0, answer=" ")) == "report without facts"
    ruled = [given | {"rule_set": "chest_xray@1"} for given in ROWS]  # its facts state nothing: no claim is charged
    found = summarise(score_answers(ruled, RESPONSES))
    assert found["bleu_1[report]"].value > 0
    assert "hallucination_rate" not in found
