"""Segments of the memo: rows are appended, found and merged, in batches that are neither many nor large."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from stemma.hashing import hash_texts
from stemma.resources import memo
from stemma.resources.memo import Mapped, Segments

OUTPUTS = pa.schema([("text", pa.string())])


@pytest.fixture
def segments(tmp_path: Path) -> Segments:
    return Segments(tmp_path / "memo" / "act" / "recipe", OUTPUTS, Mapped(tmp_path / "quarantine"))


def rows(segments: Segments, texts: list[str]) -> pa.Table:
    nulls = pa.nulls(len(texts), pa.string())
    return pa.table([hash_texts(texts), pa.array(texts), nulls, nulls], schema=segments.schema)


def batch_sizes(segments: Segments) -> list[list[int]]:
    found = []
    for path in segments.files():
        with pa.ipc.open_file(path) as file:
            found.append([file.get_batch(number).num_rows for number in range(file.num_record_batches)])
    return found


def texts_of(segments: Segments, texts: list[str]) -> list[str]:
    connection = duckdb.connect(config={"arrow_lossless_conversion": True})
    connection.register("keys", pa.table({"input_hash": hash_texts(texts)}))
    segments.locate(connection, "keys", "places")
    found = connection.execute(f"SELECT text FROM {segments.bodies(connection, 'places', 'text')}").fetchall()
    return sorted(text for (text,) in found)


def test_a_batch_holds_as_many_rows_as_fit(segments: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memo, "BATCH_ROWS", 16_384)
    monkeypatch.setattr(memo, "BATCH_BYTES", 8 << 20)
    short = [f"text {number}" for number in range(20_000)]
    long = [f"{number} " + "x" * 4_000_000 for number in range(5)]
    segments.append(rows(segments, short))
    segments.append(rows(segments, long))
    assert batch_sizes(segments) == [[16_384, 3_616], [2, 2, 1]]
    assert texts_of(segments, [short[17], short[17_500], *long]) == sorted([short[17], short[17_500], *long])


def test_merging_puts_small_batches_together(segments: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memo, "MERGE_SEGMENTS", 3)
    monkeypatch.setattr(memo, "BATCH_ROWS", 50)
    monkeypatch.setattr(memo, "BATCH_BYTES", 8 << 20)
    texts = [f"text {number}" for number in range(120)]
    for start in range(0, 120, 20):
        segments.append(rows(segments, texts[start : start + 20]))
    large = ["y" * 9_000_000, "z" * 9_000_000]
    segments.append(rows(segments, large))
    # The large one is left alone: it would be written anew for the sake of six small ones.
    assert segments.merge() == 6
    assert batch_sizes(segments) == [[1, 1], [40, 40, 40]]
    assert texts_of(segments, texts + large) == sorted(texts + large)
    assert texts_of(segments, ["text 41", large[1]]) == sorted(["text 41", large[1]])
    assert segments.check() == 0


def test_many_small_segments_become_few_and_nothing_is_lost(segments: Segments) -> None:
    texts = [f"text {number}" for number in range(150)]
    rewritten = 0
    for text in texts:
        segments.append(rows(segments, [text]))
        rewritten += segments.merge()
        assert len(segments.files()) <= 3 * memo.MERGE_SEGMENTS
    # A row is written anew when nine like its segment are there, and no more often.
    assert 0 < rewritten <= 2 * len(texts)
    assert texts_of(segments, texts) == sorted(texts)
    assert segments.check() == 0


def test_a_scan_tells_which_key_each_row_is_of(segments: Segments) -> None:
    for first in (0, 10, 20):
        segments.append(rows(segments, [f"text {number}" for number in range(first, first + 10)]))
    # A key that is known twice is found once; one that nobody knows has no row; one that is asked twice has two.
    segments.append(rows(segments, ["text 3"]))
    asked = ["text 27", "unknown", "text 3", "text 14", "text 3", "text 0"]
    found: dict[int, str] = {}
    for which, batch in segments.scan(hash_texts(asked).storage, ["text"]):
        assert len(which) == batch.num_rows
        for position, text in zip(which.tolist(), batch["text"].to_pylist(), strict=True):
            assert position not in found
            found[position] = text
    assert found == {place: text for place, text in enumerate(asked) if text != "unknown"}
    assert list(segments.scan(hash_texts(["unknown"]).storage, ["text"])) == []


def test_what_failed_is_located_with_its_reason_and_has_no_body(segments: Segments) -> None:
    good, bad = rows(segments, ["good"]), rows(segments, ["bad"])
    reason = [pa.array(["ValueError"]), pa.array(["no text"])]
    segments.append(good)
    segments.append(pa.table([bad["input_hash"], pa.nulls(1, pa.string()), *reason], schema=segments.schema))
    connection = duckdb.connect(config={"arrow_lossless_conversion": True})
    connection.register("keys", pa.table({"input_hash": hash_texts(["good", "bad", "unknown"])}))
    segments.locate(connection, "keys", "places")
    query = "SELECT error, detail FROM places ORDER BY ALL"
    assert connection.execute(query).fetchall() == [("ValueError", "no text"), (None, None)]
    bodies = segments.find_bodies(connection, "keys", "text")
    assert connection.execute(f"FROM {bodies}").fetchall() == [("good",)]
