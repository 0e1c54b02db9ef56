"""The embedding function of the peers' flows, to be edited as well."""

import hashlib

import numpy as np

DIMENSIONS = 384


def vectors_of(texts: list[str]) -> np.ndarray:
    """One float32 row of `DIMENSIONS` numbers and length 1 for each text, made of its SHAKE-256 bytes.

    Deterministic, and next to free, so that the engine's own cost shows.
    """
    digests = b"".join(hashlib.shake_256(text.encode()).digest(DIMENSIONS) for text in texts)
    vectors = np.frombuffer(digests, np.uint8).reshape(len(texts), DIMENSIONS).astype(np.float32) - 127.5
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
