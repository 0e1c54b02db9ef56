"""cleaned: text, language and scores of every document; keep or drop is a predicate over the scores."""

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from stemma.cleaning.filters.verdict import Rule, decisions_sql
from stemma.cleaning.pii import replace_pii
from stemma.datasets import MATCHES
from stemma.hashing import UUID, key
from stemma.incremental.counts import Counts
from stemma.resources.engine.chunked import cleaned_bodies
from stemma.resources.engine.raw import bodies_of
from stemma.resources.engine.rowwise import Annotation, Bodies, RowDataset, segments_of, streamed
from stemma.resources.engine.run import Run, load_rows
from stemma.resources.engine.setup import Rules, Setup, load_pii_key
from stemma.resources.memo import quoted

# What a row's hash covers: all that is published of it, but the texts, which are covered by their hashes.
# The largest share of an evaluation item that was found in the text.
CONTAMINATION = "list_max([x.matched / x.total for x in matches])"
ANNOTATED = pa.schema(
    [("text_hash", UUID), ("matches", MATCHES), ("model_scores", pa.map_(pa.string(), pa.float64()))]
)
HASHED = (
    "document_id, title, author, text_hash, declared_language, language, language_score, words, scores, document_date,"
    " date_from, source, matches, model_scores, body_hash"
)
COLUMNS = (
    "document_id, title, author, text_hash, declared_language, language, language_score, words, scores, characters,"
    " document_date, date_from, source, matches, contamination, model_scores"
)


def cleaned(setup: Setup) -> RowDataset:
    """Return how cleaned is made of raw."""
    # A raw title wins over one that cleaning finds; both and the date are taken over without being cleaned anew.
    desired = """(SELECT document_id, document_id AS part, input_hash,
        hash(input_hash, title, metadata->>'author', document_date, date_from, source) AS origin FROM state.raw)"""
    rules = setup.rules
    annotations = tuple(Annotation(stage, _texts, cleaned_bodies) for stage in setup.annotations)
    recipes = [setup.recipe(stage) for stage in (setup.clean, *setup.annotations)]
    return RowDataset(
        name="cleaned",
        upstream="raw",
        key="document_id",
        stage=setup.clean,
        desired=desired,
        current="(SELECT document_id, document_id AS part, origin FROM state.cleaned)",
        bodies=_bodies,
        fresh=lambda run, located: _fresh(run, located, rules),
        recipe=key("cleaned", *recipes, *map(repr, (*rules.drop, *rules.flag))).hex(),
        annotations=annotations,
        decide=lambda run, connection, counts: _decide_anew(run, connection, counts, rules),
    )


def _bodies(run: Run) -> Bodies:
    def relation(missing: str) -> str:
        return bodies_of(run).find_bodies(
            run.warehouse.connection, missing, "input_hash, content, content_bytes, media_type"
        )

    return streamed(run, relation)


def _texts(run: Run, located: str) -> str:
    """The cleaned texts of the documents in scope: (input_hash = text_hash, body_hash = memo key of the text)."""
    facts = segments_of(run, run.setup.clean).bodies(
        run.warehouse.connection, f"(FROM {located} WHERE error IS NULL)", "text_hash, input_hash"
    )
    return f"SELECT text_hash AS input_hash, input_hash AS body_hash FROM {facts}"


def _fresh(run: Run, located: str, rules: Rules) -> str:
    """The rows of state.cleaned for the documents in scope, each with the rules that drop it, if any."""
    facts = segments_of(run, run.setup.clean).bodies(
        run.warehouse.connection,
        located,
        "input_hash, text_hash, title, author, published, declared_language, language, language_score, words, scores,"
        " hash(origins, pii) AS body_hash",
    )
    _load_annotations(run)
    _load_names(run)
    # The document's own fields say its date best; what its page says is better than what its path does.
    by_path = "(r.document_date IS NULL OR coalesce(r.date_from = 'path', false))"
    rows = f"""SELECT s.document_id, coalesce(t.clean, r.title, m.title) AS title,
            coalesce(m.author, a.clean, (r.metadata->>'author')) AS author, m.text_hash, m.declared_language,
            m.language, m.language_score, m.words, m.scores, m.scores.characters AS characters,
            coalesce(CASE WHEN {by_path} THEN m.published END, r.document_date) AS document_date,
            CASE WHEN {by_path} AND m.published IS NOT NULL THEN 'content' ELSE r.date_from END
                AS date_from,
            r.source, n.matches, n.model_scores, m.body_hash, s.input_hash, s.origin
        FROM {facts} AS m JOIN scope AS s USING (input_hash) JOIN state.raw AS r USING (document_id)
        LEFT JOIN annotated AS n ON n.text_hash = m.text_hash
        LEFT JOIN names AS t ON t.name = r.title LEFT JOIN names AS a ON a.name = (r.metadata->>'author')"""
    return f"""WITH rows AS MATERIALIZED (
            SELECT *, {CONTAMINATION} AS contamination, hash({HASHED}) AS content_hash
            FROM ({rows})),
        decided AS ({_verdicts(rules.drop, "rows")})
        SELECT {COLUMNS}, d.verdicts, '{run.run_id}' AS run_id, input_hash, origin, content_hash,
            {_row_hash("d.verdicts")} AS row_hash
        FROM rows LEFT JOIN decided AS d USING (document_id)"""


def _row_hash(verdicts: str) -> str:
    return f"hash(content_hash, {verdicts})"


def _load_names(run: Run) -> None:
    """Make the table names (name, clean): titles and authors of records in scope, without personal data."""
    connection, kinds = run.warehouse.connection, run.config.clean.pii
    names = pa.table({"name": pa.array([], pa.string()), "clean": pa.array([], pa.string())})
    if kinds:
        secret = load_pii_key()
        found = connection.execute(
            """SELECT DISTINCT name FROM (SELECT unnest([title, metadata->>'author']) AS name
            FROM state.raw SEMI JOIN scope USING (document_id)) WHERE name IS NOT NULL"""
        ).fetchall()
        clean = [replace_pii(name, kinds, secret)[0] for (name,) in found]
        names = pa.table({"name": [name for (name,) in found], "clean": clean}, schema=names.schema)
    load_rows(connection, "names", names)


def _load_annotations(run: Run) -> None:
    """Make the table annotated (text_hash, matches, model_scores) of the texts in scope."""
    connection, setup = run.warehouse.connection, run.setup
    load_rows(connection, "annotated", ANNOTATED.empty_table())
    for stage in setup.annotations:
        column = stage.outputs.names[0]
        facts = segments_of(run, stage).bodies(
            connection,
            f"(FROM {stage.name}_located WHERE error IS NULL)",
            f"input_hash AS text_hash, {column}",
        )
        connection.execute(f"INSERT INTO annotated BY NAME SELECT * FROM {facts}")
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE annotated AS SELECT text_hash, any_value(matches) AS matches,
            map_from_entries(flatten(list(map_entries(model_scores)) FILTER (model_scores IS NOT NULL))) AS model_scores
        FROM annotated GROUP BY text_hash"""
    )


def _verdicts(rules: Sequence[Rule], relation: str) -> str:
    """One row (document_id, verdicts) for each document of the relation that fails a rule."""
    if not rules:
        return f"SELECT document_id, {_NO_VERDICTS} AS verdicts FROM {relation} LIMIT 0"
    failed = decisions_sql(rules, f"(SELECT *, characters AS text_length FROM {relation})")
    return f"""SELECT document_id, list({{'rule': rule, 'score': score, 'threshold': threshold}} ORDER BY position)
        AS verdicts FROM ({failed}) GROUP BY document_id"""


_NO_VERDICTS = "NULL::STRUCT(rule VARCHAR, score DOUBLE, threshold DOUBLE)[]"


def _decide_anew(run: Run, connection: duckdb.DuckDBPyConnection, counts: Counts, rules: Rules) -> None:
    """Decide every document by other rules than before, from the scores; only rows that differ are touched."""
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE moved AS
        SELECT c.document_id, c.verdicts IS NULL AS before, d.verdicts IS NULL AS now, d.verdicts
        FROM state.cleaned AS c LEFT JOIN ({_verdicts(rules.drop, "state.cleaned")}) AS d USING (document_id)
        WHERE c.verdicts IS DISTINCT FROM d.verdicts"""
    )
    connection.execute(
        f"""UPDATE state.cleaned SET verdicts = moved.verdicts, run_id = ?, row_hash = {_row_hash("moved.verdicts")}
        FROM moved WHERE moved.document_id = cleaned.document_id""",
        [run.run_id],
    )
    row = connection.execute(
        """SELECT count(*) FILTER (now AND NOT before), count(*) FILTER (before AND NOT now),
            count(*) FILTER (NOT now AND NOT before) FROM moved"""
    ).fetchone()
    assert row is not None
    counts.rows_added += row[0]
    counts.rows_removed += row[1]
    counts.decisions_changed += row[2]


def flags_view(rules: Rules) -> str:
    """Return the query of lineage.flags over the published file."""
    if not rules.flag:
        return """SELECT document_id, uri, ''::VARCHAR AS rule, 0::DOUBLE AS score, 0::DOUBLE AS threshold
            FROM main.raw LIMIT 0"""
    relation = """(SELECT *, scores.characters AS text_length FROM main.cleaned)"""
    return f"""SELECT document_id, r.uri, f.rule, f.score, f.threshold
        FROM ({decisions_sql(rules.flag, relation)}) AS f JOIN main.raw AS r USING (document_id)"""


def contamination_view(setup: Setup) -> str:
    """Return the query of lineage.contamination_report over the published file: a row for each evaluation set."""
    sets = ", ".join(
        f"({quoted(each.name)}, {quoted(str(each.path))}, {len(each.items())})"
        for each in setup.evaluation_sets
    )
    relation = f"(VALUES {sets})" if sets else "(SELECT ''::VARCHAR, ''::VARCHAR, 0 WHERE false)"
    return f"""SELECT s.evaluation_set, s.path, s.items, count(DISTINCT c.item) AS items_found,
            count(DISTINCT c.document_id) AS documents,
            count(DISTINCT c.document_id) FILTER (d.document_id IS NOT NULL) AS documents_dropped,
            coalesce(max(c.matched / c.total), 0) AS largest_share
        FROM {relation} AS s(evaluation_set, path, items)
        LEFT JOIN lineage.contamination AS c USING (evaluation_set)
        LEFT JOIN (SELECT document_id FROM lineage.decisions WHERE rule = 'contamination') AS d USING (document_id)
        GROUP BY ALL"""


def rules_query(rules: Rules) -> str:
    """Return a query that gives the rows of lineage.rules."""
    listed = [(rule, "drop") for rule in rules.drop] + [(rule, "flag") for rule in rules.flag]
    rows = ", ".join(
        f"({number}, {quoted(rule.name)}, '{action}', {quoted(rule.condition)}, {quoted(rule.score)},"
        f" {rule.threshold!r}::DOUBLE)"
        for number, (rule, action) in enumerate(listed)
    )
    return f"SELECT * FROM (VALUES {rows}) AS rules(position, rule, action, condition, score, threshold)"
