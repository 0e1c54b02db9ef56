"""The peers' cleaner and splitter as stages of Stemma (`stemma_flow.py --variant plain`)."""

import pyarrow as pa
from cleaning import clean
from common import split

from stemma.cleaning.clean import OUTPUTS
from stemma.hashing import hash_texts

CHARACTERS_A_TOKEN = 4
# Stemma refuses a chunk over `max_tokens`, and its estimate of tokens is no count of characters.
SLACK = 4


def plain_clean(table: pa.Table, **_parameters: object) -> pa.Table:
    """The peers' cleaner for a table of contents: no language, no metrics, no origins."""
    texts = [clean(content) for content in table["content"].to_pylist()]
    known = {
        "text": pa.array(texts, pa.string()),
        "text_hash": hash_texts(texts),
        "words": pa.array([len(text.split()) for text in texts], pa.int32()),
    }
    columns = [known.get(field.name, pa.nulls(len(texts), field.type)) for field in OUTPUTS]
    return pa.Table.from_arrays(columns, schema=OUTPUTS)


def plain_spans(text: str, max_tokens: int, overlap: int) -> list[tuple[int, int]]:
    """The peers' pieces as spans of the text."""
    spans, place = [], 0
    for piece in split(text, max_tokens * CHARACTERS_A_TOKEN // SLACK):
        start = text.index(piece, place)
        place = start + len(piece)
        spans.append((start, place))
    return spans
