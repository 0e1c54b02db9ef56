"""Short texts that differ by a few characters: MinHash over trigrams proposes, the edit distance decides.

Texts are compared by their words, joined by spaces where their script has spaces. An edit changes at most
three trigrams, so texts of a high ratio share most of them (the q-gram lemma of Ukkonen, 1992), and a
MinHash index finds them.
"""

import re
from collections.abc import Sequence
from functools import cache

import numpy as np
import pyarrow as pa

from stemma.deduplication.buckets import Buckets
from stemma.deduplication.candidates import PAIRS, band_keys, plausible_pairs
from stemma.deduplication.mixing import mix64
from stemma.deduplication.signatures import TEXTS, minhash, signature_array
from stemma.deduplication.tokens import UNSPACED, normal_forms, word_blocks

EDIT = pa.schema([pa.field("characters", pa.int32()), pa.field("signature", pa.binary())])

# Enough for 40 bands of 4 rows: they find 0.992 to 0.999 of the pairs at a ratio of 0.9, depending on how the
# edits are spread; 32 bands find 0.976 to 0.999.
PERMUTATIONS = 160

# How probably a pair at the lowest similarity that its ratio allows is to share a band. Few pairs are so low.
RECALL = 0.945

# A character of a compared form takes up to four bytes in the normal form, and a space.
LONGEST_CHARACTER = 5

PADDING = "\0\0"
MULTIPLIER = np.uint64(0xD6E8FEB86659FD93)


def sign_edit(
    table: pa.Table, *, max_characters: int = 256, permutations: int = PERMUTATIONS, seed: int = 1
) -> pa.Table:
    """Sign the short texts of the column `text` (string): one row out for each row in, in the same order.

    Returns the columns
    - characters (int32): length of the compared form (see `compared_forms`) in code points;
    - signature (binary): MinHash signature of its trigrams, `permutations` uint32, little-endian.

    Both are null for a text without words and for one of more than `max_characters`. Raises ValueError if a
    text is null.
    """
    if table.column("text").null_count:
        raise ValueError("a text is null: only texts can be signed")
    batches = table.select(["text"]).to_batches(max_chunksize=TEXTS)
    signed = [
        _sign(batch.column("text").to_pylist(), max_characters, permutations, seed) for batch in batches
    ]
    return pa.Table.from_batches(signed, schema=EDIT)


def _sign(texts: Sequence[str], max_characters: int, permutations: int, seed: int) -> pa.RecordBatch:
    forms = compared_forms(texts, max_characters=max_characters)
    short = [place for place, form in enumerate(forms) if form]
    characters: list[int | None] = [None] * len(texts)
    signatures: list[bytes | None] = [None] * len(texts)
    if short:
        trigrams, sizes = _trigrams([forms[place] for place in short])
        for place, signature in zip(short, minhash(trigrams, sizes, permutations, seed), strict=True):
            characters[place] = len(forms[place])
            signatures[place] = signature.astype("<u4").tobytes()
    return pa.record_batch([pa.array(characters, pa.int32()), pa.array(signatures, pa.binary())], schema=EDIT)


def compared_forms(texts: Sequence[str], *, max_characters: int | None = None) -> list[str]:
    """Return each text's words (see `tokens`), joined by single spaces where their script has spaces.

    A space beside every Chinese character would make texts seem longer than they are, and their differences
    smaller. What has more than `max_characters` code points comes back empty, as does a text without words.
    """
    forms = [""] * len(texts)
    most = np.inf if max_characters is None else max_characters
    for positions, words in word_blocks(texts):
        for position, form in zip(positions.tolist(), normal_forms(words), strict=True):
            if len(form) <= LONGEST_CHARACTER * most:
                compared = _needless_spaces().sub(r"\1", form.decode())
                forms[position] = compared if len(compared) <= most else ""
    return forms


@cache
def _needless_spaces() -> re.Pattern[str]:
    unspaced = "".join(f"{chr(low)}-{chr(high)}" for low, high in UNSPACED)
    return re.compile(f"(?<![^ ])([{unspaced}][^ ]*) | (?=[{unspaced}])")


def _trigrams(forms: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hash the trigrams of each form, end to end, and return how many each has: its length and two.

    Two pads before and after let the ends count as much as the middle. A trigram that comes again is another
    one: so a text has as many as it has characters, and the lemma holds for "aaaa" too.
    """
    padded = PADDING + "".join(form + PADDING for form in forms)
    codes = np.frombuffer(padded.encode("utf-32-le"), "<u4").astype(np.uint64)
    trigrams = codes[:-2] << np.uint64(42) | codes[1:-1] << np.uint64(21) | codes[2:]
    sizes = np.fromiter((len(form) for form in forms), np.int64, len(forms)) + len(PADDING)
    order = np.lexsort((trigrams, np.repeat(np.arange(len(forms)), sizes)))
    ordered = trigrams[order]
    # In this order the first trigram of a text begins with a pad and the last of the text before it does not.
    firsts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    occurrences = np.arange(len(ordered)) - np.repeat(firsts, np.diff(firsts, append=len(ordered)))
    return mix64(mix64(ordered) + occurrences.astype(np.uint64) * MULTIPLIER), sizes


def lowest_jaccard(threshold: float) -> float:
    """Return the lowest Jaccard similarity of the trigrams of two texts of an edit ratio of `threshold`.

    With d edits the longer text of n characters keeps n + 2 - 3 d of its n + 2 trigrams, and the union has
    at most n + 2 + 3 d. With d = (1 - threshold) n the quotient falls with n towards the value returned.
    Raises ValueError if the threshold is not above 2/3 (then they need not share any) and at most 1.
    """
    if not 2 / 3 < threshold <= 1:
        raise ValueError(f"an edit threshold must be above 2/3 and at most 1, not {threshold}")
    return (3 * threshold - 2) / (4 - 3 * threshold)


def edit_bands(threshold: float, permutations: int = PERMUTATIONS) -> tuple[int, int]:
    """Return (bands, rows in a band): the most rows that find a pair at `lowest_jaccard` in RECALL of cases.

    With 160 permutations (26, 6) at 0.95, (40, 4) at 0.9 and (53, 3) at 0.85. `band_parameters`, with weights
    for recall, says (45, 3) at 0.9: among 100,000 sentences that led to 131 candidates a text instead of 19,
    and to fewer true pairs, because buckets grew beyond the 64 members that are compared. At 0.8, with 2 rows
    or 1, that is what happens here too.
    """
    least = lowest_jaccard(threshold)
    rows = permutations // 2
    while rows > 1 and 1 - (1 - least**rows) ** (permutations // rows) < RECALL:
        rows -= 1
    return permutations // rows, rows


def edit_buckets(signed: pa.Table, *, threshold: float = 0.9, permutations: int = PERMUTATIONS) -> Buckets:
    """Put each text with a signature into a bucket for each band; all ask, in the order of the engine."""
    rows = np.flatnonzero(signed.column("signature").is_valid().to_numpy())
    bands, height = edit_bands(threshold, permutations)
    keys = band_keys(signature_array(signed.column("signature").take(rows), permutations), bands, height)
    members = np.repeat(rows, bands)
    return Buckets(keys.ravel(), members, np.zeros(len(members), np.int64), np.ones(len(members), bool))


def plausible_edit(
    signed: pa.Table, pairs: np.ndarray, threshold: float, *, permutations: int = PERMUTATIONS
) -> np.ndarray:
    """Return which pairs (int64[m, 2], rows of `signed`) may have an edit ratio of `threshold` or more.

    A pair is plausible (bool[m]) unless the lengths alone need more edits, or the estimate of the similarity
    of the trigrams lies five standard deviations below the lowest one.
    """
    rows, places = np.unique(pairs, return_inverse=True)
    places = places.reshape(pairs.shape)
    used = signed.take(rows)
    lengths = used.column("characters").to_numpy()[places]
    is_close = 1 - (lengths.max(axis=1) - lengths.min(axis=1)) / lengths.max(axis=1) >= threshold
    signatures = signature_array(used.column("signature"), permutations)
    is_close[is_close] = plausible_pairs(signatures, places[is_close], lowest_jaccard(threshold))
    return is_close


def edit_scores(texts: Sequence[str], pairs: np.ndarray) -> np.ndarray:
    """Return the edit ratio (float64) of each pair (int64[m, 2], positions in `texts`).

    That is 1 - Levenshtein distance / length of the longer compared form (see `compared_forms`), and 0 for two
    texts without words. No cutoff is passed to rapidfuzz: it returns 0 for many a ratio equal to its cutoff
    (6 edits in 40 characters at 0.85).
    """
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cpdist

    forms = compared_forms(texts)
    scores = np.zeros(len(pairs))
    for start in range(0, len(pairs), PAIRS):
        block = pairs[start : start + PAIRS].tolist()
        scores[start : start + PAIRS] = cpdist(
            [forms[a] for a, _ in block],
            [forms[b] for _, b in block],
            scorer=Levenshtein.normalized_similarity,
            dtype=np.float64,
        )
    is_empty = np.fromiter((not form for form in forms), bool, len(forms))
    scores[is_empty[pairs].all(axis=1)] = 0
    return scores
