"""Documents inside others: samples, who is compared with whom, and the exact containment."""

import random
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sentences import SENTENCES
from test_deduplication import licences, near_copies, shingles_in_plain_python

from stemma.deduplication.buckets import Buckets
from stemma.deduplication.containment import (
    CONTAINED,
    contained_buckets,
    contained_scores,
    plausible_contained,
    sign_contained,
)
from stemma.deduplication.shingles import shingle_sets

Pairs = set[tuple[int, int]]


def proposed(buckets: Buckets, names: Sequence[str], *, witnesses: int = 64) -> Pairs:
    """The engine's use of buckets, a member at a time: (earlier, later) where the later asks."""
    members: dict[int, list[tuple[int, str, int, bool]]] = {}
    for key, row, rank, asks in zip(*(column.tolist() for column in buckets), strict=True):
        members.setdefault(key, []).append((rank, names[row], row, asks))
    pairs: Pairs = set()
    for bucket in members.values():
        bucket.sort()
        for place, (_, _, later, asks) in enumerate(bucket):
            if asks:
                pairs.update((first[2], later) for first in bucket[: min(place, witnesses)])
    return pairs


def signed(texts: list[str], **parameters: int) -> pa.Table:
    return sign_contained(pa.table({"text": pa.array(texts, pa.string())}), **parameters)


def containment_in_plain_python(a: set, b: set) -> float:
    return len(a & b) / len(b) if b else 0.0


def array(pairs: Pairs | list[tuple[int, int]]) -> np.ndarray:
    return np.array(list(pairs), np.int64).reshape(-1, 2)


def found_pairs(
    texts: list[str], threshold: float, *, witnesses: int = 64, **parameters: int
) -> dict[tuple[int, int], float]:
    """The way from texts to verified pairs (container, contained)."""
    table = signed(texts, **parameters)
    pairs = array(proposed(contained_buckets(table), texts, witnesses=witnesses))
    pairs = pairs[plausible_contained(table, pairs, threshold)]
    scores = contained_scores(texts, pairs)
    is_contained = scores >= threshold
    return dict(zip(map(tuple, pairs[is_contained].tolist()), scores[is_contained].tolist(), strict=True))


def true_pairs(texts: list[str], threshold: float, min_shingles: int = 50) -> dict[tuple[int, int], float]:
    """All pairs (container, contained), compared one by one; of equal sizes the first by text contains."""
    sets = [shingles_in_plain_python(text) for text in texts]
    order = sorted(range(len(texts)), key=lambda place: (-len(sets[place]), texts[place]))
    scores = {
        (a, b): containment_in_plain_python(sets[a], sets[b])
        for place, b in enumerate(order)
        if len(sets[b]) >= min_shingles
        for a in order[:place]
    }
    return {pair: score for pair, score in scores.items() if score >= threshold}


def quoting_documents(count: int, seed: int) -> list[str]:
    """Random texts, half of which quote most of an earlier one with a few words exchanged."""
    choose = random.Random(seed)
    vocabulary = [f"word{number}" for number in range(3000)] + ["été", "слово", "λόγος", "語"]
    texts: list[list[str]] = []
    for _ in range(count):
        text = choose.choices(vocabulary, k=choose.randrange(54, 300))
        if texts and choose.random() < 0.5:
            quoted = list(choose.choice(texts))
            del quoted[: choose.randrange(len(quoted) // 10 + 1)]
            for _ in range(choose.randrange(len(quoted) // 60 + 2)):
                quoted[choose.randrange(len(quoted))] = choose.choice(vocabulary)
            place = choose.randrange(len(text))
            text[place:place] = quoted
        texts.append(text)
    return [" ".join(text) for text in texts]


# --- samples


def test_a_sample_is_the_hashes_below_the_limit():
    texts = [*near_copies(60, seed=3), *SENTENCES.values(), "", "one", "word " * 100]
    table = signed(texts, min_shingles=20)
    assert table.schema == CONTAINED
    for row, text, members in zip(table.to_pylist(), texts, shingle_sets(texts), strict=True):
        count = len(shingles_in_plain_python(text))
        expected = [value for value in members.tolist() if value * 20 < 6 << 64]
        assert row["shingles"] == count
        assert (row["signature"] is None) == (count < 20)
        if count >= 20:
            assert np.frombuffer(row["signature"], "<u8").tolist() == expected


def test_sampling_does_not_depend_on_the_batch_or_the_writing():
    texts = [*near_copies(200, seed=2), *SENTENCES.values(), "", "?", "größe " * 20_000]
    together = signed(texts).to_pylist()
    assert together == [row for text in texts for row in signed([text]).to_pylist()]
    assert together == signed(texts[::-1]).to_pylist()[::-1]
    assert together == signed([f"¡{text.replace(' ', ' — ')}!" for text in texts]).to_pylist()
    chunks = pa.chunked_array([texts[:7], [], texts[7:]], pa.large_string())
    assert sign_contained(pa.table({"text": chunks})).to_pylist() == together
    assert signed([]).schema == CONTAINED


def test_what_cannot_be_sampled_is_refused():
    with pytest.raises(ValueError, match="null"):
        sign_contained(pa.table({"text": ["a", None]}))
    with pytest.raises(ValueError, match="min_shingles"):
        signed(["a"], min_shingles=0)


def test_texts_that_are_too_short_are_in_no_bucket():
    buckets = contained_buckets(signed(["", "!", "one", " ".join(map(str, range(53)))]))
    assert buckets.keys.dtype == np.uint64
    assert [len(column) for column in buckets] == [0, 0, 0, 0]
    assert contained_buckets(signed([])).rows.tolist() == []
    assert set(contained_buckets(signed([" ".join(map(str, range(154)))])).rank.tolist()) == {-150}


# --- candidates


@pytest.mark.parametrize("containment", [0.8, 0.9])
@pytest.mark.parametrize("size", [50, 60, 80, 120, 250, 1000])
def test_samples_and_probes_suffice_for_recall(containment, size):
    """The probability that no probe is in the container, from samples that the code takes."""
    texts = [" ".join(f"{text} {word}" for word in range(size // 2 + 2)) for text in range(400)]
    table = signed(texts)
    assert set(table["shingles"].to_pylist()) == {size // 2 * 2}
    rate = np.mean([len(signature) / 8 / size for signature in table["signature"].to_pylist()])
    buckets = contained_buckets(table)
    probes = np.bincount(buckets.rows[buckets.asks]).max()
    sampled = np.arange(size + 1)
    missed = binom.pmf(sampled, size, rate) @ (1 - containment) ** np.minimum(sampled, probes)
    assert missed <= 0.01


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdé語"), max_size=60).map(" ".join), unique=True, max_size=12),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_proposed_pairs_are_those_of_the_definition_in_any_order(texts, probes, shuffler):
    shuffled = list(texts)
    shuffler.shuffle(shuffled)
    results = []
    for some in (texts, shuffled):
        buckets = contained_buckets(signed(some, shingle_words=2, min_shingles=5), probes=probes)
        results.append({(some[a], some[b]) for a, b in proposed(buckets, some)})
    members = shingle_sets(texts, shingle_words=2)
    sets = {text: set(hashes.tolist()) for text, hashes in zip(texts, members, strict=True)}
    order = sorted(
        (text for text in texts if len(sets[text]) >= 5), key=lambda text: (-len(sets[text]), text)
    )
    expected = {
        (a, b)
        for place, b in enumerate(order)
        for a in order[:place]
        if sets[a] & set(sorted(sets[b])[:probes])
    }
    assert results == [expected, expected]


@pytest.mark.parametrize(("threshold", "recall"), [(0.9, 0.99), (0.8, 0.97)])
def test_quotations_precision_and_recall(threshold, recall):
    texts = quoting_documents(500, seed=11)
    truth, found = true_pairs(texts, threshold), found_pairs(texts, threshold)
    assert len(truth) > 150
    assert found.items() <= truth.items()
    assert len(found) >= recall * len(truth)


def test_licences_precision_and_recall(shared):
    texts = list(dict.fromkeys(licences(shared)[::6]))
    similarities = true_pairs(texts, 0.8)
    for threshold, least in ((0.9, 1000), (0.8, 2000)):
        truth = {pair: score for pair, score in similarities.items() if score >= threshold}
        found = found_pairs(texts, threshold, witnesses=len(texts))
        assert len(truth) > least
        assert found.items() <= truth.items()
        assert len(found) >= 0.99 * len(truth)
        compared_with_few = found_pairs(texts, threshold)
        contained = {b for _, b in truth}
        assert len({b for _, b in compared_with_few}) >= 0.99 * len(contained)


def test_a_text_inside_another_in_every_script():
    choose = random.Random(4)
    for script, sentence in SENTENCES.items():
        words = sentence.split()
        inside = " ".join(choose.choices([*words, *map(str, range(100))], k=90))
        around = " ".join(choose.choices([*words, *map(str, range(100))], k=300))
        texts = [inside, f"{around}\n{inside}\n{around}", around]
        assert found_pairs(texts, 0.9).items() == true_pairs(texts, 0.9).items(), script
        assert (1, 0) in found_pairs(texts, 0.9), script


def test_fifty_thousand_equal_texts_have_a_linear_number_of_pairs():
    buckets = contained_buckets(
        pa.concat_tables([signed([" ".join(map(str, range(200)))])] * 50_000).combine_chunks()
    )
    names = [f"{number:05}" for number in range(50_000)]
    assert len(proposed(buckets, names, witnesses=2)) == 2 * 50_000 - 3


# --- scores


def test_containment_equals_python_sets():
    texts = [*near_copies(50, seed=5), *SENTENCES.values(), "", "!", "one", "one two"]
    sets = [shingles_in_plain_python(text) for text in texts]
    pairs = [(a, b) for a in range(len(texts)) for b in range(len(texts))]
    expected = [containment_in_plain_python(sets[a], sets[b]) for a, b in pairs]
    assert contained_scores(texts, array(pairs)).tolist() == expected
    assert contained_scores(texts, array([])).tolist() == []


def test_containment_has_a_direction():
    words = [str(number) for number in range(300)]
    texts = [" ".join(words), " ".join(words[100:200])]
    assert contained_scores(texts, array([(0, 1), (1, 0)])).tolist() == [1.0, 96 / 296]


@pytest.mark.parametrize("threshold", [0.7, 0.8, 0.9, 0.95])
def test_plausible_pairs_keep_nearly_every_pair_at_the_threshold(threshold):
    """A sample of a text contained to the threshold shares a binomial number of hashes with the container."""
    for size in (0, 1, 2, 6, 12, 50, 200, 1000):
        sample = np.arange(size, dtype="<u8")
        containers = [sample[:shared].tobytes() for shared in range(size + 1)]
        table = pa.table([pa.array([100] * (size + 2)), [sample.tobytes(), *containers]], schema=CONTAINED)
        pairs = np.stack((np.arange(1, size + 2), np.zeros(size + 1, np.int64)), axis=1)
        plausible = plausible_contained(table, pairs, threshold)
        fewest = int(np.argmax(plausible))
        assert plausible[fewest:].all()
        assert binom.cdf(fewest - 1, size, threshold) < 4e-6
    assert fewest > 0.9 * (threshold - 0.05) * size, "and reject what is far from it"
