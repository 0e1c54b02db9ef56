"""Families of near-duplicate documents: MinHash LSH proposes, exact Jaccard over word shingles decides.

The way of a corpus: `sign` each text; `band_keys` of the signatures, by `band_parameters`; `candidate_pairs`
of what shares a band; `jaccard` of the candidates' `shingle_sets`; and `families` of the pairs above the
threshold. Every step is a pure function of the texts, so that incremental runs equal a rebuild.
"""

from stemma.deduplication.buckets import Buckets
from stemma.deduplication.candidates import (
    band_keys,
    band_parameters,
    bucket_pairs,
    candidate_pairs,
    counted_pairs,
    plausible_pairs,
)
from stemma.deduplication.families import FAMILIES, Policy, families
from stemma.deduplication.shingles import jaccard, shingle_sets
from stemma.deduplication.signatures import SIGNED, sign, signature_array, sketch_array

__all__ = [
    "FAMILIES",
    "SIGNED",
    "Buckets",
    "Policy",
    "band_keys",
    "band_parameters",
    "bucket_pairs",
    "candidate_pairs",
    "counted_pairs",
    "families",
    "jaccard",
    "plausible_pairs",
    "shingle_sets",
    "sign",
    "signature_array",
    "sketch_array",
]
