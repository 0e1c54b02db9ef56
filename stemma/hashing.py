"""Identity by content: every id and hash in Stemma is a UUID made of the first 128 bits of a SHA-256.

`sha256sum FILE | cut -c1-32` gives the same digits, and so does `sha256(x)[:32]::UUID` in DuckDB.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

UUID = pa.uuid()


def digest(data: bytes) -> bytes:
    """Return the first 16 bytes of the SHA-256 of `data`."""
    return hashlib.sha256(data).digest()[:16]


def key(*parts: str | bytes) -> bytes:
    """Return the 16-byte digest of a sequence of parts; ("ab", "c") and ("a", "bc") differ."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.digest()[:16]


def uuid_array(digests: Iterable[bytes | None]) -> pa.ExtensionArray:
    """Wrap 16-byte digests (None for null) as an Arrow array of type uuid."""
    storage = pa.array(list(digests), type=pa.binary(16))
    return pa.ExtensionArray.from_storage(UUID, storage)


def hash_texts(texts: Iterable[str | None]) -> pa.ExtensionArray:
    """Hash each text's UTF-8 bytes; null stays null. Raises UnicodeEncodeError on lone surrogates."""
    return uuid_array(None if text is None else digest(text.encode()) for text in texts)


def stored_keys(keys: pa.ChunkedArray) -> pa.Array:
    """Return a column of keys (uuid) as they are stored: binary(16), in one piece."""
    return keys.cast(pa.binary(16)).combine_chunks()


def halves(keys: pa.Array) -> np.ndarray:
    """Return keys (binary(16), none null) as pairs of integers (uint64[n, 2]), which sort as their bytes do."""
    found = np.frombuffer(keys.buffers()[1] or b"", ">u8", 2 * len(keys), 16 * keys.offset)
    return found.astype(np.uint64).reshape(-1, 2)
