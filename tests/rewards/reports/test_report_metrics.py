import json
import math
from pathlib import Path

import nltk
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from rewards.loading import load_reward
from rewards.reports.cider import cider_d, document_frequency, item_score
from rewards.reports.report_metrics import (
    bleu_counts,
    corpus_bleu,
    has_wordnet,
    num_common,
    report_metrics,
    rouge_l_f1,
    sentence_bleu,
)
from rewards.reports.report_overlap import report_overlap

GOLDEN = json.loads(Path(__file__).with_name("cider_golden.json").read_text(encoding="utf-8"))
REFERENCES = ["no effusion is seen on the left", "a small nodule is seen on the right", "the heart is enlarged"]


def test_the_references_themselves_get_the_most():
    found = report_metrics(REFERENCES, REFERENCES)
    assert found["bleu"] == pytest.approx(100)
    assert found["rouge_l"] == pytest.approx(1)
    assert found["cider_d"] == pytest.approx(10)


def test_cider_by_hand():
    # Two references, "a b" and "c d". df of a, b, "a b" is 1: idf = log 2. Response "a x" to "a b": unigrams
    # said {a: log 2, x: log 2}, true {a: log 2, b: log 2}: cosine 1/2. Bigrams share nothing; no 3- or 4-grams.
    # So (1/2 + 0 + 0 + 0) / 4 x 10 = 1.25, and "c d" to itself: (1 + 1) / 4 x 10 = 5. Mean 3.125.
    assert cider_d(["a x", "c d"], ["a b", "c d"]) == pytest.approx(3.125)


def test_cider_is_that_of_pycocoevalcap():
    responses, references = ([pair[side] for pair in GOLDEN["pairs"]] for side in ("response", "reference"))
    frequency = document_frequency(references)
    found = [item_score(r, t, frequency, len(references)) for r, t in zip(responses, references, strict=True)]
    assert found == pytest.approx([pair["score"] for pair in GOLDEN["pairs"]], rel=1e-13, abs=1e-13)
    assert cider_d(responses, references) == pytest.approx(GOLDEN["mean"], rel=1e-13)
    assert sum(0 < score < 10 for score in found) > len(found) / 2


def test_ciders_length_penalty_by_hand():
    # "a b" repeated: clipped counts give, for unigrams, dot 2 L^2 over (2 sqrt 2 L)(sqrt 2 L) = 1/2 with L = log 2.
    # Bigrams said: "a b" twice and "b a" once (df 0 counts as 1, idf log 2): dot L^2 over (sqrt 5 L) L = 1 / sqrt 5.
    want = 10 * math.exp(-(2**2) / 72) * (1 / 2 + 1 / math.sqrt(5)) / 4
    assert item_score("a b a b", "a b", document_frequency(["a b", "c d"]), 2) == pytest.approx(want)


def test_ngrams_of_every_reference_weigh_nothing():
    assert cider_d(["the end", "the end"], ["the x", "the y"]) == 0


def test_wordings_that_differ_get_less_and_negation_is_not_seen():
    assert rouge_l_f1("effusion is seen on the left", REFERENCES[0]) > 0.9
    assert sentence_bleu("something else", REFERENCES[0]) < 10


WORDS = st.lists(st.sampled_from(["no", "No", "effusion", "the", "left.", "1", "e-e", ""]), max_size=40)


@given(WORDS, WORDS)
def test_rouge_l_is_that_of_rouge_score(one, other):
    said, true = " ".join(one), ", ".join(other)
    assert rouge_l_f1(said, true) == RougeScorer(["rougeL"]).score(true, said)["rougeL"].fmeasure


def test_the_longest_common_subsequence_by_hand():
    assert num_common("abcbdab", "bdcaba") == 4  # Cormen et al., "bcba"
    assert num_common("a" * 70 + "b", "b" + "a" * 70) == 70  # across the border of a machine word
    assert num_common("", "abc") == num_common("abc", "def") == 0


@pytest.mark.parametrize("metric", ["rouge_l", "bleu"])
def test_overlap_is_a_reward_by_name(metric):
    reward = load_reward("report_overlap", metric=metric)
    assert reward(REFERENCES[0], answer=REFERENCES[0], facts=None) == pytest.approx(1)
    assert reward("", answer=REFERENCES[0], facts=None) == 0
    assert reward("word " * 100_000, answer="word", facts=None) < 0.01


def test_overlap_is_held_to_the_facts_as_far_as_the_reference_tells_them():
    known = '"findings":{"effusion":{"polarity":"present","side":"left"},"nodule":{"polarity":"absent"}}'
    truth = '{"rule_set":"chest_xray@1",' + known + "}"
    reference = "There is an effusion on the left."
    assert report_overlap(reference, reference, truth) == 1.0
    assert report_overlap("There is an effusion on the right.", reference, truth) == 0.0
    assert report_overlap(reference, reference, truth.replace(known, '"findings":{}')) == 1.0
    assert report_overlap("Clear.", "Clear.", truth) == 1.0


@given(st.lists(st.text(alphabet="ab c", max_size=20), min_size=1, max_size=4))
def test_cider_stays_within_bounds(texts):
    assert 0 <= cider_d(texts, list(reversed(texts))) <= 10 + 1e-9


def test_unequal_numbers_are_refused():
    with pytest.raises(ValueError, match="2 responses for 1 references"):
        report_metrics(["a", "b"], ["a"])


def test_meteor_is_there_only_with_wordnet(tmp_path, monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    assert set(report_metrics(REFERENCES, REFERENCES)) == {"bleu", "rouge_l", "cider_d"}
    (tmp_path / "corpora/wordnet").mkdir(parents=True)
    assert has_wordnet()


@pytest.mark.parametrize("text", ["右肺结节影", "Перелом ребра слева", "Épanchement pleural gauche", "左肺に結節"])
def test_a_perfect_answer_is_perfect_in_any_script(text):
    assert rouge_l_f1(text, text) == 1.0
    assert cider_d([text, "x"], [text, "x"]) > 0
    assert corpus_bleu([text * 4], [text * 4]) == pytest.approx(100)


def test_accents_and_characters_part_words():
    assert rouge_l_f1("Épanchement gauche", "panchement gauche") == pytest.approx(1 / 2)
    assert rouge_l_f1("右肺结节", "左肺结节") == pytest.approx(3 / 4)
    assert bleu_counts("右肺结节", "左肺结节")["bleu_matches_1"] == 3
