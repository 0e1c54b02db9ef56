"""Checksums of rows of Arrow arrays: what a disk or a cable has changed since they were written shows itself.

Each row of each column has one, so that whoever takes a few rows of a mapped file reads and checks these alone. They
find accidents; whoever may write the file can make them right again.
"""

from zlib import crc32

import numpy as np
import pyarrow as pa

# Fixed-width values up to this many bytes are mixed in whole columns; wider ones are worth a call of crc32 each.
NARROW_BYTES = 16
# Odd, so that multiplying by it loses nothing: 2^64 divided by the golden ratio.
_MIX = np.uint64(0x9E3779B97F4A7C15)
_NULL = 0x5BD1E995
_HALF = np.uint64(32)


def row_checksums(array: pa.Array, rows: np.ndarray) -> np.ndarray:
    """Return the checksums (uint32) of these rows (int64) of an array.

    Raises ValueError where the array points outside of its own data, and TypeError for a type that nobody stores.
    """
    if isinstance(array, pa.ExtensionArray):
        return row_checksums(array.storage, rows)
    if pa.types.is_null(array.type) or not len(rows):
        return np.full(len(rows), _NULL, np.uint32)
    if int(rows.max()) >= len(array):
        raise ValueError("fewer rows than it should have")
    valid = np.ones(len(rows), bool)
    if array.null_count:
        valid = array.is_valid().to_numpy(zero_copy_only=False)[rows]
    found = _values(array, rows, valid)
    found[~valid] = _NULL
    return found


def _values(array: pa.Array, rows: np.ndarray, valid: np.ndarray) -> np.ndarray:
    kind = array.type
    if pa.types.is_struct(kind):
        parts = [row_checksums(array.field(number), rows) for number in range(kind.num_fields)]
        return _together(parts, len(rows))
    if pa.types.is_map(kind):
        entries = pa.StructArray.from_arrays([array.keys, array.items], ["key", "value"])
        return _lists(array, entries, np.int32, rows, valid)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _lists(
            array, array.values, np.int64 if pa.types.is_large_list(kind) else np.int32, rows, valid
        )
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return _strings(array, np.int32, rows, valid)
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        return _strings(array, np.int64, rows, valid)
    if pa.types.is_fixed_size_list(kind):
        return _fixed_lists(array, kind, rows + array.offset)
    if pa.types.is_boolean(kind):
        return array.fill_null(False).to_numpy(zero_copy_only=False)[rows].astype(np.uint32) + np.uint32(1)
    if not (pa.types.is_primitive(kind) or pa.types.is_fixed_size_binary(kind)):
        raise TypeError(f"no checksum of {kind}")
    return _fixed(array, 1, kind.bit_width, rows)


def _offsets(
    array: pa.Array, kind: type, limit: int, rows: np.ndarray, valid: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return where rows begin and end in the data below; nulls are empty. Raises ValueError where that is nowhere."""
    buffer = array.buffers()[1]
    offsets: np.ndarray = np.frombuffer(buffer or b"", kind)
    places = rows + array.offset
    if len(places) and int(places.max()) + 1 >= len(offsets):
        raise ValueError("offsets are missing")
    starts, ends = offsets[places].astype(np.int64), offsets[places + 1].astype(np.int64)
    starts[~valid] = ends[~valid] = 0
    if (starts < 0).any() or (ends < starts).any() or (ends > limit).any():
        raise ValueError("an offset leads outside of the data")
    return starts, ends


def _strings(array: pa.Array, kind: type, rows: np.ndarray, valid: np.ndarray) -> np.ndarray:
    data = memoryview(array.buffers()[2] or b"")
    starts, ends = _offsets(array, kind, len(data), rows, valid)
    places = zip(starts.tolist(), ends.tolist(), strict=True)
    return np.fromiter((crc32(data[start:end]) for start, end in places), np.uint32, len(rows))


def _lists(array: pa.Array, values: pa.Array, kind: type, rows: np.ndarray, valid: np.ndarray) -> np.ndarray:
    starts, ends = _offsets(array, kind, len(values), rows, valid)
    lengths = ends - starts
    # The places of all values of all rows, row by row.
    firsts = np.cumsum(lengths) - lengths
    below = np.arange(int(lengths.sum()), dtype=np.int64) + np.repeat(starts - firsts, lengths)
    data = row_checksums(values, below).tobytes()
    places = zip((4 * firsts).tolist(), (4 * (firsts + lengths)).tolist(), strict=True)
    return np.fromiter((crc32(data[start:end]) for start, end in places), np.uint32, len(rows))


def _fixed_lists(array: pa.Array, kind: pa.FixedSizeListType, places: np.ndarray) -> np.ndarray:
    size, values = kind.list_size, array.values
    found = _fixed(values, size, kind.value_type.bit_width, places)
    if values.null_count:
        whole = len(values) // size * size
        valid = values.is_valid().to_numpy(zero_copy_only=False)[:whole].reshape(-1, size)[places]
        holes = np.flatnonzero(~valid.all(axis=1))
        found[holes] ^= np.array([crc32(np.packbits(row).tobytes()) for row in valid[holes]], np.uint32)
    return found


def _fixed(array: pa.Array, size: int, bits: int, rows: np.ndarray) -> np.ndarray:
    width = size * bits // 8
    data = memoryview(array.buffers()[1] or b"")
    starts = (rows + array.offset // size) * width
    if len(starts) and int(starts.max()) + width > len(data):
        raise ValueError("values are missing")
    if width > NARROW_BYTES:
        return np.fromiter((crc32(data[at : at + width]) for at in starts.tolist()), np.uint32, len(rows))
    table = np.frombuffer(data, np.uint8, len(data) // width * width).reshape(-1, width)[starts // width]
    words = np.zeros((len(rows), -(-width // 8) * 8), np.uint8)
    words[:, :width] = table
    return _together([_mixed(column) for column in words.view(np.uint64).T], len(rows))


def _mixed(words: np.ndarray) -> np.ndarray:
    return (((words ^ (words >> _HALF)) * _MIX) >> _HALF).astype(np.uint32)


def _together(parts: list[np.ndarray], count: int) -> np.ndarray:
    found = np.full(count, len(parts), np.uint32)
    for part in parts:
        found = found * np.uint32(0x01000193) + part
    return found
