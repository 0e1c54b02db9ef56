"""Nodes, each of them what is one text after normalisation: what a change of documents does to them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stemma.deduplication.runs import differs
from stemma.hashing import UUID, halves, key, stored_keys


def changed_nodes(came: pa.Table, went: pa.Table, standing: pa.Table) -> pa.Table:
    """Return the nodes that documents come to or leave: node (uuid), was and stays (bool).

    `came` and `went` have document_id and node (uuid) of the documents that come and leave, and `standing` those of
    all documents that were of these nodes, the ones that leave among them. `was` tells whether there was a document
    of a node, `stays` whether there is one in the end.
    """
    nodes = pa.concat_arrays([stored_keys(came["node"]), stored_keys(standing["node"])]).dictionary_encode()
    codes = nodes.indices.to_numpy()
    arrived, stood = codes[: came.num_rows], codes[came.num_rows :]
    leaves = pc.is_in(stored_keys(standing["document_id"]), stored_keys(went["document_id"]))
    was, stays = np.zeros(len(nodes.dictionary), bool), np.zeros(len(nodes.dictionary), bool)
    was[stood] = True
    stays[arrived] = True
    stays[stood[~leaves.to_numpy(zero_copy_only=False)]] = True
    node = pa.ExtensionArray.from_storage(UUID, nodes.dictionary)
    return pa.table({"node": node, "was": pa.array(was), "stays": pa.array(stays)})


def entering_nodes(came: pa.Table, changed: pa.Table) -> pa.Table:
    """Return the nodes that documents come to: node, input_hash (uuid), source (string) and known (bool).

    `came` has node, text_hash (uuid) and source of the documents that come, and `changed` is what `changed_nodes`
    returned. input_hash is the smallest text_hash that comes, source one of theirs; `known` says that there was a
    document of the node before.
    """
    rows = smallest_texts(came)
    was = changed["was"].take(pc.index_in(stored_keys(rows["node"]), stored_keys(changed["node"])))
    return pa.table(
        {"node": rows["node"], "input_hash": rows["text_hash"], "source": rows["source"], "known": was}
    )


def smallest_texts(documents: pa.Table) -> pa.Table:
    """Return the documents (node and text_hash: uuid) that have the smallest text_hash of those of their node."""
    nodes = stored_keys(documents["node"]).dictionary_encode()
    codes = nodes.indices.to_numpy()
    chosen = np.empty(len(nodes.dictionary), np.int64)
    chosen[codes] = np.arange(len(codes))
    # Most nodes have one document.
    rows = np.flatnonzero(np.bincount(codes, minlength=1)[codes] > 1)
    texts = halves(stored_keys(documents["text_hash"].take(pa.array(rows))))
    rows = rows[np.lexsort((texts[:, 1], texts[:, 0], codes[rows]))]
    firsts = rows[differs(codes[rows])]
    chosen[codes[firsts]] = firsts
    return documents.take(pa.array(chosen))


def scope_bits(sources: pa.ChunkedArray) -> np.ndarray:
    """Return bits that stand for each source (string): uint64[n, 2]."""
    names = sources.combine_chunks().dictionary_encode()
    # Bits that no text has: or "a" in a source named "a" would be what "b" is in one named "b".
    bits = b"".join(key("the scope of a source", name) for name in names.dictionary.to_pylist())
    return np.frombuffer(bits, np.uint64).reshape(-1, 2)[names.indices.to_numpy()]


def scoped_nodes(nodes: pa.Array, sources: pa.ChunkedArray) -> pa.Array:
    """Return nodes (binary(16)) of one source each (string): equal texts of two sources are two nodes then."""
    data = nodes.buffers()[1] or b""
    bits = np.frombuffer(data, np.uint64, 2 * len(nodes), 16 * nodes.offset).reshape(-1, 2)
    scoped = pa.py_buffer(bits ^ scope_bits(sources))
    mask = nodes.is_null().to_numpy(zero_copy_only=False)
    found = pa.Array.from_buffers(pa.binary(16), len(nodes), [None, scoped])
    return found.take(pa.array(np.arange(len(nodes)), mask=mask))
