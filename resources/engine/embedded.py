"""embedded: a vector for each chunk; each distinct text is embedded once (with the section that it stands in)."""

from stemma.hashing import key
from stemma.resources.engine.chunked import CHUNK_TEXTS
from stemma.resources.engine.rowwise import Bodies, RowDataset, segments_of, streamed
from stemma.resources.engine.run import Run
from stemma.resources.engine.setup import Setup
from stemma.resources.engine.vectors import derivation
from stemma.resources.memo import quoted


def embedded(setup: Setup) -> RowDataset:
    """Return how embedded is made of the chunks."""
    stage, settings = setup.embed, setup.config.embed
    # The hash of what is embedded: of the text alone where no heading stands above it.
    input_hash = "text_hash"
    if settings.context == "section":
        input_hash = (
            "CASE WHEN section = '' THEN text_hash ELSE md5(concat_ws('|', text_hash, section))::UUID END"
        )
    # Chunks that change places have other neighbours.
    origin = "hash(input_hash, ordinal)" if settings.smoothing else "hash(input_hash)"
    desired = f"""(SELECT *, {origin} AS origin FROM (SELECT document_id, chunk_id AS part, {input_hash} AS input_hash,
        input_hash AS body_hash, ordinal, tokens, section, text_hash FROM state.chunked))"""
    embed_recipe, derived = setup.recipe(stage), derivation(setup)
    return RowDataset(
        name="embedded",
        upstream="chunked",
        key="chunk_id",
        stage=stage,
        desired=desired,
        current="(SELECT document_id, chunk_id AS part, origin FROM state.embedded)",
        bodies=_bodies,
        fresh=lambda run, located: _fresh(run, located, f"{embed_recipe} {derived}".rstrip()),
        recipe=key("embedded", embed_recipe, derived).hex(),
        derivation=derived,
    )


def _bodies(run: Run) -> Bodies:
    section = ", m.section" if "section" in run.setup.embed.inputs.names else ""

    def relation(missing: str) -> str:
        keys = f"(SELECT body_hash AS input_hash FROM {missing})"
        texts = segments_of(run, run.setup.chunk).find_bodies(run.warehouse.connection, keys, CHUNK_TEXTS)
        # Texts of one length share the shape of their batches, and a batch of all lengths fills up many shapes.
        return f"""(SELECT m.input_hash, t.text{section} FROM {texts} AS t
            JOIN {missing} AS m ON t.input_hash = m.body_hash AND t.ordinal = m.ordinal ORDER BY m.tokens DESC)"""

    return streamed(run, relation)


def _fresh(run: Run, located: str, made_by: str) -> str:
    """The rows of state.embedded for the documents in scope; whatever else makes vectors makes every row another row.

    before_hash and after_hash are the inputs of the neighbours that a small chunk's vector is smoothed by.
    """
    settings = run.config.embed
    is_small = f"tokens <= {settings.smoothing_tokens}" if settings.smoothing else "false"
    beside = "OVER (PARTITION BY document_id ORDER BY ordinal)"
    neighbours = f"""CASE WHEN {is_small} THEN lag(input_hash) {beside} END AS before_hash,
        CASE WHEN {is_small} THEN lead(input_hash) {beside} END AS after_hash"""
    return f"""
        SELECT part AS chunk_id, document_id, {quoted(run.setup.embedder.name)} AS model, text_hash, input_hash,
            before_hash, after_hash, origin,
            hash(part, document_id, input_hash, before_hash, after_hash, {quoted(made_by)}) AS row_hash
        FROM (SELECT *, {neighbours} FROM scope) SEMI JOIN (FROM {located} WHERE error IS NULL) USING (input_hash)"""
