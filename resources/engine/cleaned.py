"""cleaned: text, language and scores of every document; keep or drop is a predicate over the scores."""

from stemma.cleaning.verdict import Rule, decide_sql, metric
from stemma.hashing import key
from stemma.incremental.stage import Stage
from stemma.resources.engine.raw import bodies_of
from stemma.resources.engine.rowwise import Bodies, RowDataset, segments_of
from stemma.resources.engine.run import Run
from stemma.resources.engine.setup import Setup

# The scores hold the length as well: reading it there spares reading the texts.
TEXT_LENGTH = f"{metric('characters')}::BIGINT"


def cleaned(setup: Setup) -> RowDataset:
    """Return how cleaned is made of raw."""
    stage = setup.clean
    rules = decide_sql(setup.config.clean.profile, setup.config.clean.languages)
    # A raw title wins over one that cleaning finds; both and the date are taken over without being cleaned anew.
    desired = """(SELECT document_id, document_id AS part, input_hash,
        hash(input_hash, title, document_date, source) AS origin FROM state.raw)"""
    return RowDataset(
        name="cleaned",
        upstream="raw",
        key="document_id",
        stage=stage,
        desired=desired,
        current="(SELECT document_id, document_id AS part, origin FROM state.cleaned)",
        bodies=_bodies,
        fresh=lambda run, located: _fresh(run, stage, located, rules),
        recipe=key("cleaned", setup.recipe(stage), *(repr(rule) for rule in rules)).hex(),
    )


def _bodies(run: Run) -> Bodies:
    def relation(missing: str) -> str:
        store = bodies_of(run)
        places = f"{missing}_places"
        store.locate(run.warehouse.connection, missing, places)
        return store.bodies(
            run.warehouse.connection, places, "input_hash, content, content_bytes, media_type"
        )

    return relation


def _fresh(run: Run, stage: Stage, located: str, rules: list[Rule]) -> str:
    """The rows of state.cleaned for the documents in scope, each with the first rule that drops it, if any."""
    facts = segments_of(run, stage).bodies(
        run.warehouse.connection,
        located,
        f"input_hash, text_hash, title, language, language_score, words, quality, {TEXT_LENGTH} AS text_length",
    )
    return f"""
        SELECT document_id, title, text_hash, language, language_score, words, quality, text_length AS characters,
            document_date, source, rule, score, threshold, '{run.run_id}' AS run_id, input_hash, origin,
            hash(document_id, title, text_hash, language, language_score, words, quality, document_date, source, rule,
                score, threshold) AS row_hash
        FROM (SELECT *, {_case(rules, "name")} AS rule, {_case(rules, "score")} AS score,
                {_case(rules, "threshold")} AS threshold
            FROM (SELECT s.document_id, coalesce(r.title, m.title) AS title, m.text_hash, m.language, m.language_score,
                    m.words, m.quality::JSON AS quality, m.text_length, r.document_date, r.source, s.input_hash,
                    s.origin
                FROM {facts} AS m JOIN scope AS s USING (input_hash) JOIN state.raw AS r USING (document_id)))"""


def _case(rules: list[Rule], what: str) -> str:
    values = {
        "name": lambda rule: f"'{rule.name}'",
        "score": lambda rule: f"({rule.score})::DOUBLE",
        "threshold": lambda rule: f"({rule.threshold})::DOUBLE",
    }[what]
    branches = " ".join(f"WHEN ({rule.condition}) THEN {values(rule)}" for rule in rules)
    return f"CASE {branches} END"
