"""How the live documents differ from those that the index knows, and what that does to the nodes."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stemma.hashing import stored_keys


class Difference(NamedTuple):
    """How the live documents differ from those that the index knows. Both tables may name a document.

    Attributes:
        coming: the live ones that the index does not know as they are, in the order of place: see `live`, and row_hash.
        went: the rows of state.dedup_documents of those it knows otherwise.
        compared: see `compared`.
    """

    coming: pa.Table
    went: pa.Table
    compared: str

    def fresh(self) -> pa.Table:
        """Return what of `coming` has a text that it had not before."""
        return self.coming.filter(pa.array(self.before() < 0))

    def before(self) -> np.ndarray:
        """Return where in `went` each document of `coming` stood with the same text (int64); -1: it has another."""
        ids, texts = (
            [stored_keys(table[name]) for table in (self.coming, self.went)]
            for name in ("document_id", "text_hash")
        )
        stood = pc.index_in(ids[0], ids[1])
        alike = pc.equal(texts[0], texts[1].take(stood)).fill_null(False).to_numpy(zero_copy_only=False)
        return np.where(alike, stood.fill_null(-1).to_numpy(), -1)


class Change(NamedTuple):
    """What a difference does to the nodes.

    Attributes:
        came: the documents that come and are signed, as the rows of state.dedup_documents, and place.
        went: the rows that go: see `Difference`.
        nodes: those that documents come to or leave: see `changed_nodes`.
    """

    came: pa.Table
    went: pa.Table
    nodes: pa.Table

    @property
    def left(self) -> pa.Table:
        """The nodes that documents leave, and none comes to."""
        return self.nodes.filter(
            pc.invert(pc.is_in(stored_keys(self.nodes["node"]), stored_keys(self.came["node"])))
        )
