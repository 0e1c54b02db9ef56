"""datasketch as its documentation shows it: a MinHash for each text, updated shingle by shingle."""

from dedup_common import PERMUTATIONS, THRESHOLD, measure, shingles


def find(texts: list[str]) -> list[tuple[int, int]]:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    sketches: list[MinHash] = []
    pairs: list[tuple[int, int]] = []
    for number, text in enumerate(texts):
        sketch = MinHash(num_perm=PERMUTATIONS)
        for shingle in shingles(text):
            sketch.update(shingle.encode())
        pairs.extend(
            (other, number) for other in index.query(sketch) if sketch.jaccard(sketches[other]) >= THRESHOLD
        )
        index.insert(number, sketch)
        sketches.append(sketch)
    return pairs


if __name__ == "__main__":
    measure(find, "datasketch", "numpy")
