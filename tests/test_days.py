"""Days: runs confined to partitions, in any order, end where one run over everything ends."""

import json
from datetime import date, timedelta
from pathlib import Path

import pytest
from harness import Corpus, examples, sentence
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from stemma.incremental.days import ALL_DAYS, Days

FIRST = date(2026, 1, 1)
DAYS = [FIRST + timedelta(days=number) for number in range(4)]


def one(day: date) -> Days:
    return Days(day, day)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    made = Corpus(tmp_path)
    made.steady = True
    return made


def rows(corpus: Corpus, name: str, *documents: tuple[str, date, str]) -> None:
    """Write a file of records (id, day, subject of the text)."""
    lines = [
        json.dumps({"id": record, "date": day.isoformat(), "text": sentence(subject, 30)})
        for record, day, subject in documents
    ]
    corpus.write(name, "\n".join(lines))


def held(corpus: Corpus) -> dict[str, tuple[date, str]]:
    """Return the published documents: record to day and the beginning of the text."""
    return {
        record: (day, text)
        for record, day, text in corpus.query(
            "SELECT record, partition_date, left(content, 40) FROM corpus.raw"
        )
    }


def test_a_run_of_one_day_takes_in_that_day_alone(corpus: Corpus) -> None:
    rows(corpus, "a.jsonl", ("1", DAYS[0], "one"), ("2", DAYS[1], "two"), ("3", DAYS[2], "three"))
    corpus.run(days=one(DAYS[1]))
    assert set(held(corpus)) == {"2"}
    assert dict(corpus.query("SELECT record, change FROM lineage.waiting")) == {"1": "new", "3": "new"}
    before = corpus.query("FROM lineage.trace ORDER BY ALL")
    corpus.run(days=one(DAYS[3]))
    assert corpus.query("FROM lineage.trace ORDER BY ALL") == before
    corpus.run(days=one(DAYS[2]))
    assert set(held(corpus)) == {"2", "3"}
    corpus.run()
    assert corpus.differences() == []
    assert corpus.count("lineage.waiting") == 0


def test_what_waits_is_not_parsed_again(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    rows(corpus, "a.jsonl", ("1", DAYS[0], "one"), ("2", DAYS[1], "two"))
    corpus.run(days=one(DAYS[0]))
    monkeypatch.delattr("stemma.resources.looking._items")
    corpus.run(days=one(DAYS[1]))
    assert set(held(corpus)) == {"1", "2"}


def test_a_rerun_of_an_old_day_changes_only_that_day(corpus: Corpus) -> None:
    rows(corpus, "a.jsonl", ("1", DAYS[0], "one"), ("2", DAYS[1], "two"), ("3", DAYS[2], "three"))
    corpus.run()
    was = held(corpus)
    rows(corpus, "a.jsonl", ("1", DAYS[0], "new one"), ("2", DAYS[1], "new two"), ("4", DAYS[2], "four"))
    corpus.run(days=one(DAYS[1]))
    now = held(corpus)
    assert now.pop("2") != was.pop("2")
    assert now == was
    told = dict(corpus.query("SELECT record, change FROM lineage.waiting"))
    assert told == {"1": "changed", "3": "removed", "4": "new"}
    corpus.run(days=one(DAYS[2]))
    assert set(held(corpus)) == {"1", "2", "4"}


def test_a_document_that_changes_its_day_is_never_there_twice(corpus: Corpus) -> None:
    for order in ((0, 1), (1, 0)):
        rows(corpus, "a.jsonl", ("1", DAYS[0], "one"), ("2", DAYS[0], "two"))
        corpus.run()
        rows(corpus, "a.jsonl", ("1", DAYS[1], "one"), ("2", DAYS[0], "two"))
        corpus.run(days=one(DAYS[order[0]]))
        assert set(held(corpus)) == ({"2"} if order[0] == 0 else {"1", "2"})
        corpus.run(days=one(DAYS[order[1]]))
        assert held(corpus)["1"][0] == DAYS[1]
        assert corpus.differences() == []


def test_what_comes_back_before_its_day_ran_was_never_gone(corpus: Corpus) -> None:
    rows(corpus, "a.jsonl", ("1", DAYS[0], "one"))
    rows(corpus, "b.jsonl", ("2", DAYS[0], "two"))
    corpus.run()
    corpus.delete("b.jsonl")
    corpus.run(days=one(DAYS[2]))
    assert set(held(corpus)) == {"1", "2"}
    assert corpus.query("SELECT record, change FROM lineage.waiting") == [("2", "removed")]
    rows(corpus, "b.jsonl", ("2", DAYS[0], "two"))
    corpus.run(days=one(DAYS[2]))
    assert corpus.count("lineage.waiting") == 0
    assert corpus.differences() == []


def test_a_lost_state_is_made_of_all_days(corpus: Corpus) -> None:
    rows(corpus, "a.jsonl", ("1", DAYS[0], "one"), ("2", DAYS[1], "two"))
    corpus.run()
    (corpus.path.with_suffix(".work") / "state.duckdb").unlink()
    corpus.run(days=one(DAYS[1]))
    assert set(held(corpus)) == {"1", "2"}


NUMBER = st.integers(0, 2)
DAY = st.integers(0, 3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), NUMBER, st.lists(st.tuples(NUMBER, DAY, NUMBER), max_size=4)),
        st.tuples(st.just("delete"), NUMBER),
        st.tuples(st.just("run"), DAY, DAY),
    ),
    min_size=3,
    max_size=12,
)


@given(STEPS)
@settings(max_examples=examples(8), deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
def test_partitions_in_any_order_end_where_one_run_ends(
    tmp_path_factory: pytest.TempPathFactory, steps
) -> None:
    corpus = Corpus(tmp_path_factory.mktemp("days"), embed={"model": "hash:16"})
    corpus.steady = True
    rows(corpus, "0.jsonl", ("first", DAYS[0], "first"))
    for kind, *what in steps:
        if kind == "write":
            number, documents = what
            unique = {
                record: (f"{record}", DAYS[day], f"{record} {subject}") for record, day, subject in documents
            }
            rows(corpus, f"{number}.jsonl", *unique.values())
        elif kind == "delete":
            (corpus.docs / f"{what[0]}.jsonl").unlink(missing_ok=True)
        else:
            corpus.run(days=Days(DAYS[min(what)], DAYS[max(what)]), allow_deletes=True)
            day_of = corpus.query("SELECT document_id FROM corpus.raw GROUP BY ALL HAVING count(*) > 1")
            assert day_of == []
    # The first partition has all earlier days, the last one all later ones (an empty file is of today).
    for days in (Days(DAYS[2]), Days(DAYS[1], DAYS[1]), Days(None, DAYS[0])):
        corpus.run(days=days, allow_deletes=True)
    assert corpus.count("lineage.waiting") == 0
    assert corpus.differences() == []


def test_all_days_is_no_condition() -> None:
    assert ALL_DAYS.condition("day") == "true"
    assert Days(FIRST).condition("day") == "day >= DATE '2026-01-01'"
