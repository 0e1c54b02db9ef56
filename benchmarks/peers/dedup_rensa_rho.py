"""rensa's fastest way, sketches of sampled shingles: it flags texts that resemble another, and names no pair."""

from dedup_common import PERMUTATIONS, THRESHOLD, measure, shingles
from dedup_rensa import BANDS


def find(texts: list[str]) -> None:
    from rensa import RMinHash, RMinHashLSH

    matrix = RMinHash.digest_matrix_from_token_sets_rho(
        [list(shingles(text)) for text in texts], PERMUTATIONS, 42
    )
    RMinHashLSH(THRESHOLD, PERMUTATIONS, BANDS).query_duplicate_flags_matrix_one_shot(matrix)


if __name__ == "__main__":
    measure(find, "rensa")
