"""The cleaning stage: one row of raw content in, one row of text, title, language and metrics out."""

import json
from collections.abc import Mapping

import pyarrow as pa

from stemma.cleaning.extract import Extraction, extract
from stemma.cleaning.language import identify
from stemma.cleaning.metrics import measure
from stemma.cleaning.repair import repair as repair_text
from stemma.cleaning.repair import without_surrogates
from stemma.hashing import UUID, hash_texts

INPUTS = pa.schema(
    [
        pa.field("content", pa.string()),
        pa.field("content_bytes", pa.binary()),
        pa.field("media_type", pa.string()),
    ]
)

OUTPUTS = pa.schema(
    [
        pa.field("text", pa.string(), nullable=False),
        pa.field("text_hash", UUID, nullable=False),
        pa.field("title", pa.string()),
        pa.field("language", pa.string()),
        pa.field("language_score", pa.float64(), nullable=False),
        pa.field("words", pa.int32(), nullable=False),
        pa.field("quality", pa.string(), nullable=False),
    ]
)

# The distributions whose version can change the result: a stage's `libraries`.
LIBRARIES = ("trafilatura", "justext", "lxml", "lxml_html_clean", "pypdfium2", "ftfy", "pycld2")


def clean(table: pa.Table, *, repair: bool = True, max_pages: int = 5000) -> pa.Table:
    """Extract, repair and measure each document; drops nothing (see `stemma.cleaning.verdict`).

    Args:
        table: columns `content` string (decoded text, null for binary formats), `content_bytes` binary (the
            bytes of a PDF, otherwise null) and `media_type` string.
        repair: repair mojibake, Unicode form, invisible characters and white space. Without it the text stays
            as extracted, but for lone surrogates, which no UTF-8 column can hold.
        max_pages: a PDF with more pages is refused.

    Returns:
        A table of schema `OUTPUTS`, one row for each input row in the same order:
        `text` ("" when nothing is left), `text_hash` (hash of its UTF-8 bytes), `title` (from the page's
        metadata, the front matter or the first heading), `language` (ISO 639 code, null when unknown),
        `language_score` (share of the text in that language, 0 to 1), `words` (separated by white space) and
        `quality` (a JSON object of the metrics in `stemma.cleaning.metrics`, of `repaired` (0 or 1) and
        `extracted_fraction` (characters of the text by those visible in the source)).

    Raises:
        ValueError: a PDF is encrypted, broken or too long, or a binary format is none that can be read.
    """
    extractions = [
        extract(content, content_bytes, media_type, max_pages=max_pages)
        for content, content_bytes, media_type in zip(
            table["content"].to_pylist(),
            table["content_bytes"].to_pylist(),
            table["media_type"].to_pylist(),
            strict=True,
        )
    ]
    texts, repaired = _repair_all([extraction.text for extraction in extractions], repair)
    languages = [identify(text) for text in texts]
    metrics = measure(texts)
    quality = [
        {**scores, "repaired": int(changed), "extracted_fraction": _fraction(text, extraction)}
        for scores, changed, text, extraction in zip(metrics, repaired, texts, extractions, strict=True)
    ]
    columns = [
        pa.array(texts, pa.string()),
        hash_texts(texts),
        pa.array([_clean_title(extraction.title) for extraction in extractions], pa.string()),
        pa.array([code for code, _ in languages], pa.string()),
        pa.array([score for _, score in languages], pa.float64()),
        pa.array([scores["words"] for scores in metrics], pa.int32()),
        pa.array([_to_json(scores) for scores in quality], pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=OUTPUTS)


def _repair_all(texts: list[str], enabled: bool) -> tuple[list[str], list[bool]]:
    """Return the texts to keep and whether a character of each was repaired."""
    if not enabled:
        kept = [without_surrogates(text) for text in texts]
        return ["" if text.isspace() else text for text in kept], [False] * len(kept)
    results = [repair_text(text) for text in texts]
    return [result.text for result in results], [result.changed for result in results]


def _clean_title(title: str | None) -> str | None:
    """Bring a title onto one line; null when nothing is left."""
    if title is None:
        return None
    return " ".join(repair_text(title).text.split()) or None


def _fraction(text: str, extraction: Extraction) -> float:
    """Characters kept by characters visible in the source; 0 for a source without any."""
    return len(text) / extraction.visible_characters if extraction.visible_characters else 0.0


def _to_json(scores: Mapping[str, float]) -> str:
    """Write metrics as compact JSON, sorted by key and rounded, so that equal metrics are equal bytes."""
    rounded = {name: round(score, 6) for name, score in scores.items()}
    return json.dumps(rounded, sort_keys=True, separators=(",", ":"), allow_nan=False)
