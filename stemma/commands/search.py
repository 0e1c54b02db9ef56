"""stemma search: the chunks that answer a text best."""

import argparse
import sys
from typing import Any

from stemma.commands.output import print_json, say
from stemma.commands.published import open_published
from stemma.config import load_config
from stemma.errors import UsageError

SHOWN_CHARACTERS = 300
SHOWN_PLACE = 40


def search(options: argparse.Namespace) -> int:
    """Print the best chunks for a text. Raises UsageError for an empty text or a bad filter."""
    from stemma.search import Searcher
    from stemma.search.corpus import query_embedder

    if not options.text.strip():
        raise UsageError("nothing to look for: the text is empty")
    config = load_config(options.config)
    with open_published(config, locked=True) as connection:
        # For one query the vectors need not stay.
        searcher = Searcher(connection, query_embedder(connection, config), keep_bytes=0, warn=_warn)
        found = searcher.search(
            options.text,
            options.k,
            mode=options.mode,
            where=options.where,
            context=options.context,
            exact=options.exact,
        ).to_pylist()
    if options.json:
        print_json(found)
        return 0
    if not found:
        say("(no chunk answers this)", file=sys.stderr)
    for rank, hit in enumerate(found, 1):
        _print(rank, hit, options.context)
    return 0


def _warn(message: str) -> None:
    say(f"stemma: {message}", file=sys.stderr)


def _print(rank: int, hit: dict[str, Any], context: int) -> None:
    place = f"{hit['uri']}" + (f" #{hit['record']}" if hit["record"] is not None else "")
    say(f"{rank}. {hit['score']:.3f}  {place}  [{hit['char_start']}:{hit['char_end']}]{_own_place(hit)}")
    if hit["section"]:
        say(f"   {hit['section']}")
    text = " ".join(hit["text"].split())
    if context:
        before, after = (" ".join(hit[side].split()) for side in ("before", "after"))
        say(f"   {before} » {text} « {after}")
    else:
        say(f"   {text[:SHOWN_CHARACTERS]}{'…' if len(text) > SHOWN_CHARACTERS else ''}")
    say(f"   chunk {hit['chunk_id']}\n")


def _own_place(hit: dict[str, Any]) -> str:
    """Return where the chunk stands in the file, if that is known and short."""
    if hit["place"] and len(hit["place"]) <= SHOWN_PLACE:
        return f"  {hit['place']}"
    if hit["source_byte_start"] is not None and hit["source_byte_end"] is not None:
        return f"  bytes {hit['source_byte_start']}-{hit['source_byte_end']}"
    return ""
