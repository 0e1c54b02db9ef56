"""datasketch's LSHBloom: whether a signature resembles any that was seen before, without knowing which.

Khan et al. 2024 (arXiv 2411.04257). A Bloom filter for each band takes a few bytes a document, whatever its length;
but nothing can be taken out of it again, what it says is not verified, and it names no witness.
"""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

# A filter's false positives come on top of those of the bands; with 14 bands 0.00014 of the documents.
FALSE_POSITIVES = 1e-5


def open_filters(folder: Path | None, *, threshold: float, permutations: int, documents: int) -> Any:
    """Open or make datasketch's MinHashLSHBloom in a folder (None: in memory), for so many documents.

    Its bands are those of datasketch's own optimum for the threshold: 14 of 9 rows at 0.7 with 128 permutations.
    Raises ImportError where the package pybloomfilter3 (the extra `bloom`) is not installed.
    """
    from datasketch import MinHashLSHBloom

    settings: dict[str, Any] = {"num_perm": permutations, "n": documents, "fp": FALSE_POSITIVES}
    settings["save_dir"] = None if folder is None else str(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            return MinHashLSHBloom(threshold=threshold, **settings)
        except ValueError:
            # Next to 1 a single band would be best, which datasketch refuses.
            return MinHashLSHBloom(params=(2, permutations // 2), **settings)


def seen_before(filters: Any, signatures: np.ndarray, always: Iterable[bool]) -> np.ndarray:
    """Ask and fill the filters, one signature (a row of uint32[n, permutations]) after the other.

    Returns whether each resembles one before it (bool[n]); those are not added, but where `always` says so they
    are taken as new without being asked.
    """
    from datasketch import MinHash

    seen = np.zeros(len(signatures), bool)
    permutations = MinHash(num_perm=signatures.shape[1], scheme="affine32").permutations
    for place, (values, new) in enumerate(zip(signatures, always, strict=True)):
        sketch = MinHash(
            num_perm=len(values),
            hashvalues=values,
            permutations=permutations,
            scheme="affine32",
        )
        seen[place] = not new and filters.query(sketch)
        if not seen[place]:
            filters.insert(sketch)
    return seen
