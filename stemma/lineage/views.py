"""The published views: lineage in SQL. Their columns are the contract in stemma/datasets.py."""

from pathlib import Path

from stemma.datasets import DATASETS, FAMILIES, WEIGHTS, Dataset


def generated_view(dataset: Dataset) -> str:
    """Return the view of a dataset with columns that are worked out when they are read."""
    columns = ", ".join(
        f"{column.generated} AS {column.name}" if column.generated else column.name
        for column in dataset.columns
    )
    return f"SELECT {columns} FROM {dataset.base}"


# A file's bytes are those of its text as UTF-8, perhaps behind a byte order mark, or one for each character; where
# neither is so (UTF-16, a field of a record, which is escaped there), no byte is named.
_ONE_BYTE = (
    "cp(125[0-8]|437|720|737|775|85[0-9]|86[0-9]|874|1006|1125|1140)|iso8859_[0-9]+|latin_1|koi8_[rtu]"
)
_ONE_BYTE += "|mac_[a-z0-9]+|hp_roman8|kz1048|ptcp154|tis_620|ascii"
_BYTE = f"""CASE WHEN r.encoding = 'utf_8' AND r.byte_end - r.byte_start = r.size_bytes THEN r.byte_start + {{byte}}
            WHEN r.encoding = 'utf_8' AND r.record IS NULL AND r.byte_end - r.byte_start = r.size_bytes + 3
                THEN r.byte_start + 3 + {{byte}}
            WHEN r.record IS NULL AND regexp_full_match(r.encoding, '{_ONE_BYTE}') THEN r.byte_start + {{char}} END"""

# Where a chunk stands in its file; `c` is a row of source_places, `r` one of raw.
SOURCE_BYTES = f"""{_BYTE.format(byte="c.source_byte_start", char="c.source_char_start")} AS source_byte_start,
            {_BYTE.format(byte="c.source_byte_end", char="c.source_char_end")} AS source_byte_end"""


def source_places(chunked: str, cleaned: str) -> str:
    """Return the CTEs up to `places`: the columns of chunks, and where these stand in the content that was read.

    `chunked` is a relation of chunks, `cleaned` one with the origins and pii of at least their documents.
    """
    return f"""origins AS (SELECT document_id, unnest(origins, recursive := true) FROM {cleaned}),
        placeholders AS (SELECT document_id, unnest(pii, recursive := true) FROM {cleaned} WHERE len(pii) > 0),
        -- A placeholder is not as long as what it stands for: a chunk that ends in one ends in the source where the
        -- stretch after it begins.
        places AS (SELECT t.*, f.place,
                f.source_char::BIGINT + t.char_start - f.char_start AS source_char_start,
                (t.byte_start + f.byte_shift)::BIGINT AS source_byte_start,
                CASE WHEN p.char_end >= t.char_end AND n.source_char IS NOT NULL THEN n.source_char::BIGINT
                    ELSE l.source_char::BIGINT + t.char_end - l.char_start END AS source_char_end,
                CASE WHEN p.char_end >= t.char_end AND n.source_char IS NOT NULL
                    THEN t.byte_end + p.char_end - t.char_end + n.byte_shift
                    ELSE t.byte_end + l.byte_shift END::BIGINT AS source_byte_end
            FROM {chunked} AS t
            ASOF LEFT JOIN origins AS f ON f.document_id = t.document_id AND t.char_start >= f.char_start
            ASOF LEFT JOIN origins AS l ON l.document_id = t.document_id AND t.char_end > l.char_start
            ASOF LEFT JOIN placeholders AS p ON p.document_id = t.document_id AND t.char_end > p.char_start
            LEFT JOIN origins AS n ON n.document_id = p.document_id AND n.char_start = p.char_end)"""


VIEWS = {
    **{dataset.stored: generated_view(dataset) for dataset in DATASETS if dataset.base != dataset.stored},
    # What is left between the cuts: the first piece begins at 0, each other one where a cut ends.
    "main.deduplicated": """SELECT m.document_id, m.cluster_id, m.cluster_size, c.title,
            CASE WHEN x.cuts IS NULL THEN c.text ELSE list_aggregate(list_transform(
                list_zip(list_prepend(0, [cut."end" for cut in x.cuts]), [cut."start" for cut in x.cuts]),
                lambda piece: substring(c.text, piece[1] + 1, coalesce(piece[2], length(c.text)) - piece[1])),
                'string_agg', '') END AS text,
            c.text_hash, c.language, c.words, c.document_date
        FROM lineage.members AS m JOIN main.cleaned AS c USING (document_id)
        LEFT JOIN lineage.cuts AS x USING (document_id)
        WHERE m.kept
            AND NOT EXISTS (SELECT 1 FROM lineage.errors AS e WHERE e.document_id = m.document_id)""",
    "lineage.duplicates": """SELECT document_id, cluster_id, kept_document_id, similarity, method
        FROM lineage.members WHERE NOT kept""",
    "lineage.decisions": """SELECT d.document_id, r.uri, d.stage, d.rule, d.score, d.threshold, d.kept_document_id,
            d.run_id
        FROM (SELECT document_id, stage, rule, score, threshold, kept_document_id, run_id FROM lineage.rejections
            UNION ALL SELECT document_id, 'deduplicated', method, similarity, threshold, kept_document_id, run_id
            FROM lineage.members WHERE NOT kept) AS d
        JOIN main.raw AS r USING (document_id)""",
    "lineage.trace": f"""WITH recipes AS (SELECT
            max(recipe) FILTER (WHERE name = 'raw') AS raw_recipe,
            max(recipe) FILTER (WHERE name = 'cleaned') AS cleaned_recipe,
            max(recipe) FILTER (WHERE name = 'deduplicated') AS deduplicated_recipe,
            max(recipe) FILTER (WHERE name = 'chunked') AS chunked_recipe,
            max(recipe) FILTER (WHERE name = 'embedded') AS embedded_recipe FROM lineage.datasets),
        {source_places("main.chunked", "main.cleaned")}
        SELECT e.chunk_id, e.document_id, r.source, r.uri, r.record, r.byte_start, r.byte_end, c.char_start, c.char_end,
            c.source_char_start, c.source_char_end,
            {SOURCE_BYTES}, c.place, r.content_hash, e.text_hash, recipes.*
        FROM main.embedded AS e JOIN places AS c USING (chunk_id)
        JOIN main.raw AS r ON r.document_id = e.document_id CROSS JOIN recipes""",
}


# Families of two documents and more; what each member was before is told by lineage.versions.
_FAMILIES = """SELECT m.cluster_id, count(*) AS members, count(*) FILTER (m.kept) AS kept,
        list(m.document_id ORDER BY m.document_id) FILTER (m.kept) AS kept_document_ids,
        coalesce(arg_min(c.title, m.document_id) FILTER (m.kept), arg_min(c.title, m.document_id)) AS title,
        list(DISTINCT r.source ORDER BY r.source) AS sources,
        list(DISTINCT m.method ORDER BY m.method) FILTER (NOT m.kept) AS methods,
        min(m.similarity) AS least_similarity, min(c.document_date) AS first_date, max(c.document_date) AS last_date,
        date_diff('day', min(c.document_date), max(c.document_date)) AS days,
        sum(c.scores.characters)::BIGINT AS characters, coalesce(sum(v.ended), 0)::BIGINT AS superseded,
        max(v.changed_at) AS changed_at
    FROM lineage.members AS m JOIN main.raw AS r USING (document_id) JOIN main.cleaned AS c USING (document_id)
    LEFT JOIN (SELECT document_id, count(*) AS ended, max(until) AS changed_at FROM lineage.superseded
        GROUP BY document_id) AS v USING (document_id)
    GROUP BY m.cluster_id HAVING count(*) > 1"""
# After FineWeb2 (Penedo et al. 2025, "rehydration"): what was copied often is worth more where its kind fails the
# quality rules less than the corpus as a whole does; ten times at most, for the size that fails them least.
_WEIGHTS = """WITH kept AS (SELECT document_id, cluster_id, cluster_size,
            CASE WHEN cluster_size <= 4 THEN cluster_size ELSE pow(2, ceil(log2(cluster_size))) END::BIGINT AS up_to,
            document_id IN (SELECT document_id FROM lineage.flags) AS flagged
        FROM lineage.members WHERE kept),
    sizes AS (SELECT up_to, avg(flagged::INTEGER) AS rate FROM kept GROUP BY up_to),
    corpus AS (SELECT (SELECT avg(flagged::INTEGER) FROM kept) AS rate, (SELECT min(rate) FROM sizes) AS least)
    SELECT k.document_id, k.cluster_id, k.cluster_size, s.rate AS flagged_rate,
        CASE WHEN s.rate < c.rate THEN 1 + 9 * (c.rate - s.rate) / (c.rate - c.least) ELSE 1.0 END::DOUBLE AS weight
    FROM kept AS k JOIN sizes AS s USING (up_to) CROSS JOIN corpus AS c"""
_VERSIONS = """SELECT document_id, version, text_hash, since, since_run, until, until_run FROM lineage.superseded
    UNION ALL SELECT c.document_id, coalesce(s.version, 0) + 1, c.text_hash, coalesce(s.until, r.ingested_at), s.run,
        NULL, NULL
    FROM main.cleaned AS c JOIN main.raw AS r USING (document_id)
    LEFT JOIN (SELECT document_id, max(version) AS version, max(until) AS until, arg_max(until_run, version) AS run
        FROM lineage.superseded GROUP BY document_id) AS s USING (document_id)"""
_REPETITION = """SELECT m.cluster_size AS copies, count(DISTINCT m.cluster_id) AS families, count(*) AS documents,
        count(*) FILTER (m.kept) AS kept, sum(c.scores.characters)::BIGINT AS characters,
        coalesce(sum(c.scores.characters) FILTER (NOT m.kept), 0)::BIGINT AS repeated_characters
    FROM lineage.members AS m JOIN main.cleaned AS c USING (document_id) GROUP BY m.cluster_size"""
_AGES = """SELECT year(c.document_date)::INTEGER AS year, count(*) AS documents, count(*) FILTER (m.kept) AS kept,
        sum(c.scores.characters)::BIGINT AS characters,
        count(*) FILTER (m.cluster_size > 1) AS in_families
    FROM lineage.members AS m JOIN main.cleaned AS c USING (document_id) GROUP BY year"""

# The text index, with chunks by their ids; and all that a filter of a search may ask for, in one place.
_POSTINGS = """SELECT p.word, n.chunk_id, p.frequency
    FROM search.posting_rows AS p JOIN search.numbers AS n USING (number)"""
_CHUNKS = """SELECT t.chunk_id, t.document_id, t.ordinal, r.source, r.uri, r.record, r.media_type, d.title, d.author,
        d.document_date, d.language, d.words AS document_words, r.labels, r.metadata, t.section, t.tokens,
        n.words, t.char_start, t.char_end, t.text
    FROM main.chunked AS t JOIN main.raw AS r USING (document_id) JOIN main.cleaned AS d USING (document_id)
    JOIN search.numbers AS n USING (chunk_id)"""

# What may be a key word or a word of a topic: three letters or more, or a pair in scripts without spaces.
IS_KEYWORD = "regexp_full_match(word, '[\\pL\\pM]{3,}|[\\pL\\pM]{2}') AND strlen(word) > 2"
# tf-idf. The form of a word without its diacritics is left out where the word itself stands.
_KEYWORDS = f"""WITH counts AS (SELECT document_id, word, sum(frequency)::BIGINT AS frequency
        FROM search.postings JOIN (SELECT chunk_id, document_id FROM main.chunked) USING (chunk_id)
        WHERE {IS_KEYWORD}
        GROUP BY document_id, word),
    words AS (SELECT *, count(*) OVER (PARTITION BY word) AS documents FROM counts
        ANTI JOIN (SELECT document_id, strip_accents(word) AS word FROM counts WHERE strip_accents(word) <> word)
        USING (document_id, word))
    SELECT document_id, row_number() OVER best AS rank, word, frequency, documents, score
    FROM (SELECT *, frequency * ln((SELECT count(DISTINCT document_id) FROM main.chunked) / documents) AS score
        FROM words)
    WINDOW best AS (PARTITION BY document_id ORDER BY score DESC, word) QUALIFY row_number() OVER best <= 10"""

VIEWS |= {
    "search.postings": _POSTINGS,
    "search.chunks": _CHUNKS,
    "search.keywords": _KEYWORDS,
    "lineage.versions": _VERSIONS,
    "lineage.repetition": _REPETITION,
    "lineage.ages": _AGES,
    "main.families": _FAMILIES,
}
# Those that read lineage.flags, which the rules of the configuration make.
VIEWS_OF_FLAGS = {"main.weights": _WEIGHTS}


def corpus_views(path: Path) -> dict[str, str]:
    """Return the views that make `corpus.raw` … mean main.raw … in a published file at `path`; none where they do.

    DuckDB names a database after its file: in corpus.duckdb, `corpus.raw` is the table raw in schema main, and a
    schema of the same name would make every such query fail as ambiguous. A file of any other name needs the schema.
    """
    if database_name(path).lower() == "corpus":
        return {}
    return {
        dataset.qualified: f"SELECT {', '.join(column.name for column in dataset.columns)} FROM {dataset.stored}"
        for dataset in (*DATASETS, FAMILIES, WEIGHTS)
    }


def database_name(path: Path) -> str:
    """Return the name that DuckDB gives to the database in a file."""
    return path.name.lstrip(".").split(".")[0]


def work_folder(path: Path) -> Path:
    """Return the folder of what belongs to a published file: corpus.work for corpus.duckdb, else corpus.db-work."""
    return path.with_suffix(".work") if path.suffix == ".duckdb" else Path(f"{path}-work")
