"""rensa: R-MinHash of all texts in one call, its index, candidates checked by their sketches."""

from dedup_common import PERMUTATIONS, THRESHOLD, measure, shingles

# The permutations must be a multiple.
BANDS = 16


def find(texts: list[str]) -> list[tuple[int, int]]:
    from rensa import RMinHash, RMinHashLSH

    sketches = RMinHash.from_token_sets([list(shingles(text)) for text in texts], PERMUTATIONS, 42)
    index = RMinHashLSH(THRESHOLD, PERMUTATIONS, BANDS)
    index.insert_many(sketches)
    return [
        (other, number)
        for number, others in enumerate(index.query_all(sketches))
        for other in others
        if other < number and sketches[number].jaccard(sketches[other]) >= THRESHOLD
    ]


if __name__ == "__main__":
    measure(find, "rensa")
