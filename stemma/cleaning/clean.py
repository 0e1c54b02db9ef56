"""The cleaning stage: one row of raw content in, one row of text, metadata, language and scores out."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stemma.cleaning.extraction import Extraction
from stemma.cleaning.extraction.extract import extract
from stemma.cleaning.extraction.limits import DEFAULT_LIMITS, Limits
from stemma.cleaning.filters.metrics import METRICS, measure
from stemma.cleaning.language import identify_all
from stemma.cleaning.origins import Breakpoints, compose, line_origins, map_origins
from stemma.cleaning.pii import replace_pii
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

# Metrics of the text, and two of what cleaning did to it.
SCORES = pa.struct(
    [
        *((item.name, item.type) for item in METRICS),
        ("repaired", pa.int64()),
        ("extracted_fraction", pa.float64()),
    ]
)
ORIGINS = pa.list_(
    pa.struct(
        [
            ("char_start", pa.int32()),
            ("source_char", pa.int32()),
            ("byte_shift", pa.int64()),
            ("place", pa.string()),
        ]
    )
)
PII = pa.list_(pa.struct([("char_start", pa.int32()), ("char_end", pa.int32()), ("kind", pa.string())]))
OUTPUTS = pa.schema(
    [
        pa.field("text", pa.string()),
        pa.field("text_hash", UUID),
        pa.field("title", pa.string()),
        pa.field("author", pa.string()),
        pa.field("published", pa.date32()),
        pa.field("declared_language", pa.string()),
        pa.field("language", pa.string()),
        pa.field("language_score", pa.float64()),
        pa.field("words", pa.int32()),
        pa.field("scores", SCORES),
        pa.field("origins", ORIGINS),
        pa.field("pii", PII),
    ]
)

# The distributions whose version can change the result: a stage's `libraries`.
LIBRARIES = (
    *("lxml", "pypdfium2", "mammoth", "cobble", "python-pptx", "openpyxl", "et_xmlfile", "defusedxml"),
    *("ftfy", "pycld2", "py3langid", "numpy"),
)

# Formats whose parsers are too large to be trusted with whatever the web holds.
_MARKUP = pa.array(["text/html", "application/xhtml+xml"])


def needs_isolation(table: pa.Table) -> pa.BooleanArray:
    """Tell which rows (of schema `INPUTS`) are parsed by a library that a document may make hang or crash."""
    binary = pc.is_valid(table["content_bytes"])
    return pc.or_(binary, pc.is_in(table["media_type"], _MARKUP)).combine_chunks()


def clean(
    table: pa.Table,
    *,
    repair: bool = True,
    html: str = "default",
    pii: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
    model: bytes = b"",
) -> pa.Table:
    """Extract, repair and measure each document; drops nothing (see `stemma.cleaning.filters.verdict`).

    Args:
        table: of schema `INPUTS`: `content` (decoded text, null for binary formats), `content_bytes` (the bytes
            of a binary format, otherwise null) and `media_type`.
        repair: repair mojibake, Unicode form, invisible characters and white space. Without it the text stays
            as extracted, but for lone surrogates, which no UTF-8 column can hold.
        html: how the main text of web pages is found: "default" or "fast" (see `stemma.cleaning.extraction.html`).
        pii: kinds of personal data to replace (see `stemma.cleaning.pii`), in text, title and author.
        limits: what a document of a binary format may cost.
        model: the key under which personal data are hashed; needed where `pii` names any kind.

    Returns:
        A table of schema `OUTPUTS`, one row for each input row in the same order:
        `text` ("" when nothing is left), `text_hash` (hash of its UTF-8 bytes), `title` (from the document's
        metadata, the front matter or the first heading), `author`, `published` and `declared_language` as the
        document's metadata have them, `language` (ISO 639 code, null when unknown), `language_score` (share of
        the text in that language, 0 to 1), `words` (separated by white space), `scores` (the metrics of
        `stemma.cleaning.filters.metrics`, `repaired` (0 or 1) and `extracted_fraction` (characters of the text by those
        visible in the source)), `origins` (where the text comes from, see `Origin`) and `pii` (spans of the text
        that stand for personal data).

    Raises:
        ValueError: a document is encrypted, broken or too long, or a binary format is none that can be read.
    """
    extractions = [
        extract(content, content_bytes, media_type, limits=limits, html_profile=html)
        for content, content_bytes, media_type in zip(
            table["content"].to_pylist(),
            table["content_bytes"].to_pylist(),
            table["media_type"].to_pylist(),
            strict=True,
        )
    ]
    texts, repaired = _repair_all([extraction.text for extraction in extractions], repair)
    titles = [_one_line(extraction.title) for extraction in extractions]
    authors = [_one_line(extraction.author) for extraction in extractions]
    replaced = [_Replaced(text) for text in texts]
    if pii:
        replaced = [_without_pii(text, pii, model) for text in texts]
        titles = [title and _without_pii(title, pii, model).text for title in titles]
        authors = [author and _without_pii(author, pii, model).text for author in authors]
    origins = [
        _origins(content or "", extraction, text, new)
        for content, extraction, text, new in zip(
            table["content"].to_pylist(), extractions, texts, replaced, strict=True
        )
    ]
    texts = [each.text for each in replaced]
    languages = identify_all(texts)
    metrics = measure(texts, [code for code, _ in languages])
    columns = [
        pa.array(texts, pa.string()),
        hash_texts(texts),
        pa.array(titles, pa.string()),
        pa.array(authors, pa.string()),
        pa.array([extraction.published for extraction in extractions], pa.date32()),
        pa.array([extraction.language for extraction in extractions], pa.string()),
        pa.array([code for code, _ in languages], pa.string()),
        pa.array([score for _, score in languages], pa.float64()),
        pc.cast(pc.struct_field(metrics, "words"), pa.int32()),
        _scores(metrics, repaired, [_fraction(text, e) for text, e in zip(texts, extractions, strict=True)]),
        pa.array(origins, ORIGINS),
        pa.array([each.spans for each in replaced], PII),
    ]
    return pa.Table.from_arrays(columns, schema=OUTPUTS)


def _repair_all(texts: list[str], enabled: bool) -> tuple[list[str], list[bool]]:
    """Return the texts to keep and whether a character of each was repaired."""
    if not enabled:
        kept = [without_surrogates(text) for text in texts]
        return ["" if text.isspace() else text for text in kept], [False] * len(kept)
    results = [repair_text(text) for text in texts]
    return [result.text for result in results], [result.changed for result in results]


def _one_line(text: str | None) -> str | None:
    """Bring a title or a name onto one line; null when nothing is left."""
    if text is None:
        return None
    return " ".join(repair_text(text).text.split()) or None


def _fraction(text: str, extraction: Extraction) -> float:
    """Characters kept by characters visible in the source; 0 for a source without any."""
    return round(len(text) / extraction.visible_characters, 6) if extraction.visible_characters else 0.0


@dataclass(frozen=True)
class _Replaced:
    """A text in which personal data are replaced: where the placeholders stand, and the map to the text before."""

    text: str
    spans: tuple[Mapping[str, Any], ...] = ()
    breakpoints: Breakpoints = ((0, 0),)


def _without_pii(text: str, kinds: Sequence[str], key: bytes) -> _Replaced:
    new, found, breakpoints = replace_pii(text, kinds, key)
    spans = []
    for span, (new_end, _old_end), before in zip(found, breakpoints[1:], breakpoints, strict=False):
        start = before[0] + span.start - before[1]
        spans.append({"char_start": start, "char_end": new_end, "kind": span.kind})
    return _Replaced(new, tuple(spans), breakpoints)


def _origins(
    content: str, extraction: Extraction, repaired: str, replaced: _Replaced
) -> list[Mapping[str, Any]]:
    """Return where the text comes from; nothing for a text that is empty."""
    length = len(replaced.text)
    if not length:
        return []
    breakpoints = line_origins(extraction.text, repaired)
    if replaced.spans:
        # Where a placeholder ends the text, a stretch of no length says where its value ends in the source.
        length += replaced.spans[-1]["char_end"] == length
        breakpoints = compose(breakpoints, replaced.breakpoints, length)
    origins = map_origins(extraction.origins, breakpoints, length)
    places = [origin for origin in origins if origin.source_char is not None]
    source = _utf8_offsets(content, [origin.source_char or 0 for origin in places])
    text = _utf8_offsets(replaced.text, [origin.char_start for origin in places])
    shifts = dict(zip(places, map(operator.sub, source, text), strict=True))
    return [
        {
            "char_start": origin.char_start,
            "source_char": origin.source_char,
            "byte_shift": shifts.get(origin),
            "place": origin.place,
        }
        for origin in origins
    ]


def _utf8_offsets(text: str, places: Sequence[int]) -> list[int]:
    """Return how many bytes of UTF-8 stand before each of these characters, which ascend."""
    if text.isascii():
        return list(places)
    offsets, done, size = [], 0, 0
    for place in places:
        size += len(text[done:place].encode("utf-8", "surrogatepass"))
        done = max(done, place)
        offsets.append(size)
    return offsets


def _scores(metrics: pa.StructArray, repaired: Sequence[bool], fractions: Sequence[float]) -> pa.StructArray:
    columns = [
        *metrics.flatten(),
        pa.array(map(int, repaired), pa.int64()),
        pa.array(fractions, pa.float64()),
    ]
    return pa.StructArray.from_arrays(columns, fields=list(SCORES))
