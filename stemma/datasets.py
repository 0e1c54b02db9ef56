"""The SQL contract: every published table with its columns, types and meaning, in one place.

The warehouse makes its tables from these, the assets their column metadata, the checks their keys, and
docs/contract.md is tested against them. A *body* column (content, text, vector) is kept once, in the memo,
and joined in when the corpus is published; all others are *state*.
"""

from dataclasses import dataclass

import pyarrow as pa

from stemma.cleaning.clean import ORIGINS, PII, SCORES
from stemma.cleaning.decontamination import MATCHES as MATCHES_SCHEMA

MATCHES = MATCHES_SCHEMA.field("matches").type

_SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.date32(): "DATE",
}


def sql_type(kind: pa.DataType) -> str:
    """Return DuckDB's name of an Arrow type."""
    if pa.types.is_struct(kind):
        return f"STRUCT({', '.join(f'{field.name} {sql_type(field.type)}' for field in kind)})"
    if pa.types.is_list(kind):
        return f"{sql_type(kind.value_type)}[]"
    return _SQL_TYPES[kind]


@dataclass(frozen=True)
class Column:
    """A column: DuckDB type, meaning, the upstream columns it derives from ("dataset.column").

    `generated` is the SQL expression of a column that is not stored but worked out when it is read.
    """

    name: str
    type: str
    description: str
    derives_from: tuple[str, ...] = ()
    body: bool = False
    generated: str = ""


@dataclass(frozen=True)
class Dataset:
    """A published table or view `schema.name`, keyed by `key`."""

    schema: str
    name: str
    key: str
    description: str
    columns: tuple[Column, ...]
    upstream: str | None = None

    @property
    def qualified(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def stored(self) -> str:
        """The table's name inside the published file, where the corpus is schema main (see `corpus_views`)."""
        return f"main.{self.name}" if self.schema == "corpus" else self.qualified

    @property
    def base(self) -> str:
        """The table that rows are written to: `stored`, unless that is a view which adds generated columns."""
        return f"{self.stored}_rows" if any(column.generated for column in self.columns) else self.stored


RAW = Dataset(
    "corpus",
    "raw",
    "document_id",
    "Every document as its source has it: one row for each file, or for each record of a file of records.",
    (
        Column("document_id", "UUID", "derived from source, path in the source and record; never random"),
        Column("source", "VARCHAR", "name of the source in stemma.toml"),
        Column("uri", "VARCHAR", "absolute path or URL of the file; query:NAME for the rows of a query"),
        Column(
            "record",
            "VARCHAR",
            "key or position of the record in the file, its path in an archive before it; null when the file is one"
            " document",
        ),
        Column(
            "byte_start",
            "BIGINT",
            "first byte of the record in the (decompressed) file or archive member; null where a format has none",
        ),
        Column("byte_end", "BIGINT", "byte after the record's last"),
        Column(
            "media_type", "VARCHAR", "media type of the content, found by content first, extension second"
        ),
        Column("encoding", "VARCHAR", "character encoding that the content was decoded from"),
        Column(
            "document_date",
            "DATE",
            "date of the document from its fields, headers, front matter or path; null when unknown",
        ),
        Column(
            "date_from",
            "VARCHAR",
            "where that was found: field, front_matter, header (of a mail), last_modified or warc_date (of a web"
            " archive), path",
        ),
        Column("content_hash", "UUID", "first 128 bits of the SHA-256 of the content"),
        Column("size_bytes", "BIGINT", "length of the content in bytes (text counted as UTF-8)"),
        Column(
            "ingested_at",
            "TIMESTAMP",
            "when this content was read, UTC; the one column that a rebuild changes",
        ),
        Column("partition_date", "DATE", "document_date, else the day (UTC) of the file's modification time"),
        Column("title", "VARCHAR", "title field of the record, subject or front matter, if any"),
        Column("metadata", "JSON", "the record's other fields"),
        Column(
            "fields",
            "JSON",
            "which field of the record was taken as text, id, date and title, chosen or guessed; null for a document"
            " without fields",
        ),
        Column("labels", "JSON", "the source's labels, by name; null without any"),
        Column("content", "VARCHAR", "the decoded text as it came; null for binary formats", body=True),
        Column("content_bytes", "BLOB", "the bytes of binary formats such as PDF; null for text", body=True),
    ),
)

CLEANED = Dataset(
    "corpus",
    "cleaned",
    "document_id",
    "Documents with their text extracted and repaired, their language and their quality scores; those that a rule"
    " dropped are in lineage.decisions.",
    (
        Column("document_id", "UUID", "as in raw", ("raw.document_id",)),
        Column(
            "title",
            "VARCHAR",
            "title from the record, the page or the first heading",
            ("raw.title", "raw.content"),
        ),
        Column("text_hash", "UUID", "first 128 bits of the SHA-256 of text", ("raw.content",)),
        Column("language", "VARCHAR", "language code by CLD2; null when unknown", ("raw.content",)),
        Column("language_score", "DOUBLE", "share of the text in that language, 0 to 1", ("raw.content",)),
        Column("words", "INTEGER", "words in text", ("raw.content",)),
        Column(
            "scores",
            sql_type(SCORES),
            "every metric of the text, typed: `scores.words` (see docs/cleaning.md)",
            ("raw.content",),
        ),
        Column(
            "quality",
            "JSON",
            "the same with the scores of models, as JSON: `quality->>'words'`",
            ("raw.content",),
            generated="CASE WHEN model_scores IS NULL THEN to_json(scores)"
            " ELSE json_merge_patch(to_json(scores), to_json(model_scores)) END",
        ),
        Column(
            "contamination",
            "DOUBLE",
            "largest share of an evaluation item's n-grams that was found in text; null where none was looked for",
            ("cleaned.text",),
        ),
        Column(
            "model_scores",
            "MAP(VARCHAR, DOUBLE)",
            "scores of quality models, by their name in stemma.toml",
            ("cleaned.text",),
        ),
        Column(
            "document_date",
            "DATE",
            "date in the record or front matter, else in the page's own metadata, else in the path",
            ("raw.document_date", "raw.content"),
        ),
        Column("date_from", "VARCHAR", "where the date was found: field, front_matter, content or path"),
        Column("author", "VARCHAR", "author in the document's own metadata", ("raw.content",)),
        Column("declared_language", "VARCHAR", "language that the document declares", ("raw.content",)),
        Column("text", "VARCHAR", "the cleaned text", ("raw.content", "raw.content_bytes"), body=True),
        Column(
            "origins",
            sql_type(ORIGINS),
            "where text comes from: each stretch begins at char_start and stands in raw.content from source_char"
            " on (byte_shift bytes of UTF-8 further than in text), or at a place such as 'page 3' or the path of an"
            " HTML element",
            ("raw.content", "raw.content_bytes"),
            body=True,
        ),
        Column(
            "pii",
            sql_type(PII),
            "spans of text that stand for personal data taken out",
            ("raw.content",),
            body=True,
        ),
    ),
    "raw",
)

DEDUPLICATED = Dataset(
    "corpus",
    "deduplicated",
    "document_id",
    "The documents kept: one witness or more for each family of near-duplicates; the others are in lineage.duplicates.",
    (
        Column("document_id", "UUID", "as in raw", ("cleaned.document_id",)),
        Column(
            "cluster_id", "UUID", "the family: the smallest document_id among its members", ("cleaned.text",)
        ),
        Column("cluster_size", "BIGINT", "documents in the family, this one included", ("cleaned.text",)),
        Column("title", "VARCHAR", "as in cleaned", ("cleaned.title",)),
        Column("text", "VARCHAR", "as in cleaned", ("cleaned.text",)),
        Column("text_hash", "UUID", "as in cleaned", ("cleaned.text_hash",)),
        Column("language", "VARCHAR", "as in cleaned", ("cleaned.language",)),
        Column("words", "INTEGER", "as in cleaned", ("cleaned.words",)),
        Column("document_date", "DATE", "as in cleaned", ("cleaned.document_date",)),
    ),
    "cleaned",
)

CHUNKED = Dataset(
    "corpus",
    "chunked",
    "chunk_id",
    "Spans of the kept documents, each exactly cleaned.text[char_start:char_end].",
    (
        Column(
            "chunk_id",
            "UUID",
            "derived from document_id, text_hash and occurrence",
            ("deduplicated.document_id",),
        ),
        Column("document_id", "UUID", "as in raw", ("deduplicated.document_id",)),
        Column("ordinal", "INTEGER", "position in the document, from 0", ("deduplicated.text",)),
        Column(
            "char_start", "INTEGER", "first character (code point) in cleaned.text", ("deduplicated.text",)
        ),
        Column("char_end", "INTEGER", "character after the last", ("deduplicated.text",)),
        Column("byte_start", "INTEGER", "first byte in cleaned.text as UTF-8", ("deduplicated.text",)),
        Column("byte_end", "INTEGER", "byte after the last", ("deduplicated.text",)),
        Column("tokens", "INTEGER", "length in the embedder's tokens", ("deduplicated.text",)),
        Column("section", "VARCHAR", "path of the headings above it", ("deduplicated.text",)),
        Column("text_hash", "UUID", "first 128 bits of the SHA-256 of text", ("deduplicated.text",)),
        Column("text", "VARCHAR", "the chunk's text", ("deduplicated.text",), body=True),
    ),
    "deduplicated",
)

EMBEDDED = Dataset(
    "corpus",
    "embedded",
    "chunk_id",
    "The vector of each chunk; the same text is embedded once, however often it occurs.",
    (
        Column("chunk_id", "UUID", "as in chunked", ("chunked.chunk_id",)),
        Column("document_id", "UUID", "as in raw", ("chunked.document_id",)),
        Column("model", "VARCHAR", "the embedder's name"),
        Column("text_hash", "UUID", "as in chunked", ("chunked.text_hash",)),
        Column(
            "embedding", "FLOAT[]", "the vector, FLOAT[n] with the model's n", ("chunked.text",), body=True
        ),
    ),
    "chunked",
)

DATASETS = (RAW, CLEANED, DEDUPLICATED, CHUNKED, EMBEDDED)

DECISIONS = Dataset(
    "lineage",
    "decisions",
    "document_id",
    "What removed each document that a stage removed: one row for each rule that it fails, with score and threshold.",
    (
        Column("document_id", "UUID", "the document removed"),
        Column("uri", "VARCHAR", "its file"),
        Column("stage", "VARCHAR", "cleaned or deduplicated"),
        Column("rule", "VARCHAR", "the rule, or the method for duplicates"),
        Column("score", "DOUBLE", "what was measured"),
        Column("threshold", "DOUBLE", "what it was measured against"),
        Column("kept_document_id", "UUID", "for duplicates: the kept document that it repeats"),
        Column("run_id", "VARCHAR", "the run that decided"),
    ),
)

FLAGS = Dataset(
    "lineage",
    "flags",
    "document_id",
    "Rules that only flag: one row for each document of cleaned and each rule that it fails.",
    (
        Column("document_id", "UUID", "the document, which stays"),
        Column("uri", "VARCHAR", "its file"),
        Column("rule", "VARCHAR", "the rule, as in lineage.rules"),
        Column("score", "DOUBLE", "what was measured"),
        Column("threshold", "DOUBLE", "what it was measured against"),
    ),
)

RULES = Dataset(
    "lineage",
    "rules",
    "rule",
    "The rules in force over the scores of cleaned.",
    (
        Column("position", "INTEGER", "order of evaluation"),
        Column("rule", "VARCHAR", "its name"),
        Column("action", "VARCHAR", "drop or flag"),
        Column("condition", "VARCHAR", "the SQL expression that holds for what fails it"),
        Column("score", "VARCHAR", "the SQL expression that is measured"),
        Column("threshold", "DOUBLE", "what it is measured against"),
    ),
)

CONTAMINATION = Dataset(
    "lineage",
    "contamination",
    "document_id",
    "Evidence of evaluation items in documents, kept or dropped: one row for each document and item.",
    (
        Column("document_id", "UUID", "the document"),
        Column("uri", "VARCHAR", "its file"),
        *(
            Column("evaluation_set" if field.name == "set" else field.name, sql_type(field.type), meaning)
            for field, meaning in zip(
                MATCHES.value_type,
                (
                    "the evaluation set",
                    "the item in it",
                    "the first n-gram of the item that was found",
                    "where it begins in the cleaned text",
                    "where it ends",
                    "n-grams of the item in the document",
                    "n-grams of the item",
                ),
                strict=True,
            )
        ),
    ),
)

CONTAMINATION_REPORT = Dataset(
    "lineage",
    "contamination_report",
    "evaluation_set",
    "The evaluation sets that were looked for, and what of them was found.",
    (
        Column("evaluation_set", "VARCHAR", "the set"),
        Column("path", "VARCHAR", "its file"),
        Column("items", "INTEGER", "items in it"),
        Column("items_found", "BIGINT", "items of which an n-gram was found"),
        Column("documents", "BIGINT", "documents that hold any"),
        Column("documents_dropped", "BIGINT", "of them, those that were dropped for it"),
        Column("largest_share", "DOUBLE", "largest share of an item's n-grams in a document"),
    ),
)

DUPLICATES = Dataset(
    "lineage",
    "duplicates",
    "document_id",
    "One row for each document removed as a duplicate, with the kept document that witnesses it.",
    (
        Column("document_id", "UUID", "the document removed"),
        Column("cluster_id", "UUID", "its family"),
        Column("kept_document_id", "UUID", "the kept document it was verified against"),
        Column(
            "similarity",
            "DOUBLE",
            "score of the two by the method; for near the exact Jaccard similarity of their word shingles",
        ),
        Column("method", "VARCHAR", "exact, near, contained, edit, semantic, or bloom (without a witness)"),
    ),
)

FAMILIES = Dataset(
    "corpus",
    "families",
    "cluster_id",
    "Families of two documents and more: equal texts, and texts verified to be alike, directly or by way of others.",
    (
        Column("cluster_id", "UUID", "the smallest document_id among its members"),
        Column("members", "BIGINT", "documents in it"),
        Column("kept", "BIGINT", "of them, those that are kept"),
        Column("kept_document_ids", "UUID[]", "which these are"),
        Column("title", "VARCHAR", "title of a kept one"),
        Column("sources", "VARCHAR[]", "the sources that its members come from"),
        Column("methods", "VARCHAR[]", "what its members were removed by"),
        Column("least_similarity", "DOUBLE", "the lowest of a member that was removed, to its kept document"),
        Column("first_date", "DATE", "the earliest date of a member"),
        Column("last_date", "DATE", "the latest"),
        Column("days", "BIGINT", "between them"),
        Column("characters", "BIGINT", "characters of all its members' cleaned texts"),
        Column("superseded", "BIGINT", "earlier versions of its members, which later ones superseded"),
        Column("changed_at", "TIMESTAMP", "when that happened last, UTC"),
    ),
)

WEIGHTS = Dataset(
    "corpus",
    "weights",
    "document_id",
    "Weights for training on the kept documents as often as their families are worth it (FineWeb2's rehydration).",
    (
        Column("document_id", "UUID", "a document of deduplicated"),
        Column("cluster_id", "UUID", "its family"),
        Column("cluster_size", "BIGINT", "documents in it"),
        Column(
            "flagged_rate",
            "DOUBLE",
            "share of kept documents of families of that size (1, 2, 3, 4, up to 8, up to 16 …) in lineage.flags",
        ),
        Column(
            "weight",
            "DOUBLE",
            "1 where that is the corpus's share or more, up to 10 for the size with the lowest",
        ),
    ),
)

VERSIONS = Dataset(
    "lineage",
    "versions",
    "document_id",
    "The versions of each document's cleaned text: a new one supersedes the one before it within the family.",
    (
        Column("document_id", "UUID", "the document; it may be gone from the corpus"),
        Column("version", "BIGINT", "from 1"),
        Column("text_hash", "UUID", "hash of the cleaned text"),
        Column("since", "TIMESTAMP", "since when it is in the corpus, UTC"),
        Column("since_run", "VARCHAR", "the run that brought it; null for a first version that still stands"),
        Column("until", "TIMESTAMP", "until when; null for the version that stands"),
        Column("until_run", "VARCHAR", "the run that ended it"),
    ),
)

REPETITION = Dataset(
    "lineage",
    "repetition",
    "copies",
    "How much of the corpus is repeated how often: documents by the size of their family.",
    (
        Column("copies", "BIGINT", "documents in a family; 1: alone"),
        Column("families", "BIGINT", "families of that size"),
        Column("documents", "BIGINT", "documents in them"),
        Column("kept", "BIGINT", "of them, those that are kept"),
        Column("characters", "BIGINT", "characters of their cleaned texts"),
        Column("repeated_characters", "BIGINT", "of them, those of the documents that were removed"),
    ),
)

AGES = Dataset(
    "lineage",
    "ages",
    "year",
    "How old the corpus is: cleaned documents by the year of their date.",
    (
        Column("year", "INTEGER", "null: without a date"),
        Column("documents", "BIGINT", "documents of cleaned"),
        Column("kept", "BIGINT", "of them, those that are kept"),
        Column("characters", "BIGINT", "characters of their cleaned texts"),
        Column("in_families", "BIGINT", "documents in families of two and more"),
    ),
)

PASSAGES = Dataset(
    "lineage",
    "passages",
    "document_id",
    "Passages that kept documents share, where the layer `passage` is asked for.",
    (
        Column("document_id", "UUID", "the later document"),
        Column("char_start", "INTEGER", "first character of the passage in its cleaned text"),
        Column("char_end", "INTEGER", "character after the last"),
        Column("source_document_id", "UUID", "the earlier document that has it"),
        Column("source_char_start", "INTEGER", "first character there"),
        Column("source_char_end", "INTEGER", "character after the last"),
        Column("words", "INTEGER", "words in it"),
    ),
)

CUTS = Dataset(
    "lineage",
    "cuts",
    "document_id",
    "What was cut from kept documents as a passage that an earlier one has; deduplicated.text is without it.",
    (
        Column("document_id", "UUID", "the document"),
        Column("cuts", 'STRUCT("start" INTEGER, "end" INTEGER)[]', "spans of characters of cleaned.text"),
    ),
)

ERRORS = Dataset(
    "lineage",
    "errors",
    "uri",
    "What could not be read or processed, and why; one row costs one document (or one record), never the run.",
    (
        Column("document_id", "UUID", "null where reading failed before there was a document"),
        Column("source", "VARCHAR", "name of the source"),
        Column("uri", "VARCHAR", "the file"),
        Column("record", "VARCHAR", "the record in it, if it was one"),
        Column("stage", "VARCHAR", "the dataset that could not be made of it"),
        Column("error", "VARCHAR", "class of the error"),
        Column("detail", "VARCHAR", "the reason in one line"),
        Column("run_id", "VARCHAR", "the run that met it first"),
    ),
)

WAITING = Dataset(
    "lineage",
    "waiting",
    "uri",
    "What the sources hold and the corpus does not yet: documents of days that no run has taken in.",
    (
        Column("document_id", "UUID", "the document"),
        Column("source", "VARCHAR", "name of the source"),
        Column("uri", "VARCHAR", "its file"),
        Column("record", "VARCHAR", "the record in it, if it is one"),
        Column("partition_date", "DATE", "the day whose run will take it in"),
        Column("change", "VARCHAR", "new, changed or removed"),
    ),
)

PURGED = Dataset(
    "lineage",
    "purged",
    "document_id",
    "Documents that somebody purged: they stay out although a source may hold them (stemma purge).",
    (
        Column("document_id", "UUID", "the document, or the id that its file has as a whole"),
        Column("content_hash", "UUID", "its content, which stays out too; null where others have it"),
        Column("purged_at", "TIMESTAMP", "when, in UTC"),
        Column("reason", "VARCHAR", "what was said by who did it"),
    ),
)

RUNS = Dataset(
    "lineage",
    "runs",
    "run_id",
    "What each run did to each dataset. rows_in, rows_reused and rows_computed count the stage's inputs;"
    " rows_added, rows_changed and rows_removed the dataset's rows.",
    (
        Column("run_id", "VARCHAR", "the run (the Dagster run's id)"),
        Column("dataset", "VARCHAR", "the dataset"),
        Column("recipe", "VARCHAR", "hash of the code, parameters and versions that made it"),
        Column("started_at", "TIMESTAMP", "UTC"),
        Column("finished_at", "TIMESTAMP", "UTC"),
        Column("rows_in", "BIGINT", "rows of the dataset above (for raw: documents in the sources)"),
        Column("rows_added", "BIGINT", "rows that were not there before"),
        Column("rows_changed", "BIGINT", "rows that differ from before"),
        Column("rows_removed", "BIGINT", "rows that went"),
        Column("rows_reused", "BIGINT", "inputs whose result was known"),
        Column("rows_computed", "BIGINT", "inputs that a stage function was called for"),
        Column("rows", "BIGINT", "rows of the dataset afterwards"),
        Column("errors", "BIGINT", "documents or records in lineage.errors at this stage afterwards"),
        Column(
            "number",
            "BIGINT",
            "the run's place among all, whatever its clock said; null in rows that an earlier version wrote",
        ),
    ),
)

TRACE = Dataset(
    "lineage",
    "trace",
    "chunk_id",
    "From each embedded chunk the way back to its place in the source, with the recipe of each stage.",
    (
        Column("chunk_id", "UUID", "the chunk"),
        Column("document_id", "UUID", "its document"),
        Column("source", "VARCHAR", "its source"),
        Column("uri", "VARCHAR", "its file"),
        Column("record", "VARCHAR", "its record in the file"),
        Column("byte_start", "BIGINT", "place of the record in the file"),
        Column("byte_end", "BIGINT", "place of the record in the file"),
        Column("char_start", "INTEGER", "place of the chunk in the cleaned text"),
        Column("char_end", "INTEGER", "place of the chunk in the cleaned text"),
        Column("source_char_start", "BIGINT", "for text formats: where it begins in raw.content"),
        Column("source_char_end", "BIGINT", "where it ends there"),
        Column(
            "source_byte_start",
            "BIGINT",
            "where it begins in the (decompressed) file; null where its bytes cannot be counted from its characters",
        ),
        Column("source_byte_end", "BIGINT", "where it ends there"),
        Column("place", "VARCHAR", "for other formats: page, slide, sheet or HTML element that it begins in"),
        Column("content_hash", "UUID", "hash of the document's content"),
        Column("text_hash", "UUID", "hash of the chunk's text"),
        Column("raw_recipe", "VARCHAR", "recipe of the stage"),
        Column("cleaned_recipe", "VARCHAR", "recipe of the stage"),
        Column("deduplicated_recipe", "VARCHAR", "recipe of the stage"),
        Column("chunked_recipe", "VARCHAR", "recipe of the stage"),
        Column("embedded_recipe", "VARCHAR", "recipe of the stage"),
    ),
)

EMBEDDING_HEALTH = Dataset(
    "lineage",
    "embedding_health",
    "run_id",
    "The health of the vector space at each publication of other vectors, on a fixed sample of the texts.",
    (
        Column("run_id", "VARCHAR", "the run"),
        Column("number", "BIGINT", "from 1, in the order of the measurements"),
        Column("measured_at", "TIMESTAMP", "UTC"),
        Column("model", "VARCHAR", "the embedder's name"),
        Column("recipe", "VARCHAR", "the recipe of embedded"),
        Column("vectors", "BIGINT", "texts in the sample"),
        Column("unsound", "BIGINT", "vectors that are zero or hold what is no number"),
        Column("repeated", "BIGINT", "texts whose vector is that of another text"),
        Column("norm_min", "DOUBLE", "the least length of a vector"),
        Column("norm_max", "DOUBLE", "the greatest"),
        Column("mean_cosine", "DOUBLE", "mean cosine of two texts' vectors: anisotropy (Ethayarajh 2019)"),
        Column("effective_rank", "DOUBLE", "dimensions in use (Roy & Vetterli 2007)"),
        Column("isoscore", "DOUBLE", "how evenly they are used, 0 to 1 (Rudman et al. 2022)"),
        Column(
            "drift",
            "DOUBLE",
            "1 - mean cosine to the vectors that the same chunks had in the last publication",
        ),
    ),
)

MEASURES = Dataset(
    "lineage",
    "measures",
    "number",
    "What the quality checks compare: measures of cleaned and deduplicated at each run that changed them.",
    (
        Column("run_id", "VARCHAR", "the run"),
        Column("number", "BIGINT", "from 1, in the order of the measurements"),
        Column("measured_at", "TIMESTAMP", "UTC"),
        Column("dataset", "VARCHAR", "cleaned or deduplicated"),
        Column(
            "measure",
            "VARCHAR",
            "documents (number), dropped and duplicates (shares), characters (median of a text), language XX (share)",
        ),
        Column("value", "DOUBLE", "its value"),
    ),
)

CHUNKS = Dataset(
    "search",
    "chunks",
    "chunk_id",
    "Each chunk with its document, side by side: the columns that `stemma search --where` may name.",
    (
        Column("chunk_id", "UUID", "as in chunked"),
        Column("document_id", "UUID", "as in raw"),
        Column("ordinal", "INTEGER", "position in the document, from 0"),
        Column("source", "VARCHAR", "as in raw"),
        Column("uri", "VARCHAR", "as in raw"),
        Column("record", "VARCHAR", "as in raw"),
        Column("media_type", "VARCHAR", "as in raw"),
        Column("title", "VARCHAR", "as in cleaned"),
        Column("author", "VARCHAR", "as in cleaned"),
        Column("document_date", "DATE", "as in cleaned"),
        Column("language", "VARCHAR", "as in cleaned"),
        Column("document_words", "INTEGER", "words of the document"),
        Column("labels", "JSON", "as in raw"),
        Column("metadata", "JSON", "as in raw"),
        Column("section", "VARCHAR", "as in chunked"),
        Column("tokens", "INTEGER", "as in chunked"),
        Column("words", "INTEGER", "words of the chunk in the text index"),
        Column("char_start", "INTEGER", "as in chunked"),
        Column("char_end", "INTEGER", "as in chunked"),
        Column("text", "VARCHAR", "the chunk's text"),
    ),
)

POSTINGS = Dataset(
    "search",
    "postings",
    "word",
    "The text index: one row for each word and each chunk that has it.",
    (
        Column(
            "word",
            "VARCHAR",
            "a word, folded (no case, no compatibility forms), with and without its diacritics; a pair of characters"
            " in scripts without spaces and in Hangul",
        ),
        Column("chunk_id", "UUID", "a chunk that has it"),
        Column("frequency", "USMALLINT", "how often"),
    ),
)

KEYWORDS = Dataset(
    "search",
    "keywords",
    "document_id, rank",
    "The ten words that tell each kept document from the others best.",
    (
        Column("document_id", "UUID", "as in raw"),
        Column("rank", "BIGINT", "from 1, the best"),
        Column("word", "VARCHAR", "as in search.postings: three letters or more, or a pair of characters"),
        Column("frequency", "BIGINT", "how often the document has it"),
        Column("documents", "BIGINT", "how many documents have it"),
        Column("score", "DOUBLE", "frequency × ln(documents of the corpus / documents that have it)"),
    ),
)

LEDGER = (
    *(DECISIONS, FLAGS, RULES, CONTAMINATION, CONTAMINATION_REPORT, DUPLICATES, VERSIONS, REPETITION, AGES),
    *(PASSAGES, CUTS, EMBEDDING_HEALTH, MEASURES, ERRORS, WAITING, PURGED, RUNS, TRACE),
)


def docs_tables() -> str:
    """Return the contract as Markdown for docs/contract.md: each table with its columns, types and meanings."""
    return "\n".join(map(_docs_table, (*DATASETS, FAMILIES, WEIGHTS, CHUNKS, POSTINGS, KEYWORDS, *LEDGER)))


def _docs_table(dataset: Dataset) -> str:
    lines = [
        f"### {dataset.qualified}",
        "",
        dataset.description,
        "",
        "| Column | Type | Meaning |",
        "|---|---|---|",
    ]
    lines += [f"| `{column.name}` | {column.type} | {column.description} |" for column in dataset.columns]
    return "\n".join(lines) + "\n"
