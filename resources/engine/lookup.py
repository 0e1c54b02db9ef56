"""Near-duplicates in the corpus of texts that are not in it: from the index, or by comparing all documents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stemma.deduplication import shingle_sets, sign
from stemma.deduplication.shingles import overlaps
from stemma.resources.engine.duplicates.index import PAIRS, indexes, stored_buckets
from stemma.resources.engine.duplicates.layers import NUMBERS, Layer, index_recipe, layers
from stemma.resources.engine.run import Run, load_rows

# Nodes that are compared with a text: those that share most buckets with it, which are the most similar ones.
COMPARED_NODES = 2_000
# Texts of documents in memory together.
COMPARED_TEXTS = 512


@dataclass(frozen=True)
class Match:
    """A document of the corpus and how much of a new text it has.

    Attributes:
        similarity: exact Jaccard similarity of their word shingles.
        of_text: share of the new text's shingles that the document has.
        of_document: share of the document's shingles that the new text has.
    """

    document_id: UUID
    similarity: float
    of_text: float
    of_document: float

    @property
    def order(self) -> tuple[float, float, UUID]:
        """By which matches are sorted, the best first."""
        return -self.similarity, -self.of_text, self.document_id


def near_layer(run: Run) -> Layer | None:
    """Return the layer whose buckets hold near-duplicates, None where no source asks for it."""
    return next((layer for layer in layers(run.setup) if layer.name == "near"), None)


def why_not_indexed(run: Run) -> str | None:
    """Return why the index cannot be asked; None where it can."""
    settings = run.config.deduplicate
    if settings.index != "lsh" or near_layer(run) is None:
        return "there is no index of near-duplicates"
    if settings.scope != "global":
        return "the index is one for each source"
    if not run.warehouse.state_path.exists():
        return "the index is gone"
    with run.warehouse.session() as connection:
        if indexes(connection).get(PAIRS) != index_recipe(run.setup):
            return "the index was made by other settings or another version; 'stemma run' makes it anew"
    return None


def indexed(run: Run, texts: Sequence[str], most: int) -> list[tuple[int, UUID]]:
    """Return (position of the text, document) for what shares a bucket, or has the same words.

    Of documents that have the same words `most` are named, kept ones first. Nothing is written. Pairs below the
    layer's threshold may be missing.
    """
    layer = near_layer(run)
    assert layer is not None
    signed = sign(pa.table({"text": pa.array(texts, pa.string())}), **run.setup.sign.parameters)
    signed = signed.append_column("number", pa.array(range(len(texts)), pa.int64()))
    signed = signed.filter(pc.is_valid(signed["signature"]))
    buckets = layer.buckets(signed.select(["signature"]))
    numbers = signed["number"].to_numpy()[buckets.rows]
    with run.warehouse.session() as connection:
        load_rows(connection, "asked", pa.table({"number": numbers, "bucket": stored_buckets(buckets.keys)}))
        load_rows(connection, "asked_nodes", signed.select(["number", "norm_hash"]))
        return connection.execute(
            f"""WITH shared AS (SELECT number, node, count(*) AS buckets
                    FROM state.dedup_bands JOIN asked USING (bucket) WHERE layer = {NUMBERS["near"]}
                    GROUP BY number, node
                    QUALIFY row_number() OVER (PARTITION BY number ORDER BY buckets DESC, node) <= {COMPARED_NODES}),
                nodes AS (SELECT number, node FROM shared UNION SELECT number, norm_hash FROM asked_nodes)
            SELECT number, document_id
            FROM nodes JOIN state.dedup_documents USING (node) LEFT JOIN state.deduplicated USING (document_id)
            QUALIFY row_number() OVER (PARTITION BY number, node ORDER BY kept DESC NULLS LAST, document_id) <= ?
            ORDER BY number, document_id""",
            [most],
        ).fetchall()


def compared(
    published: duckdb.DuckDBPyConnection,
    texts: Sequence[str],
    candidates: Sequence[tuple[int, UUID]] | None,
    *,
    most: int,
    shingle_words: int,
) -> list[list[Match]]:
    """Return for each text the `most` best matches among its candidates, or among all documents (None).

    A text without words has none. The texts of documents come from the published corpus; what is not in it is no match.
    """
    sets = shingle_sets(texts, shingle_words=shingle_words)
    wanted: dict[UUID, list[int]] = {}
    for number, document in candidates or ():
        wanted.setdefault(document, []).append(number)
    best: list[list[Match]] = [[] for _ in texts]
    everyone = [number for number, shingles in enumerate(sets) if len(shingles)]
    for documents, bodies in _texts(published, None if candidates is None else list(wanted)):
        asked = [wanted.get(document, everyone) for document in documents]
        for number, match in _matches(
            sets, documents, shingle_sets(bodies, shingle_words=shingle_words), asked
        ):
            best[number].append(match)
        best = [sorted(matches, key=lambda match: match.order)[:most] for matches in best]
    return best


def _texts(
    published: duckdb.DuckDBPyConnection, documents: list[UUID] | None
) -> Iterator[tuple[list[UUID], list[str]]]:
    """Yield the ids and cleaned texts of documents, or of all there are."""
    if documents is None:
        cursor = published.execute("SELECT document_id, text FROM corpus.cleaned")
    else:
        published.execute(
            "CREATE OR REPLACE TEMP TABLE wanted AS SELECT unnest(?::UUID[]) AS document_id", [documents]
        )
        cursor = published.execute(
            "SELECT document_id, text FROM corpus.cleaned SEMI JOIN wanted USING (document_id)"
        )
    for batch in cursor.to_arrow_reader(COMPARED_TEXTS):
        yield batch["document_id"].to_pylist(), batch["text"].to_pylist()


def _matches(
    sets: Sequence[np.ndarray],
    documents: Sequence[UUID],
    document_sets: Sequence[np.ndarray],
    asked: Sequence[Sequence[int]],
) -> Iterator[tuple[int, Match]]:
    """Yield (position of the text, match) for each document and each text that asks for it."""
    pairs = np.array(
        [(number, len(sets) + place) for place, numbers in enumerate(asked) for number in numbers], np.int64
    ).reshape(-1, 2)
    everything = [*sets, *document_sets]
    for (number, place), shared in zip(pairs.tolist(), overlaps(everything, pairs).tolist(), strict=True):
        sizes = len(everything[number]), len(everything[place])
        union = sum(sizes) - shared
        similarity = shared / union if union else 0.0
        of_text, of_document = (shared / size if size else 0.0 for size in sizes)
        yield number, Match(documents[place - len(sets)], similarity, of_text, of_document)
