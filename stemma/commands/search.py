"""stemma search: the chunks nearest in meaning to a text."""

import argparse

from stemma.commands.output import print_json
from stemma.commands.published import open_published
from stemma.config import load_config
from stemma.errors import StemmaError, UsageError

SHOWN_CHARACTERS = 300


def search(options: argparse.Namespace) -> int:
    """Embed the text with the corpus's model and print the nearest chunks."""
    from stemma.resources.embedder import resolve_embedder
    from stemma.search import search as nearest

    if options.k < 1:
        raise UsageError("-k must be 1 or more")
    if not options.text.strip():
        raise UsageError("nothing to look for: the text is empty")
    config = load_config(options.config)
    with open_published(config) as connection:
        row = connection.execute(
            "SELECT any_value(model), count(DISTINCT model) FROM corpus.embedded"
        ).fetchone()
        if row is None or row[0] is None:
            raise StemmaError("the corpus has no vectors yet; 'stemma run' makes them")
        embedder = resolve_embedder(
            row[0],
            config.embed.device,
            config.embed.precision,
            config.embed.backend,
            directory=config.directory,
        )
        model = embedder.load(**embedder.parameters) if embedder.load else None
        vector = embedder.embed_query(options.text, model)
        found = nearest(connection, vector, options.k).to_pylist()
    if options.json:
        print_json(found)
        return 0
    for rank, hit in enumerate(found, 1):
        text = " ".join(hit["text"].split())
        place = f"{hit['uri']}" + (f" #{hit['record']}" if hit["record"] is not None else "")
        print(f"{rank}. {hit['score']:.3f}  {place}  [{hit['char_start']}:{hit['char_end']}]")
        if hit["section"]:
            print(f"   {hit['section']}")
        print(f"   {text[:SHOWN_CHARACTERS]}{'…' if len(text) > SHOWN_CHARACTERS else ''}")
        print(f"   chunk {hit['chunk_id']}\n")
    return 0
