"""Topics of a corpus: words that stand in the same documents, found as near-duplicates are.

A word is the set of the documents that have it. MinHash proposes words whose sets are alike, their exact Jaccard
similarity decides (Fuentes-Pineda & Meza-Ruiz 2019, "Topic discovery in massive text corpora based on Min-Hashing"),
and stars of words that resemble one word are the topics (Aslam, Pelekhov & Rus 2004, "The star clustering algorithm
for static and dynamic information organization").
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stemma.deduplication.candidates import band_keys, candidate_pairs
from stemma.deduplication.shingles import jaccard, sizes_of
from stemma.deduplication.signatures import minhash

Numbers = npt.NDArray[np.int64]
Documents = npt.NDArray[np.uint64]

# Words whose similarity is 0.3 share a band with a probability of 0.998, at 0.2 of 0.93.
BANDS, BAND_ROWS = 64, 2


@dataclass(frozen=True)
class Topic:
    """Words that stand in the same documents.

    Attributes:
        words: the one that the others resemble first, then the most similar ones.
        documents: numbers of the documents that have at least half of the words, ascending.
    """

    words: tuple[str, ...]
    documents: Numbers


def find_topics(
    words: Sequence[str],
    documents: Sequence[Documents],
    *,
    threshold: float = 0.2,
    least_words: int = 3,
    most_words: int = 10,
    seed: int = 1,
) -> list[Topic]:
    """Find the topics of a corpus, those of most documents first.

    Args:
        words: each once.
        documents: of each word the numbers of the documents that have it (uint64, sorted, at least one).
        threshold: the Jaccard similarity from which two words belong together.
        least_words: of a topic; smaller ones are left out.
        most_words: that are told of a topic.
        seed: of the MinHash permutations.

    Returns:
        Topics; each word is in one at most.
    """
    if not words:
        return []
    # The commonest words come first in a bucket, and all others are compared with them.
    order = sorted(range(len(words)), key=lambda place: (-len(documents[place]), words[place]))
    sets = [documents[place] for place in order]
    sizes = sizes_of(sets)
    signatures = minhash(np.concatenate(sets), sizes, BANDS * BAND_ROWS, seed)
    keys = band_keys(signatures, BANDS, BAND_ROWS)
    pairs = candidate_pairs(keys.ravel(), np.repeat(np.arange(len(sets)), BANDS))
    similarity = jaccard(sets, pairs)
    pairs, similarity = pairs[similarity >= threshold], similarity[similarity >= threshold]
    found = []
    for star in _stars(len(sets), pairs, similarity):
        if len(star) >= least_words:
            members = star[:most_words]
            about = _about([sets[member] for member in members])
            found.append(Topic(tuple(words[order[member]] for member in members), about))
    return sorted(found, key=lambda topic: (-len(topic.documents), topic.words))


def _stars(count: int, pairs: npt.NDArray[np.int64], similarity: npt.NDArray[np.float64]) -> list[list[int]]:
    """Return stars: a centre and what resembles it, most similar first. What resembles most others comes first."""
    ends = np.concatenate([pairs, pairs[:, ::-1]])
    weights = np.concatenate([similarity, similarity])
    order = np.lexsort((ends[:, 1], -weights, ends[:, 0]))
    ends, weights = ends[order], weights[order]
    bounds = np.searchsorted(ends[:, 0], np.arange(count + 1))
    degrees = np.bincount(ends[:, 0], weights, count)
    taken = np.zeros(count, bool)
    stars = []
    for centre in np.lexsort((np.arange(count), -degrees)).tolist():
        if taken[centre] or bounds[centre] == bounds[centre + 1]:
            continue
        around = ends[bounds[centre] : bounds[centre + 1], 1]
        around = around[~taken[around]]
        taken[around] = taken[centre] = True
        stars.append([centre, *around.tolist()])
    return stars


def _about(sets: Sequence[Documents]) -> Numbers:
    """Return the documents that are in at least half of the sets."""
    documents, counts = np.unique(np.concatenate(sets), return_counts=True)
    return documents[2 * counts >= len(sets)].astype(np.int64)
