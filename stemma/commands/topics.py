"""stemma topics: what the corpus is about, by words that stand in the same documents."""

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from stemma.commands.output import print_json, print_table
from stemma.commands.published import open_published
from stemma.config import load_config
from stemma.lineage.views import IS_KEYWORD
from stemma.search.topics import Topic, find_topics
from stemma.search.words import without_diacritics

# Words in more documents say what a language is, not what a text is about.
MOST_DOCUMENTS = 0.2
# Of the documents of a topic so many are told, the ones that have most of its words first.
TOLD_DOCUMENTS = 3

_WORDS = f"""
WITH numbers AS (SELECT document_id, dense_rank() OVER (ORDER BY document_id) - 1 AS number
    FROM corpus.deduplicated JOIN corpus.raw USING (document_id) WHERE $source IS NULL OR source = $source),
stands AS (SELECT DISTINCT word, number FROM search.postings JOIN corpus.chunked USING (chunk_id)
    JOIN numbers USING (document_id) WHERE {IS_KEYWORD})
SELECT word, list(number ORDER BY number)::UBIGINT[] AS documents FROM stands
GROUP BY word HAVING count(*) >= $least AND count(*) <= $most ORDER BY word
"""
_NUMBERED = """SELECT uri, record FROM corpus.deduplicated JOIN corpus.raw USING (document_id)
    WHERE $source IS NULL OR source = $source ORDER BY document_id"""


def topics(options: argparse.Namespace) -> int:
    """Print the topics of the corpus, those of most documents first."""
    config = load_config(options.config)
    with open_published(config) as connection:
        source = {"source": options.source}
        places = connection.execute(_NUMBERED, source).fetchall()
        least = max(options.least, 2)
        most = max(least, int(MOST_DOCUMENTS * len(places)))
        found = connection.execute(_WORDS, {**source, "least": least, "most": most}).to_arrow_table()
    words, sets = _once(found)
    listed = find_topics(words, sets, threshold=options.threshold)
    told = list(_told(listed[: options.n], places))
    if options.json:
        print_json(told)
        return 0
    rows = [(each["documents"], ", ".join(each["words"]), each["examples"][0]) for each in told]
    print_table(
        f"{len(listed):,} topic{'s' * (len(listed) != 1)}", ["documents", "words", "for example"], rows
    )
    return 0


def _once(found: pa.Table) -> tuple[list[str], list[np.ndarray]]:
    """Return words and their documents, without the forms that stand for a word with diacritics alone."""
    words = found["word"].to_pylist()
    lists = found["documents"].combine_chunks()
    sets = np.split(lists.flatten().to_numpy(), lists.offsets.to_numpy()[1:-1]) if words else []
    places = {word: place for place, word in enumerate(words)}
    plain = {word: without_diacritics(word) for word in words}
    spare = {
        form
        for word, form in plain.items()
        if form != word and form in places and len(sets[places[form]]) == len(sets[places[word]])
    }
    kept = [place for place, word in enumerate(words) if word not in spare]
    return [words[place] for place in kept], [sets[place] for place in kept]


def _told(listed: list[Topic], places: list[tuple[str, str | None]]) -> Iterator[dict[str, Any]]:
    for topic in listed:
        examples = [places[number] for number in topic.documents[:TOLD_DOCUMENTS].tolist()]
        yield {
            "documents": len(topic.documents),
            "words": list(topic.words),
            "examples": [uri + ("" if record is None else f" #{record}") for uri, record in examples],
        }
