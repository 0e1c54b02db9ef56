"""Pages of the sample corpus that share their navigation are no near-duplicates once they are cleaned."""

import re
from itertools import combinations

import numpy as np
import pytest

from stemma.cleaning.extraction.html import extract_html
from stemma.deduplication.candidates import band_keys, band_parameters, candidate_pairs, plausible_pairs
from stemma.deduplication.shingles import distinct_shingles, jaccard, shingle_sets
from stemma.deduplication.signatures import minhash
from stemma.deduplication.tokens import words_of

THRESHOLD = 0.7
PERMUTATIONS = 128


@pytest.fixture(scope="module")
def pages(shared) -> dict[str, str]:
    folder = shared / "data" / "a1_sample_registry" / "snapshot_1"
    return {str(path.relative_to(folder)): path.read_text("utf-8") for path in sorted(folder.rglob("*.html"))}


def similar(texts: list[str]) -> set[tuple[int, int]]:
    """The pairs whose five-word shingles have at least the threshold's Jaccard similarity, all compared."""
    pairs = np.array(list(combinations(range(len(texts)), 2)))
    return {tuple(pair) for pair in pairs[jaccard(shingle_sets(texts), pairs) >= THRESHOLD].tolist()}


def candidates(texts: list[str]) -> set[tuple[int, int]]:
    """The pairs that deduplication compares exactly: those in one bucket with an estimate near the threshold."""
    shingles, sizes = distinct_shingles(words_of(texts), 5)
    signatures = minhash(shingles, sizes, PERMUTATIONS, seed=1)
    bands, rows = band_parameters(THRESHOLD, PERMUTATIONS)
    keys = band_keys(signatures, bands, rows)
    members = np.repeat(np.arange(len(texts)), bands)
    pairs = candidate_pairs(keys.ravel(), members)
    return {tuple(pair) for pair in pairs[plausible_pairs(signatures, pairs, THRESHOLD)].tolist()}


def own_text(page: str) -> str:
    """What a page of SQLite says below its navigation, which ends with the last script of its head."""
    return re.sub(r"<[^<>]*>", " ", page[page.rfind("</script>") :])


@pytest.mark.parametrize("profile", ["default", "fast"])
def test_pairs_that_share_only_navigation_are_gone(pages, profile):
    """Of the 222 pairs that are alike with all that is on them (238 by another splitter of words, in the
    corpus's description), 28 have near-duplicate content too, such as a release and its patch a week later.
    """
    names = list(pages)
    whole = [re.sub(r"<[^<>]*>", " ", page) for page in pages.values()]
    with_navigation = similar(whole)
    content = [own_text(page) for page in pages.values()]
    alike = similar(content)
    assert len(with_navigation) == 222
    assert len(alike) == 28
    only_navigation = with_navigation - alike
    assert len(only_navigation) == 194
    assert all(names[a].startswith("sqlite/") and names[b].startswith("sqlite/") for a, b in only_navigation)

    texts = [extract_html(page, profile=profile).text for page in pages.values()]
    cleaned = similar(texts)
    assert not cleaned & only_navigation
    assert cleaned <= alike
    assert len(cleaned) >= 25
    # What is left to compare has text of its own in common.
    pairs = candidates(texts)
    assert cleaned <= pairs
    left = np.array(sorted(pairs & only_navigation))
    assert only_navigation <= candidates(whole)
    assert len(left) < 20
    assert jaccard(shingle_sets(content), left).min() > 0.3
