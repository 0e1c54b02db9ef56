"""datasketch, in bulk: MinHash.bulk, one index, a query for each text."""

from dedup_common import PERMUTATIONS, THRESHOLD, measure, shingles


def find(texts: list[str]) -> list[tuple[int, int]]:
    from datasketch import MinHash, MinHashLSH

    sketches = MinHash.bulk(
        [[shingle.encode() for shingle in shingles(text)] for text in texts], num_perm=PERMUTATIONS
    )
    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    with index.insertion_session() as session:
        for number, sketch in enumerate(sketches):
            session.insert(number, sketch)
    return [
        (other, number)
        for number, sketch in enumerate(sketches)
        for other in index.query(sketch)
        if other < number and sketch.jaccard(sketches[other]) >= THRESHOLD
    ]


if __name__ == "__main__":
    measure(find, "datasketch", "numpy")
