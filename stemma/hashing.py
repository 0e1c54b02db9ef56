"""Identity by content: every id and hash in Stemma is a UUID made of the first 128 bits of a SHA-256.

`sha256sum FILE | cut -c1-32` gives the same digits, and so does `sha256(x)[:32]::UUID` in DuckDB.
"""

import hashlib
from collections.abc import Iterable

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
