"""The cleaner of the peers' flows. `benchmarks/peers.py` edits a copy of this file, as its owner would."""

import unicodedata

from polishing import polish

# A document with this in it makes the cleaner fail.
POISON = "No cleaner survives this sentence."


def clean(text: str) -> str:
    """NFC, and every run of white space one space. Raises ValueError for a document with `POISON` in it."""
    if POISON in text:
        raise ValueError("poison")
    text = " ".join(unicodedata.normalize("NFC", text).split())
    return polish(text)
