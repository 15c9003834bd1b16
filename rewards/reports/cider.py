"""CIDEr-D (Vedantam et al. 2015, with the length penalty and clipping of its section 4), the consensus of n-grams.

On the same words equal to pycocoevalcap's to rounding (a golden test); kept by hand because that package brings 100 MB
of Java archives and pycocotools for these few lines. Words are lower-cased runs of letters and digits, where others put
a tokenizer of their own before it: figures then differ where punctuation and hyphens stand. One reference an item.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

ORDERS = (1, 2, 3, 4)
SIGMA = 6.0
SCALE = 10.0
UNSPACED = re.compile(r"([\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])")
Ngrams = Counter[tuple[str, ...]]


def cider_d(responses: Sequence[str], references: Sequence[str]) -> float:
    """Mean CIDEr-D of responses against their references, in [0, 10]; n-grams are weighed by their rarity in these.

    Raises: ValueError if the two differ in number or are empty.

    >>> cider_d(["the cat sat down", "a dog ran off"], ["the cat sat down", "a dog ran off"])
    10.0
    """
    if len(responses) != len(references) or not references:
        raise ValueError(
            f"{len(responses)} responses for {len(references)} references; give one for each, at least one."
        )
    frequency = document_frequency(references)
    scores = [item_score(r, t, frequency, len(references)) for r, t in zip(responses, references, strict=True)]
    return sum(scores) / len(scores)


def document_frequency(references: Sequence[str]) -> Ngrams:
    """In how many references each n-gram stands."""
    return Counter(gram for text in references for gram in ngrams(words(text)))


def item_score(response: str, reference: str, frequency: Ngrams, num_documents: int) -> float:
    """CIDEr-D of one response under the document frequencies of a corpus, in [0, 10]."""
    candidate, true = words(response), words(reference)
    penalty = math.exp(-((len(candidate) - len(true)) ** 2) / (2 * SIGMA**2))
    weights = [_weighted(ngrams(tokens), frequency, num_documents) for tokens in (candidate, true)]
    similarities = [_cosine(weights[0], weights[1], order) for order in ORDERS]
    return SCALE * penalty * sum(similarities) / len(ORDERS)


def words(text: str) -> list[str]:
    """Lower-cased runs of letters and digits; of scripts without spaces each character."""
    return re.findall(r"\w+", spaced(text).lower())


def spaced(text: str) -> str:
    """The text with blanks around characters of scripts that have none between words (Chinese, Japanese).

    >>> spaced("右肺 CT").split()
    ['右', '肺', 'CT']
    """
    return UNSPACED.sub(r" \1 ", text)


def ngrams(tokens: Sequence[str]) -> Ngrams:
    """Counts of the n-grams of one to four words."""
    return Counter(tuple(tokens[k : k + n]) for n in ORDERS for k in range(len(tokens) - n + 1))


def _weighted(counts: Ngrams, frequency: Ngrams, num_documents: int) -> dict[tuple[str, ...], float]:
    return {gram: count * math.log(num_documents / max(1, frequency[gram])) for gram, count in counts.items()}


def _cosine(candidate: dict[tuple[str, ...], float], true: dict[tuple[str, ...], float], order: int) -> float:
    """Clipped dot product over the norms: repeating an n-gram beyond the reference's count earns nothing."""
    norms = [math.sqrt(sum(v * v for gram, v in side.items() if len(gram) == order)) for side in (candidate, true)]
    if not norms[0] or not norms[1]:
        return 0.0
    dot = sum(min(v, true[gram]) * true[gram] for gram, v in candidate.items() if len(gram) == order and gram in true)
    return dot / (norms[0] * norms[1])
