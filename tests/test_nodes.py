"""What a change of documents does to nodes, versions and counted pairs, against plain Python."""

from collections import Counter
from uuid import UUID

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from stemma.deduplication.moves import nodes_of, pair_keys, summed_pairs
from stemma.deduplication.nodes import changed_nodes, entering_nodes, scoped_nodes, smallest_texts
from stemma.deduplication.versions import changed_versions
from stemma.hashing import digest, halves, stored_keys, uuid_array

# A few keys that differ in their first, their last, or some byte between, and sort otherwise if bytes were swapped.
KEYS = [bytes(15) + b"\1", b"\1" + bytes(15), bytes(7) + b"\1\2" + bytes(7), *map(digest, (b"a", b"b", b"c"))]
keys = st.sampled_from(KEYS)


def column(values: list[bytes]) -> pa.ChunkedArray:
    """Keys in two pieces, the second of which does not begin where its memory does."""
    array = uuid_array([KEYS[0], *values])
    middle = 1 + len(values) // 2
    return pa.chunked_array([array.slice(1, middle - 1), array.slice(middle)])


def documents(rows: list[tuple[bytes, ...]], *names: str) -> pa.Table:
    return pa.table({name: column([row[number] for row in rows]) for number, name in enumerate(names)})


@settings(deadline=None)
@given(st.lists(keys))
def test_halves_sort_as_the_bytes_do(values: list[bytes]) -> None:
    stored = stored_keys(column(values))
    assert stored.to_pylist() == values
    pairs = list(map(tuple, halves(stored).tolist()))
    assert [key for _pair, key in sorted(zip(pairs, values, strict=True))] == sorted(values)


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(0, 8), keys),
    st.dictionaries(st.integers(0, 8), keys),
    st.sets(st.integers(0, 8)),
)
def test_nodes_that_documents_come_to_or_leave(
    before: dict[int, bytes], arriving: dict[int, bytes], leaving: set[int]
) -> None:
    names = {number: digest(b"%d" % number) for number in range(9)}
    # What comes with another text leaves as well.
    went = {number: node for number, node in before.items() if number in leaving | arriving.keys()}
    after = {number: node for number, node in before.items() if number not in went} | arriving
    touched = {*arriving.values(), *went.values()}
    standing = {number: node for number, node in before.items() if node in touched}
    changed = changed_nodes(
        *(
            documents([(names[number], node) for number, node in each.items()], "document_id", "node")
            for each in (arriving, went, standing)
        )
    )
    found = {row["node"].bytes: (row["was"], row["stays"]) for row in changed.to_pylist()}
    assert found == {node: (node in before.values(), node in after.values()) for node in touched}


@settings(deadline=None)
@given(st.lists(st.tuples(keys, keys, st.sampled_from(["x", "y"])), min_size=1), st.sets(keys))
def test_each_node_enters_with_its_smallest_text(
    rows: list[tuple[bytes, bytes, str]], known: set[bytes]
) -> None:
    came = documents(rows, "node", "text_hash").append_column("source", pa.array([row[2] for row in rows]))
    nodes = list(dict.fromkeys(row[0] for row in rows))
    changed = documents([(node,) for node in nodes], "node").append_column(
        "was", pa.array([node in known for node in nodes], pa.bool_())
    )
    entering = entering_nodes(came, changed).to_pylist()
    assert sorted(row["node"].bytes for row in entering) == sorted(nodes)
    for row in entering:
        texts = [(text, source) for node, text, source in rows if node == row["node"].bytes]
        assert row["input_hash"].bytes == min(text for text, _source in texts)
        assert (row["input_hash"].bytes, row["source"]) in texts
        assert row["known"] == (row["node"].bytes in known)


def test_of_no_documents_there_are_no_texts_and_no_nodes() -> None:
    nothing = documents([], "document_id", "node", "text_hash")
    assert smallest_texts(nothing).num_rows == 0
    assert changed_nodes(nothing, nothing, nothing).num_rows == 0
    assert len(scoped_nodes(stored_keys(nothing["node"]), pa.chunked_array([], pa.string()))) == 0


def test_equal_texts_of_two_sources_are_two_nodes() -> None:
    # Texts that say what their sources are called.
    asked = pa.array([KEYS[3], KEYS[3], KEYS[3], KEYS[4], None], pa.binary(16))
    a, again, b, other, none = scoped_nodes(asked, pa.chunked_array([["a", "a", "b", "a", "a"]])).to_pylist()
    assert a == again
    assert len({a, b, other}) == 3
    assert none is None
    assert scoped_nodes(asked.slice(3, 1), pa.chunked_array([["b"]])).to_pylist() != [a]
    # Whatever else there is: a node is named by its text and its source.
    assert scoped_nodes(asked.slice(2, 1), pa.chunked_array([["b"]])).to_pylist() == [b]


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(keys, keys, st.integers(-3, 3)))))
def test_pairs_of_several_parts_add_up(parts: list[list[tuple[bytes, bytes, int]]]) -> None:
    # Of one part each pair stands there once, with what is not zero.
    parts = [[(a, b, n) for (a, b), n in {(a, b): n for a, b, n in part if n}.items()] for part in parts]
    tables = [
        documents(part, "a", "b").append_column("buckets", pa.array([row[2] for row in part], pa.int64()))
        for part in [*parts, []]
    ]
    sums: Counter = Counter()
    for a, b, n in (row for part in parts for row in part):
        sums[a, b] += n
    found = summed_pairs(tables)
    rows = {(row["a"].bytes, row["b"].bytes): row["buckets"] for row in found.to_pylist()}
    assert rows == {pair: n for pair, n in sums.items() if n}
    assert len(rows) == found.num_rows == len(set(pair_keys(found).to_pylist()))
    assert nodes_of(found).to_pylist() == [a for a, _b in rows] + [b for _a, b in rows]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([None, *KEYS]))))
def test_versions_follow_the_texts_of_documents(history: list[tuple[int, bytes | None]]) -> None:
    names = {number: digest(b"%d" % number) for number in range(5)}
    kept: list[dict] = []
    live: dict[int, bytes] = {}
    expected: dict[int, list[bytes]] = {number: [] for number in names}
    for number, text in history:
        if text is None:
            live.pop(number, None)
        else:
            if live.get(number) != text:
                expected[number].append(text)
            live[number] = text
        known = documents([(row["id"], row["text"]) for row in kept], "document_id", "text_hash")
        known = known.append_column("version", pa.array([row["version"] for row in kept], pa.int64()))
        known = known.append_column("current", pa.array([row["current"] for row in kept], pa.bool_()))
        rows = [(names[each], text) for each, text in live.items()]
        ended, begun = changed_versions(documents(rows, "document_id", "text_hash"), known)
        assert not any(end and not row["current"] for end, row in zip(ended, kept, strict=True))
        for row, end in zip(kept, ended, strict=True):
            row["current"] &= not end
        for row in begun.to_pylist():
            fact = {"id": row["document_id"].bytes, "text": row["text_hash"].bytes, "version": row["version"]}
            kept.append(fact | {"current": True})
        assert {(row["id"], row["text"]) for row in kept if row["current"]} == set(rows)
    for number, texts in expected.items():
        versions = [(row["version"], row["text"]) for row in kept if row["id"] == names[number]]
        assert versions == list(enumerate(texts, 1))


def test_keys_are_those_of_python() -> None:
    assert [UUID(bytes=key) for key in KEYS] == uuid_array(KEYS).to_pylist()
