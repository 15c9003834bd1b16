"""Overlap of reports with references: BLEU (sacrebleu), ROUGE-L (rouge-score), CIDEr-D, METEOR where its data are.

They reward wording and are blind to negation: read ``factuality`` beside them. Of rouge-score, its words and its F1;
its table of all pairs of words would take minutes and gigabytes for texts of 10,000 words.
"""

from collections.abc import Sequence

from rewards.reports.cider import cider_d, spaced, words

BLEU_ORDER = 4


def report_metrics(responses: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Corpus BLEU (0-100), mean ROUGE-L F1 (0-1), CIDEr-D (0-10), and mean METEOR (0-1) where WordNet is installed.

    Raises: ValueError if the two differ in number or are empty.

    >>> sorted(report_metrics(["No effusion. Heart is normal."], ["No effusion. Heart is normal."]))[:2]
    ['bleu', 'cider_d']
    """
    found = {"cider_d": cider_d(responses, references), "bleu": corpus_bleu(responses, references)}
    scores = [rouge_l_f1(r, t) for r, t in zip(responses, references, strict=True)]
    found["rouge_l"] = sum(scores) / len(scores)
    if has_wordnet():
        found["meteor"] = sum(map(meteor, responses, references)) / len(references)
    return found


def corpus_bleu(responses: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU with sacrebleu's 13a tokens and exponential smoothing, in lower case, 0-100."""
    import sacrebleu

    return float(sacrebleu.corpus_bleu([*map(spaced, responses)], [[*map(spaced, references)]], lowercase=True).score)


def sentence_bleu(response: str, reference: str) -> float:
    """BLEU of one text with effective order (short texts are not 0 for want of 4-grams), 0-100."""
    import sacrebleu

    return float(
        sacrebleu.sentence_bleu(spaced(response), [spaced(reference)], lowercase=True, use_effective_order=True).score
    )


def bleu_counts(response: str, reference: str) -> dict[str, float]:
    """Counts of one text that add up over texts to those of corpus BLEU: matched and all n-grams, words of both sides.

    >>> {name: n for name, n in bleu_counts("No effusion.", "No large effusion.").items() if n and "_1" in name}
    {'bleu_matches_1': 3.0, 'bleu_ngrams_1': 3.0}
    """
    import sacrebleu

    found = sacrebleu.corpus_bleu([spaced(response)], [[spaced(reference)]], lowercase=True)
    matched = {f"bleu_matches_{n}": float(count) for n, count in enumerate(found.counts, start=1)}
    ngrams = {f"bleu_ngrams_{n}": float(count) for n, count in enumerate(found.totals, start=1)}
    return {**matched, **ngrams, "bleu_words": float(found.sys_len), "bleu_reference_words": float(found.ref_len)}


def bleu_of(sums: Sequence[float], order: int) -> float:
    """BLEU up to n-grams of an order, 0-1, of counts added up over texts.

    ``sums``: matched n-grams by order, then all of them, then the words of the responses and of the references.
    """
    from sacrebleu.metrics.bleu import BLEU

    matched, ngrams = ([int(n) for n in sums[k : k + order]] for k in (0, order))
    words, reference_words = (int(n) for n in sums[2 * order :])
    if not words:
        return 0.0
    score = BLEU.compute_bleu(
        matched, ngrams, sys_len=words, ref_len=reference_words, smooth_method="exp", max_ngram_order=order
    )
    return float(score.score) / 100


def rouge_l_f1(response: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, 0-1."""
    from rouge_score.scoring import fmeasure

    candidate, true = _rouge_words(response), _rouge_words(reference)
    if not candidate or not true:
        return 0.0
    common = num_common(candidate, true)
    return float(fmeasure(common / len(candidate), common / len(true)))


def _rouge_words(text: str) -> list[str]:
    """Words as rouge-score has them; of a text beyond ASCII, of which that keeps none, runs of letters and digits."""
    from rouge_score.tokenize import tokenize

    return tokenize(text, None) if text.isascii() else words(text)


def num_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence (Hyyro 2004, "Bit-parallel LCS-length computation revisited").

    A column of the usual table is one number, whose bit k is 0 where word k of ``one`` lengthens the sequence; a word
    of ``other`` is four operations on it. 100,000 words against as many take about a second.

    >>> num_common("the heart is not large".split(), "the heart is large".split())
    4
    """
    one, other = sorted((one, other), key=len)  # a number for each word of the shorter
    positions: dict[str, int] = {}
    for k, word in enumerate(one):
        positions[word] = positions.get(word, 0) | 1 << k
    full = column = (1 << len(one)) - 1
    for word in other:
        if matches := column & positions.get(word, 0):
            column = (column + matches | column - matches) & full
    return len(one) - column.bit_count()


def has_wordnet() -> bool:
    """Whether nltk's WordNet, without which METEOR is not METEOR, is installed; nothing is downloaded."""
    import nltk

    for name in ("corpora/wordnet", "corpora/wordnet.zip"):
        try:
            nltk.data.find(name)
        except LookupError:
            continue
        return True
    return False


def meteor(response: str, reference: str) -> float:
    """METEOR of one text by nltk, 0-1."""
    from nltk.translate.meteor_score import single_meteor_score

    return float(single_meteor_score(words(reference), words(response)))
