"""The versions that the text of a document had: which of them end, and which begin."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stemma.deduplication.moves import flags
from stemma.hashing import stored_keys


class Versions(NamedTuple):
    """What becomes of versions: the rows of those that end (bool), and of those that begin (a table)."""

    ended: np.ndarray
    begun: pa.Table


def changed_versions(live: pa.Table, known: pa.Table) -> Versions:
    """Return which known versions end, and which begin: document_id, version (int64), text_hash.

    `live` has document_id (uuid, unique) and text_hash (uuid) of documents as they are, and `known` all versions of
    these and of others that may be gone: document_id, version (int64), text_hash and current (bool: it has not ended;
    one of a document at most). A version ends that is not the text of the document any more; one begins for each text
    that is no current version, numbered on from the last one of its document.
    """
    current = np.flatnonzero(flags(known, "current"))
    ids, texts = (
        [stored_keys(live[name]), stored_keys(known[name])] for name in ("document_id", "text_hash")
    )
    place = pc.index_in(ids[0], ids[1].take(pa.array(current)))
    stands = pc.equal(texts[0], texts[1].take(pa.array(current)).take(place)).fill_null(False)
    stands = stands.to_numpy(zero_copy_only=False)
    ended = np.zeros(known.num_rows, bool)
    ended[current] = True
    ended[current[place.to_numpy(zero_copy_only=False)[stands].astype(np.int64)]] = False
    begun = live.select(["document_id", "text_hash"]).filter(pa.array(~stands))
    last = np.zeros(begun.num_rows + 1, np.int64)
    document = pc.index_in(ids[1], stored_keys(begun["document_id"])).fill_null(begun.num_rows).to_numpy()
    np.maximum.at(last, document, known["version"].to_numpy())
    return Versions(ended, begun.add_column(1, "version", pa.array(last[:-1] + 1)))
