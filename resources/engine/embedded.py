"""embedded: a vector for each chunk; each distinct text is embedded once."""

import functools

import pyarrow as pa

from stemma.config import Config
from stemma.hashing import key
from stemma.incremental.recipe import recipe
from stemma.incremental.stage import Stage
from stemma.resources.embedder import Embedder
from stemma.resources.engine.chunked import CHUNK_TEXTS, chunk_stage
from stemma.resources.engine.rowwise import Bodies, RowDataset, segments_of
from stemma.resources.engine.run import Run
from stemma.resources.memo import quoted


def embed_stage(embedder: Embedder) -> Stage:
    """Return the embedding stage of an embedder."""
    return Stage(
        name="embed",
        function=embedder.function,
        parameters=embedder.parameters,
        inputs=pa.schema([("text", pa.string())]),
        outputs=pa.schema([pa.field("embedding", pa.list_(pa.float32(), embedder.dimensions))]),
        libraries=embedder.libraries,
        digests=embedder.digests,
        load=embedder.load,
    )


def embedded(config: Config, embedder: Embedder) -> RowDataset:
    """Return how embedded is made of the chunks."""
    stage = embed_stage(embedder)
    desired = """(SELECT document_id, chunk_id AS part, text_hash AS input_hash, input_hash AS body_hash, ordinal,
        hash(text_hash) AS origin FROM state.chunked)"""
    embed_recipe = recipe(stage)
    return RowDataset(
        name="embedded",
        upstream="chunked",
        key="chunk_id",
        stage=stage,
        desired=desired,
        current="(SELECT document_id, chunk_id AS part, origin FROM state.embedded)",
        bodies=functools.partial(_bodies, config=config, embedder=embedder),
        fresh=lambda run, located: _fresh(located, embedder.name, embed_recipe),
        recipe=key("embedded", embed_recipe).hex(),
    )


def _bodies(run: Run, config: Config, embedder: Embedder) -> Bodies:
    def relation(missing: str) -> str:
        store = segments_of(run, chunk_stage(config, embedder))
        places = f"{missing}_places"
        store.locate(
            run.warehouse.connection, f"(SELECT DISTINCT body_hash AS input_hash FROM {missing})", places
        )
        texts = store.bodies(places, CHUNK_TEXTS)
        return f"""(SELECT m.input_hash, t.text FROM {missing} AS m
            JOIN {texts} AS t ON t.input_hash = m.body_hash AND t.ordinal = m.ordinal)"""

    return relation


def _fresh(located: str, model: str, embed_recipe: str) -> str:
    """The rows of state.embedded for the documents in scope; another recipe makes every row another row."""
    return f"""
        SELECT part AS chunk_id, document_id, {quoted(model)} AS model, input_hash AS text_hash, origin,
            hash(part, document_id, input_hash, {quoted(embed_recipe)}) AS row_hash
        FROM scope SEMI JOIN (FROM {located} WHERE error IS NULL) USING (input_hash)"""
