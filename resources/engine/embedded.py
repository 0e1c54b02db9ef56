"""embedded: a vector for each chunk; each distinct text is embedded once."""

from stemma.hashing import key
from stemma.resources.engine.chunked import CHUNK_TEXTS
from stemma.resources.engine.rowwise import Bodies, RowDataset, segments_of
from stemma.resources.engine.run import Run
from stemma.resources.engine.setup import Setup
from stemma.resources.memo import quoted


def embedded(setup: Setup) -> RowDataset:
    """Return how embedded is made of the chunks."""
    stage = setup.embed
    desired = """(SELECT document_id, chunk_id AS part, text_hash AS input_hash, input_hash AS body_hash, ordinal,
        tokens, hash(text_hash) AS origin FROM state.chunked)"""
    embed_recipe = setup.recipe(stage)
    return RowDataset(
        name="embedded",
        upstream="chunked",
        key="chunk_id",
        stage=stage,
        desired=desired,
        current="(SELECT document_id, chunk_id AS part, origin FROM state.embedded)",
        bodies=_bodies,
        fresh=lambda run, located: _fresh(located, setup.embedder.name, embed_recipe),
        recipe=key("embedded", embed_recipe).hex(),
    )


def _bodies(run: Run) -> Bodies:
    def relation(missing: str) -> str:
        store = segments_of(run, run.setup.chunk)
        places = f"{missing}_places"
        store.locate(
            run.warehouse.connection, f"(SELECT DISTINCT body_hash AS input_hash FROM {missing})", places
        )
        texts = store.bodies(run.warehouse.connection, places, CHUNK_TEXTS)
        # Texts of one length share the shape of their batches, and a batch of all lengths fills up many shapes.
        return f"""(SELECT m.input_hash, t.text FROM {texts} AS t
            JOIN {missing} AS m ON t.input_hash = m.body_hash AND t.ordinal = m.ordinal ORDER BY m.tokens DESC)"""

    return relation


def _fresh(located: str, model: str, embed_recipe: str) -> str:
    """The rows of state.embedded for the documents in scope; another recipe makes every row another row."""
    return f"""
        SELECT part AS chunk_id, document_id, {quoted(model)} AS model, input_hash AS text_hash, origin,
            hash(part, document_id, input_hash, {quoted(embed_recipe)}) AS row_hash
        FROM scope SEMI JOIN (FROM {located} WHERE error IS NULL) USING (input_hash)"""
