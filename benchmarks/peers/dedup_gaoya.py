"""gaoya: its index with its own word 5-grams, in Rust; inserted and queried in bulk, on all cores."""

from dedup_common import PERMUTATIONS, SHINGLE_WORDS, THRESHOLD, measure


def find(texts: list[str]) -> list[tuple[int, int]]:
    from gaoya.minhash import MinHashStringIndex

    index = MinHashStringIndex(
        32,
        THRESHOLD,
        num_bands=None,
        band_size=None,
        num_hashes=PERMUTATIONS,
        analyzer="word",
        lowercase=True,
        ngram_range=(SHINGLE_WORDS, SHINGLE_WORDS),
        id_container="vec",
    )
    index.par_bulk_insert_docs(list(range(len(texts))), texts)
    return [
        (other, number)
        for number, others in enumerate(index.par_bulk_query(texts))
        for other in others
        if other < number
    ]


if __name__ == "__main__":
    measure(find, "gaoya")
