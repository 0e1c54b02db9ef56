"""The profile of deduplicated: its numbers against the published tables, and the pictures of it."""

import base64
import json
import re
import struct
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from harness import Corpus, sentence
from hypothesis import given
from hypothesis import strategies as st

from stemma.assets import plots
from stemma.definitions import JOB, build_definitions
from stemma.resources.engine.profile import profile

PICTURES = ("repetition_profile", "age_profile")


def make_corpus(root: Path) -> Corpus:
    made = Corpus(root)
    made.fill(4, words=60)
    for number in range(3):
        made.write(f"2019-0{number + 1}-10/copy.txt", sentence("copied", 90))
    made.write("2021-05-05/near.txt", sentence("near", 90))
    made.write("2024-05-05/near.txt", sentence("near", 90) + " and a little more")
    made.write("2022-02-02/alone.txt", sentence("alone", 40))
    return made


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    made = make_corpus(tmp_path_factory.mktemp("profiled"))
    made.run()
    return made


@pytest.fixture(scope="module")
def found(corpus: Corpus) -> dict[str, Any]:
    run = corpus.start()
    try:
        return profile(run)
    finally:
        run.warehouse.close()


def test_the_numbers_are_those_of_the_published_tables(corpus: Corpus, found: dict[str, Any]) -> None:
    assert found["documents"] == corpus.count("lineage.members") == 10
    assert found["kept"] == corpus.count("corpus.deduplicated") == 7
    assert found["families"] == corpus.count("corpus.families") == 2
    assert found["largest_family"] == 3
    assert found["removed"] == {"exact": 2, "near": 1}
    repeated, characters = corpus.query(
        "SELECT sum(repeated_characters), sum(characters) FROM lineage.repetition"
    )[0]
    assert found["share_repeated"] == pytest.approx(repeated / characters)
    assert (found["oldest_date"], found["newest_date"]) == (date(2019, 1, 10), date(2024, 5, 5))
    assert found["median_date"] == date(2019, 3, 10)
    years = {row["year"]: (row["kept"] + row["removed"], row["kept"]) for row in found["years"]}
    assert years == {
        year: (n, kept) for year, n, kept in corpus.query("SELECT year, documents, kept FROM lineage.ages")
    }


def test_sizes_are_classes_of_the_published_ones(corpus: Corpus, found: dict[str, Any]) -> None:
    for row in found["sizes"]:
        lowest = row["up_to"] // 2 + 1
        assert corpus.query(
            f"""SELECT sum(families), sum(documents), sum(characters), sum(repeated_characters)
            FROM lineage.repetition WHERE copies BETWEEN {lowest} AND {row["up_to"]}"""
        ) == [(row["families"], row["documents"], row["characters"], row["repeated"])]
    assert [row["up_to"] for row in found["sizes"]] == [1, 2, 4]


def test_an_empty_corpus_has_a_profile_without_pictures(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    corpus.write("empty.txt", " \n")
    corpus.run()
    run = corpus.start()
    try:
        facts = plots.profile_metadata(profile(run))
    finally:
        run.warehouse.close()
    assert facts == {"documents": 0, "kept": 0, "families": 0, "largest_family": 0, "share_repeated": 0.0}


@pytest.mark.parametrize("picture", PICTURES)
def test_a_picture_is_a_png_with_a_text(found: dict[str, Any], picture: str) -> None:
    markdown = plots.profile_metadata(found)[picture].md_str
    match = re.fullmatch(r"!\[([^\]\n]+)\]\(data:image/png;base64,([A-Za-z0-9+/=]+)\)", markdown)
    assert match is not None
    data = base64.b64decode(match[2])
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", data[16:24]) == tuple(round(side * plots.DOTS) for side in plots.SIZE)
    assert len(data) < 30_000
    assert markdown == plots.profile_metadata(found)[picture].md_str, "the same numbers make the same picture"


def test_pictures_say_in_words_what_they_show(found: dict[str, Any]) -> None:
    words = plots.repetition_text(found["sizes"])
    assert re.fullmatch(r".*: 1: \d+\.\d%, 2: \d+\.\d%, 3–4: \d+\.\d%", words)
    assert plots.age_text(found["years"]).endswith("2019: 3, 2021: 1, 2022: 1, 2024: 1, none: 4")


@pytest.mark.parametrize(
    ("up_to", "label"), [(1, "1"), (2, "2"), (4, "3–4"), (8, "5–8"), (2048, "1,025–2,048")]
)
def test_classes_of_sizes_are_named(up_to: int, label: str) -> None:
    assert plots.size_label(up_to) == label


YEARS = st.dictionaries(
    st.none() | st.integers(1000, 2100), st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1
)


@given(YEARS)
def test_no_document_is_missing_among_the_bars_of_years(years: dict[int | None, tuple[int, int]]) -> None:
    bars = plots.age_bars([{"year": year, "kept": a, "removed": b} for year, (a, b) in years.items()])
    assert sum(kept for _, kept, _ in bars) == sum(kept for kept, _ in years.values())
    assert sum(gone for _, _, gone in bars) == sum(gone for _, gone in years.values())
    assert len(bars) <= plots.MOST_YEARS + 2
    named = [int(label) for label, _, _ in bars if label.isdigit()]
    assert named == list(range(named[0], named[0] + len(named))) if named else set(years) == {None}


def test_an_asset_shows_them_where_something_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    corpus = make_corpus(tmp_path / "corpus")
    with dg.DagsterInstance.get() as instance:
        first, second = (materialized(instance, corpus) for _ in range(2))
        corpus.write("more.txt", sentence("more", 40))
        third = materialized(instance, corpus)
    assert (first["removed_exact"], first["removed_near"], first["kept"]) == (2, 1, 7)
    assert first["oldest_date"] == "2019-01-10"
    assert all(first[name].startswith("![") for name in PICTURES)
    assert not set(PICTURES) & set(second), "nothing changed"
    assert third["kept"] == 8
    assert all(third[name] != first[name] for name in PICTURES)


def materialized(instance: dg.DagsterInstance, corpus: Corpus) -> dict[str, Any]:
    """Run all steps; returns the metadata of deduplicated."""
    config = corpus.config()
    result = (
        build_definitions(config, str(config.file))
        .resolve_job_def(JOB)
        .execute_in_process(
            instance=instance,
            run_config={"resources": {"pipeline": {"config": {"config_file": str(config.file)}}}},
        )
    )
    (event,) = (
        event
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey("deduplicated")
    )
    return {name: entry.value for name, entry in event.materialization.metadata.items()}


@pytest.mark.slow
def test_matplotlib_is_loaded_only_to_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMMA_CONFIG", "")
    corpus = make_corpus(tmp_path)
    corpus.config()
    code = (
        "import sys; from stemma.cli import main; code = main(['run', '--quiet', '--json'])\n"
        "print(code, 'matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules, file=sys.stderr)"
    )
    told = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
        )
        told.append(done.stderr.strip().splitlines()[-1])
        facts = json.loads(done.stdout)["datasets"]["deduplicated"]
        assert not set(PICTURES) & set(facts), "pictures are not for programs"
    assert told == ["0 True False", "0 False False"]
    assert facts["rows_computed"] == 0
