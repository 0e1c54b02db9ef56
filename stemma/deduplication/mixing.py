"""Bijective integer mixers: they spread structured values evenly, so that no two different inputs collide."""

import numpy as np


def mix64(values: np.ndarray) -> np.ndarray:
    """Mix uint64 values in place with the 64-bit finaliser of MurmurHash3; returns the same array."""
    values ^= values >> np.uint64(33)
    values *= np.uint64(0xFF51AFD7ED558CCD)
    values ^= values >> np.uint64(33)
    values *= np.uint64(0xC4CEB9FE1A85EC53)
    values ^= values >> np.uint64(33)
    return values


def mix32(values: np.ndarray) -> np.ndarray:
    """Mix uint32 values in place with the 32-bit finaliser of MurmurHash3; returns the same array."""
    values ^= values >> np.uint32(16)
    values *= np.uint32(0x85EBCA6B)
    values ^= values >> np.uint32(13)
    values *= np.uint32(0xC2B2AE35)
    values ^= values >> np.uint32(16)
    return values
