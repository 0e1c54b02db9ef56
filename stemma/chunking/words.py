"""The words of joined texts and their hashes, the same on every machine."""

from functools import cache

import numpy as np
import numpy.typing as npt

from stemma.chunking.characters import SINGLE, WORD
from stemma.chunking.joined import Joined, Positions

Hashes = npt.NDArray[np.uint64]

# Odd, so that it has an inverse modulo 2^64 and the hash of a word doesn't depend on where it stands.
HASH_BASE = 0x9E3779B97F4A7C15
_BASE_INVERSE = pow(HASH_BASE, -1, 1 << 64)
_CASED_CODES = 0x2C00  # Latin, Greek, Cyrillic, Armenian, Georgian: the scripts with cases, but for rarities


def find_words(joined: Joined) -> tuple[Positions, Positions]:
    """Return start and end of each word; where there are no spaces each character is one."""
    in_word = (joined.flags & WORD) != 0
    edges = np.flatnonzero(in_word[1:] != in_word[:-1]) + 1
    single = np.flatnonzero(joined.flags & SINGLE)
    if not len(single):
        return edges[::2], edges[1::2]
    starts = np.concatenate((edges[::2], single))
    ends = np.concatenate((edges[1::2], single + 1))
    order = np.argsort(starts, kind="stable")
    return starts[order], ends[order]


def word_hashes(joined: Joined, starts: Positions, ends: Positions) -> Hashes:
    """Hash each word, case ignored, as a polynomial of its code points: a difference of prefix sums modulo 2^64."""
    powers, inverses = _powers(1 << int(len(joined.codes) - 1).bit_length())
    codes = _lower_table()[np.minimum(joined.codes, _CASED_CODES)].astype(np.uint64)
    uncased = joined.codes >= _CASED_CODES
    codes[uncased] = joined.codes[uncased]
    sums = np.cumsum(codes * powers[: len(codes)], dtype=np.uint64)
    return mixed((sums[ends - 1] - sums[starts - 1]) * inverses[starts])


def mixed(hashes: Hashes) -> Hashes:
    """Spread every bit over all others (the finaliser of SplitMix64)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


@cache
def _powers(count: int) -> tuple[Hashes, Hashes]:
    def powers_of(base: int) -> Hashes:
        factors = np.full(count, base, dtype=np.uint64)
        factors[0] = 1
        return np.cumprod(factors, dtype=np.uint64)

    return powers_of(HASH_BASE), powers_of(_BASE_INVERSE)


@cache
def _lower_table() -> npt.NDArray[np.uint32]:
    """Return the lower-case form of each code point up to `_CASED_CODES` if that is one character."""
    lowered = (chr(code).lower() for code in range(_CASED_CODES + 1))
    codes = [ord(each) if len(each) == 1 else code for code, each in enumerate(lowered)]
    return np.array(codes, dtype=np.uint32)
