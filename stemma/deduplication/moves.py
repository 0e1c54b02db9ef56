"""What a change of documents does to the candidate pairs: which buckets propose now, and which propose no more.

It costs as much as the members that change are compared with, and not as much as the buckets that they are in.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from stemma.deduplication.candidates import coded, decoded, limits_of, shared_rows
from stemma.deduplication.runs import differs
from stemma.hashing import halves, stored_keys

# Pairs looked at at a time: some 200 MB.
PAIRS = 1 << 22


class _Time(NamedTuple):
    """A bucket's members at a time, row by row: whether it is one, its place, and whether it is among the first."""

    present: np.ndarray
    place: np.ndarray
    first: np.ndarray


def shared_members(rows: pa.Table, *, directed: bool) -> pa.Table:
    """Return the rows of buckets with several members, bucket by bucket, and tell where the order of members matters.

    `rows` has all members of its buckets, before a change and after: bucket (uint64 or uint32), was and stays (bool:
    whether it is a member before and after), and more. A column `ordered` (bool) is added: in small buckets all members
    are compared, and unless it matters which of a pair comes first (`directed`), their places don't.
    """
    shared = rows.take(pa.array(shared_rows(rows["bucket"].to_numpy())))
    starts = np.flatnonzero(differs(shared["bucket"].to_numpy()))
    sizes = np.maximum(*(_sums(flags(shared, when), starts) for when in ("was", "stays")))
    ordered = np.ones(len(sizes), bool) if directed else limits_of(sizes) < sizes - 1
    members = np.diff(starts, append=shared.num_rows)
    return shared.append_column("ordered", pa.array(np.repeat(ordered, members), pa.bool_()))


def moved_pairs(rows: pa.Table, *, directed: bool) -> pa.Table:
    """Return how many buckets more propose each pair after a change than before, where that differs.

    `rows` is what `shared_members` returns, of rows with
    - bucket (uint64 or uint32), member (int64), rank (int64) and asks (bool), see `Buckets`; unless `directed`, all
      ask; a member that is in a bucket twice asks if it does once;
    - was and stays (bool): whether it is a member before and after, one of them at least;
    - changes (bool): whether it may come to another place among the members;
    - before and after (int64): places in the order of priority, which decide after the rank, at either time, where
      the row is `ordered`.

    Returns first and second (int64 members; unless `directed`, the smaller one first) and buckets (int64): what
    `bucket_pairs` says of the members after, less what it says of those before.
    """
    rows = _each_once(rows)
    starts = np.flatnonzero(differs(rows["bucket"].to_numpy()))
    bucket = np.repeat(np.arange(len(starts)), np.diff(starts, append=rows.num_rows))
    ordered = flags(rows, "ordered")
    times = [_at_time(rows, bucket, ordered, *when) for when in (("was", "before"), ("stays", "after"))]
    before, after = times
    changes = np.where(
        ordered, flags(rows, "changes") | (before.first != after.first), before.present != after.present
    )
    member, asks = rows["member"].to_numpy(), flags(rows, "asks")
    codes, buckets = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for x, y in _compared(bucket, changes, before.first | after.first):
        for time, count in zip(times, (-1, 1), strict=True):
            is_second = time.place[x] > time.place[y]
            second, first = np.where(is_second, x, y), np.where(is_second, y, x)
            proposed = time.present[x] & time.present[y] & (time.first[x] | time.first[y]) & asks[second]
            pairs = member[first[proposed]], member[second[proposed]]
            codes.append(coded(*pairs) if directed else coded(np.minimum(*pairs), np.maximum(*pairs)))
            buckets.append(np.full(len(codes[-1]), count))
    return _counted(np.concatenate(codes), np.concatenate(buckets))


def summed_pairs(parts: list[pa.Table]) -> pa.Table:
    """Return the pairs of several tables (a, b: uuid; buckets: int64), each once with its sum of buckets, if any."""
    pairs = pa.concat_tables(parts)
    if sum(part.num_rows > 0 for part in parts) < 2:
        return pairs
    codes = pair_keys(pairs).dictionary_encode().indices.to_numpy()
    _codes, firsts = np.unique(codes, return_index=True)
    sums = np.zeros(len(firsts), np.int64)
    np.add.at(sums, codes, pairs["buckets"].to_numpy())
    once = pairs.take(pa.array(firsts)).set_column(2, "buckets", pa.array(sums))
    return once.filter(pa.array(sums != 0))


def pair_keys(pairs: pa.Table) -> pa.Array:
    """Return one key (binary(32)) of each pair of nodes (a, b: uuid)."""
    sides = [halves(stored_keys(pairs[side])) for side in "ab"]
    keys = pa.py_buffer(np.concatenate(sides, axis=1))
    return pa.Array.from_buffers(pa.binary(32), pairs.num_rows, [None, keys])


def nodes_of(pairs: pa.Table) -> pa.Array:
    """Return the nodes (binary(16)) of pairs (a, b: uuid), those of a first."""
    return pa.concat_arrays([stored_keys(pairs[side]) for side in "ab"])


def _each_once(rows: pa.Table) -> pa.Table:
    """Put the rows of each member of a bucket together; the buckets stay in their order."""
    bucket, member = rows["bucket"].to_numpy(), rows["member"].to_numpy()
    order = np.lexsort((member, bucket))
    firsts = np.flatnonzero(differs(bucket[order]) | differs(member[order]))
    if len(firsts) == len(order):
        return rows
    asks = np.logical_or.reduceat(flags(rows, "asks")[order], firsts)
    place = rows.schema.get_field_index("asks")
    return rows.take(pa.array(order[firsts])).set_column(place, "asks", pa.array(asks))


def _at_time(rows: pa.Table, bucket: np.ndarray, ordered: np.ndarray, when: str, order: str) -> _Time:
    present, place, limits = (
        flags(rows, when),
        np.zeros(len(bucket), np.int64),
        np.ones(len(bucket), np.int64),
    )
    placed = np.flatnonzero(ordered & present)
    by = [column.to_numpy()[placed] for column in (rows[order], rows["rank"])]
    placed = placed[np.lexsort((*by, bucket[placed]))]
    starts = np.flatnonzero(differs(bucket[placed]))
    sizes = np.diff(starts, append=len(placed))
    place[placed] = np.arange(len(placed)) - np.repeat(starts, sizes)
    limits[placed] = np.repeat(limits_of(sizes), sizes)
    return _Time(present, place, present & (place < limits))


def _compared(
    bucket: np.ndarray, changes: np.ndarray, first: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs (rows x and y of one bucket) of which one changes and one is among the first; each pair once."""
    order = np.lexsort((~first, bucket))
    starts = np.flatnonzero(differs(bucket))
    every, firsts = np.diff(starts, append=len(bucket)), _sums(first, starts)
    changing = order[changes[order]]
    lengths = np.where(first[changing], every[bucket[changing]], firsts[bucket[changing]])
    block = np.cumsum(lengths) // PAIRS
    for rows in np.split(np.arange(len(changing)), np.flatnonzero(differs(block)[1:]) + 1):
        length = lengths[rows]
        x = np.repeat(changing[rows], length)
        depth = np.arange(len(x)) - np.repeat(np.cumsum(length) - length, length)
        y = order[starts[bucket[x]] + depth]
        # Where both change, each looks at the other.
        kept = (x != y) & ~(changes[y] & (x > y))
        yield x[kept], y[kept]


def _counted(codes: np.ndarray, buckets: np.ndarray) -> pa.Table:
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(differs(codes[order]))
    sums = _sums(buckets[order], starts)
    pairs = decoded(codes[order[starts[sums != 0]]])
    return pa.table({"first": pairs[:, 0], "second": pairs[:, 1], "buckets": sums[sums != 0]})


def flags(rows: pa.Table, name: str) -> np.ndarray:
    """Return a column of booleans (bool), as Arrow or DuckDB has them."""
    # DuckDB may give booleans of a byte each, which NumPy takes for numbers.
    return rows[name].to_numpy(zero_copy_only=False).astype(bool, copy=False)


def _sums(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Sum values from each start to the next: int64[starts]."""
    return np.add.reduceat(values, starts, dtype=np.int64) if len(starts) else np.empty(0, np.int64)
