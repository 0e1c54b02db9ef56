"""Numbers, pictures and the report: against the published tables, and against text that would like to be markup."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import dagster as dg
import duckdb
import numpy as np
import pytest
from harness import Corpus, sentence
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree, html
from markdown_it import MarkdownIt

from stemma.cli import main
from stemma.definitions import JOB, build_definitions
from stemma.reporting import charts, pictures
from stemma.reporting.numbers import PUBLISHED, STATE, numbers, saved
from stemma.reporting.projection import projected
from stemma.resources import pipeline
from stemma.resources.engine.story import story

# What Dagster's UI shows in place.
SHOWN_IN_PLACE = 1_000
HOSTILE = "<script>alert('&amp;\"%23#')</script> \\ ](x) \x00 \ud800 ünï 中文"
HOSTILE_NAME = "<script>alert(1)</script>"
DATASETS = ("raw", "cleaned", "deduplicated", "chunked", "embedded")


def make_corpus(root: Path) -> Corpus:
    made = Corpus(root, chunk={"max_tokens": 40})
    made.fill(4, words=60)
    for number in range(3):
        made.write(f"2019-0{number + 1}-10/copy.txt", sentence("copied", 90))
    made.write("2021-05-05/near.txt", sentence("near", 90))
    made.write("2024-05-05/near.txt", sentence("near", 90) + " and a little more")
    made.write("2022-02-02/alone.txt", sentence("alone", 40))
    made.write(
        "titled.html", f"<title>{HOSTILE_NAME.replace('<', '&lt;')}</title><p>{sentence('t', 60)}.</p>"
    )
    made.write("empty.txt", " \n")
    made.write("broken.pdf", b"%PDF-1.4 broken")
    made.write("broken.parquet", b"PAR1 broken PAR1")
    return made


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    made = make_corpus(tmp_path_factory.mktemp("reported"))
    made.run()
    return made


@pytest.fixture(scope="module")
def found(corpus: Corpus) -> dict[str, dict[str, Any]]:
    with duckdb.connect(str(corpus.path), read_only=True) as connection:
        return {name: numbers(connection, PUBLISHED, name) for name in DATASETS}


def drawn(found: dict[str, dict[str, Any]]) -> dict[str, charts.Picture]:
    return {
        name: picture
        for dataset in DATASETS
        for name, picture in pictures.pictures(dataset, found[dataset]).items()
    }


# -- numbers -------------------------------------------------------------------------------------------------------


def test_state_and_published_file_tell_the_same(corpus: Corpus, found: dict[str, dict[str, Any]]) -> None:
    run = corpus.start()
    try:
        with run.warehouse.session() as connection:
            assert {name: numbers(connection, STATE, name) for name in DATASETS} == found
    finally:
        run.warehouse.close()


def test_duplicates_in_numbers_are_those_of_the_published_tables(
    corpus: Corpus, found: dict[str, dict[str, Any]]
) -> None:
    told = found["deduplicated"]
    assert told["documents"] == corpus.count("lineage.members") == 11
    assert told["kept"] == corpus.count("corpus.deduplicated") == 8
    assert told["families"] == corpus.count("corpus.families") == 2
    assert (told["largest_family"], told["removed"]) == (3, {"exact": 2, "near": 1})
    repeated, characters = corpus.query(
        "SELECT sum(repeated_characters), sum(characters) FROM lineage.repetition"
    )[0]
    assert told["share_repeated"] == pytest.approx(repeated / characters)
    assert (told["oldest_date"], told["newest_date"]) == (date(2019, 1, 10), date(2024, 5, 5))
    years = {row["year"]: (row["kept"] + row["removed"], row["kept"]) for row in told["years"]}
    assert years == {
        year: (n, kept) for year, n, kept in corpus.query("SELECT year, documents, kept FROM lineage.ages")
    }
    for row in told["sizes"]:
        lowest = row["up_to"] // 2 + 1
        assert corpus.query(
            f"""SELECT sum(families), sum(documents), sum(characters), sum(repeated_characters)
            FROM lineage.repetition WHERE copies BETWEEN {lowest} AND {row["up_to"]}"""
        ) == [(row["families"], row["documents"], row["characters"], row["repeated"])]


def test_no_document_is_missing_in_the_funnel(found: dict[str, dict[str, Any]]) -> None:
    funnel, errors = found["embedded"]["funnel"], found["embedded"]["errors"]
    assert funnel["raw"] == funnel["cleaned"] + funnel["rejected"] + errors["cleaned"] == 13
    assert funnel["cleaned"] == funnel["deduplicated"] + funnel["duplicates"]
    assert (funnel["rejected"], errors) == (1, {"cleaned": 1, "raw": 1})


RUNS = "CREATE TABLE runs (run_id VARCHAR, dataset VARCHAR, recipe VARCHAR, started_at TIMESTAMP,"
RUNS += " finished_at TIMESTAMP, rows_in BIGINT, rows_reused BIGINT, rows_computed BIGINT)"


def test_time_saved_is_rows_reused_by_what_a_row_took_where_most_were_computed() -> None:
    with duckdb.connect() as connection:
        connection.execute(RUNS)
        for number, (name, recipe, seconds, reused, computed) in enumerate(
            [
                ("first", "a", 100, 0, 1_000),
                ("small", "a", 5, 995, 5),
                ("other", "b", 500, 0, 1_000),
                ("back", "a", 1, 1_000, 0),
                ("third", "c", 2, 999, 1),
            ]
        ):
            connection.execute(
                "INSERT INTO runs VALUES (?, 'cleaned', ?, '2026-01-01'::TIMESTAMP + to_days(?),"
                " '2026-01-01'::TIMESTAMP + to_days(?) + to_seconds(?), ?, ?, ?)",
                [name, recipe, number, number, seconds, reused + computed, reused, computed],
            )
        told = saved(connection, {"runs": "runs"}, ["first", "small", "back", "third"])
    estimates = {run: (row["measured_in"], row["seconds_saved"]) for (run, _), row in told.items()}
    assert estimates == {
        "first": ("first", 0),
        "small": ("first", pytest.approx(99.5)),
        "back": ("first", pytest.approx(100)),
        # A recipe of which one row in a thousand was computed says little: the largest run of any, the last of equals.
        "third": ("other", pytest.approx(499.5)),
    }


# -- pictures ------------------------------------------------------------------------------------------------------


def test_pictures_stand_in_place_in_markdown(found: dict[str, dict[str, Any]]) -> None:
    shown = drawn(found)
    assert set(shown) == {
        *("formats", "lengths", "languages", "rejected", "repetition_profile", "age_profile"),
        *("chunk_sizes", "funnel"),
    }
    for name, picture in shown.items():
        assert len(picture.markdown) < SHOWN_IN_PLACE, name
        assert source_of(picture) == picture.alone
        assert drawn(found)[name] == picture, "the same numbers make the same picture"
    assert re.search(
        r"deduplicated: 8, 3 removed as duplicates; .*embedded: 8 with \d+ vectors$", shown["funnel"].text
    )


def source_of(picture: charts.Picture) -> str:
    """Return the SVG that a reader of the Markdown gets, once it is known to be well-formed."""
    parser = MarkdownIt()
    # Dagster's own parser lets these through, which tests/test_browser.py shows.
    parser.validateLink = lambda url: True  # type: ignore[method-assign]
    (paragraph,) = (token for token in parser.parse(picture.markdown) if token.children)
    (image,) = paragraph.children or []
    assert image.type == "image"
    kind, data = str(image.attrs["src"]).split(",", 1)
    assert kind == "data:image/svg+xml"
    assert "#" not in data
    etree.fromstring(unquote(data).encode())
    return unquote(data)


@pytest.mark.parametrize("name", [HOSTILE, HOSTILE_NAME, "", "\n", "%", "long " * 99])
def test_names_of_any_kind_stay_text_in_pictures(name: str) -> None:
    shown = [
        charts.bars("bars", [charts.Bar(name, 3), charts.Bar("b", 0)], unit=name),
        charts.scatter("map", [(0.2, 0.3), (1, 1)], [0, 1], [name, "b"], [name, name]),
        charts.funnel("funnel", [charts.Level(name, 3, name, [(name, 1)])]),
        charts.histogram("sizes", [1, 0], [(0, name), (1, "b")], x=name, y=name, marker=(1, name)),
    ]
    for picture in shown:
        tree = etree.fromstring(source_of(picture).encode())
        assert {element.tag.split("}")[1] for element in tree.iter()} <= {
            *("svg", "g", "path", "text", "tspan", "title")
        }
        page = html.fromstring(f"<div>{picture.inline}</div>")
        assert not page.xpath("//script")


HEIGHTS = st.lists(st.integers(0, 10**9), min_size=1, max_size=40)


@given(HEIGHTS, st.booleans())
def test_columns_stand_within_the_plot_and_in_proportion(counts: list[int], halved: bool) -> None:
    lower = [count // 2 for count in counts] if halved else None
    picture = charts.histogram("t", counts, [(0, "0")], x="x", y="y", lower=lower)
    (outline,) = re.findall(rf'class="{"o" if halved else "f"}" d="([^"]+)"', picture.marks)
    base = charts.TOP + charts.PLOT_HEIGHT
    steps = [int(each) for each in re.findall(r"V(\d+)", outline)]
    assert all(charts.TOP <= height <= base for height in steps)
    if any(counts):
        assert min(steps) < base - charts.PLOT_HEIGHT / 3, "the highest takes more than a third of the room"


YEARS = st.dictionaries(
    st.none() | st.integers(1000, 2100), st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1
)


@given(YEARS)
def test_no_dated_document_is_missing_among_the_classes_of_years(
    years: dict[int | None, tuple[int, int]],
) -> None:
    listed = pictures.age_classes([{"year": year, "kept": a, "removed": b} for year, (a, b) in years.items()])
    dated = {year: both for year, both in years.items() if year is not None}
    assert sum(kept for _, kept, _ in listed) == sum(kept for kept, _ in dated.values())
    assert sum(gone for _, _, gone in listed) == sum(gone for _, gone in dated.values())
    assert len(listed) <= pictures.MOST_YEARS + 1
    named = [int(label) for label, _, _ in listed if label.isdigit()]
    assert named == list(range(named[0], named[0] + len(named))) if named else not dated


@pytest.mark.parametrize(
    ("up_to", "label"), [(1, "1"), (2, "2"), (4, "3–4"), (8, "5–8"), (2048, "1,025–2,048")]
)
def test_classes_of_sizes_are_named(up_to: int, label: str) -> None:
    assert pictures.size_label(up_to) == label


@pytest.mark.parametrize("shape", [(200, 16), (20, 64)])
def test_the_map_shows_the_two_principal_components(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    vectors = (random.normal(size=shape) * np.linspace(3, 0.1, shape[1])).astype(np.float32)
    places = projected(vectors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    centred = unit - unit.mean(axis=0)
    components = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    inner = ((places > 0) & (places < 1)).all(axis=1)
    for axis in (0, 1):
        likeness = np.corrcoef(places[inner, axis], components[inner, axis])[0, 1]
        assert abs(likeness) == pytest.approx(1, abs=1e-4)
    assert np.array_equal(places, projected(vectors))


def test_vectors_that_are_none_spoil_no_map() -> None:
    vectors = np.random.default_rng(2).normal(size=(9, 4)).astype(np.float32)
    vectors[0], vectors[1, 2] = 0, np.nan
    assert np.isfinite(projected(vectors)).all()
    assert projected(np.zeros((3, 4), dtype=np.float32)).shape == (3, 2)
    assert projected(np.ones((3, 1), dtype=np.float32)).shape == (3, 2)


def test_a_map_is_coloured_by_what_splits_the_documents() -> None:
    def rows(**values: list[str]) -> list[dict[str, Any]]:
        places = {"source": ["one"] * 4, "uri": ["/x/a.txt"] * 4, "language": ["en"] * 4} | values
        return [dict(zip(places, row, strict=True)) for row in zip(*places.values(), strict=True)]

    assert pictures.grouped(rows(source=["b", "a", "b", "c"]))[:2] == ("source", ["b", "a", "c"])
    assert pictures.grouped(rows(uri=["/x/a/1", "/x/a/2", "/x/b/c/3", "/x/4"]))[:2] == (
        "folder",
        ["a", "b", "no folder"],
    )
    assert pictures.grouped(rows(language=["de", "de", "en", "de"])) == (
        "language",
        ["de", "en"],
        [0, 0, 1, 0],
    )
    many = pictures.grouped(
        [{"source": str(n % 20), "uri": "u", "language": None} for n in range(100)],
    )
    assert len(many[1]) == charts.GROUPS
    assert many[2].count(charts.GROUPS - 1) == 13 * 5


def test_an_empty_corpus_has_no_pictures(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    corpus.write("empty.txt", " \n")
    corpus.run()
    with duckdb.connect(str(corpus.path), read_only=True) as connection:
        nothing = {name: numbers(connection, PUBLISHED, name) for name in DATASETS}
    assert set(drawn(nothing)) == {"formats", "rejected", "funnel"}
    assert main(["report", "--config", str(tmp_path / "stemma.toml")]) == 0


# -- an asset's page -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_asset_shows_pictures_where_something_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    corpus = make_corpus(tmp_path / "corpus")
    with dg.DagsterInstance.get() as instance:
        run_id, first = materialized(instance, corpus)
        _, second = materialized(instance, corpus)
        corpus.write("copied-again.txt", sentence("copied", 90))
        _, third = materialized(instance, corpus)
    assert {name: pictured(facts) for name, facts in first.items()} == {
        "raw": {"formats"},
        "cleaned": {"lengths", "languages", "rejected"},
        "deduplicated": {"repetition_profile", "age_profile"},
        "chunked": {"chunk_sizes"},
        "embedded": {"funnel", "map"},
    }
    told = first["deduplicated"]
    assert (told["removed_exact"], told["removed_near"], told["kept"]) == (2, 1, 8)
    assert told["oldest_date"] == "2019-01-10"
    assert not any(pictured(facts) for facts in second.values()), "nothing changed"
    # One document more, and it is a duplicate: nothing is new from chunked on, but the way there is another.
    assert {name for name, facts in third.items() if pictured(facts)} == {
        *("raw", "cleaned", "deduplicated", "embedded")
    }
    assert pictured(third["embedded"]) == {"funnel"}
    assert second["cleaned"]["seconds_saved"] > first["cleaned"]["seconds_saved"]
    told = second["embedded"]["seconds_saved_explained"]
    assert told.startswith(f"estimate: {second['embedded']['rows_reused']} rows reused × ")
    assert told.endswith(f" as in run {run_id[:8]}")


def materialized(instance: dg.DagsterInstance, corpus: Corpus) -> tuple[str, dict[str, dict[str, Any]]]:
    """Run all steps; returns the run's id, and the metadata of each asset."""
    config = corpus.config()
    result = (
        build_definitions(config, str(config.file))
        .resolve_job_def(JOB)
        .execute_in_process(
            instance=instance,
            run_config={"resources": {"pipeline": {"config": {"config_file": str(config.file)}}}},
        )
    )
    facts = {
        event.asset_key.to_user_string(): {
            name: entry.value for name, entry in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    return result.run_id, facts


def pictured(facts: dict[str, Any]) -> set[str]:
    return {name for name, value in facts.items() if isinstance(value, str) and value.startswith("![")}


def test_assets_link_to_code_that_is_there(corpus: Corpus) -> None:
    definitions = build_definitions(corpus.config())
    for name in DATASETS:
        spec = definitions.resolve_assets_def(dg.AssetKey(name)).get_asset_spec()
        references = spec.metadata["dagster/code_references"].code_references
        assert len(references) == 3
        for reference in references:
            lines = Path(reference.file_path).read_text(encoding="utf-8").splitlines()
            assert lines[reference.line_number - 1].startswith("def ")


def test_the_story_of_a_step_is_told_without_bodies(corpus: Corpus) -> None:
    run = corpus.start()
    try:
        counts = run.begin("embedded", "recipe")
        counts.rows_added = 1
        told = story(run, counts)
    finally:
        run.warehouse.close()
    assert told.vectors is not None
    assert (
        len(told.vectors)
        == len(told.places)
        == corpus.value("SELECT count(DISTINCT text_hash) FROM corpus.embedded")
    )
    assert {tuple(sorted(place)) for place in told.places} == {("language", "source", "uri")}
    assert set(told.preview[0]) == {"chunk_id", "path", "model"}


def test_what_goes_wrong_with_a_picture_costs_no_run(corpus: Corpus) -> None:
    run = corpus.start()
    try:
        nothing = pipeline.told(dg.build_asset_context(), run, run.begin("no dataset", "recipe"))
    finally:
        run.warehouse.close()
    assert (nothing.preview, nothing.numbers) == ([], None)


# -- the report ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reported(corpus: Corpus) -> str:
    corpus.config()
    assert main(["report", "--config", str(corpus.root / "stemma.toml")]) == 0
    return (corpus.path.parent / "corpus.report.html").read_text(encoding="utf-8")


def test_a_report_needs_nothing_from_elsewhere_and_runs_nothing(reported: str) -> None:
    page = html.document_fromstring(reported)
    assert {element.tag for element in page.iter() if isinstance(element.tag, str)} & {
        *("script", "iframe", "object", "embed", "form", "base", "img", "video", "audio")
    } == set()
    links = [*page.xpath("//@href"), *page.xpath("//@src"), *page.xpath("//@srcset")]
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert not page.xpath("//@*[starts-with(name(), 'on')]")
    assert not page.xpath("//@style"), "the policy would refuse it"
    (policy,) = page.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    (style,) = page.xpath("//style/text()")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert f"style-src 'sha256-{digest}'" in policy
    assert "url(" not in style
    assert "@import" not in style


def test_a_report_tells_what_the_corpus_holds(corpus: Corpus, reported: str) -> None:
    page = html.document_fromstring(reported)
    text = " ".join(page.text_content().split())
    tiles = {div.findtext("dt"): div.findtext("dd") for div in page.xpath("//header//dl/div")}
    assert (tiles["documents read"], tiles["kept"], tiles["errors"]) == ("13", "8", "2")
    assert tiles["vectors"] == f"{corpus.count('corpus.embedded'):,}"
    for rule, count in corpus.query("SELECT rule, count(*) FROM lineage.decisions GROUP BY rule"):
        (card,) = page.xpath(f"//section[@id='dropped']//article[starts-with(h3, '{rule} ')]")
        assert card.findtext("p/strong") == str(count)
        assert len(card.findall("ul/li")) == min(count, 3)
    assert "broken.pdf" in text
    anchors = set(page.xpath("//section/@id"))
    assert {link.removeprefix("#") for link in page.xpath("//nav//@href")} == anchors
    assert len(page.xpath("//figure/svg")) == 9
    assert (
        "Of 13 documents, 1 was dropped by rules, 3 were removed as duplicates, 1 was lost to errors; 8 became"
        in text
    )
    assert HOSTILE_NAME in page.xpath("string(//section[@id='map'])"), "a title stays text"


def test_queries_that_a_report_names_run(corpus: Corpus, reported: str) -> None:
    shown = html.document_fromstring(reported).xpath("//details/pre/text()")
    queries = [query for block in shown for query in re.findall(r'^stemma sql "(.+)"$', block, re.M)]
    assert len(queries) >= 5
    for query in queries:
        corpus.query(query)


def test_a_report_is_written_at_once_where_it_is_asked_for(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["--config", str(corpus.root / "stemma.toml")]
    target = tmp_path / "page.html"
    assert main(["report", *config, "--output", str(target), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(target), "bytes": target.stat().st_size}
    assert list(tmp_path.iterdir()) == [target]
    assert main(["report", *config, "--output", str(corpus.path)]) == 2
    assert main(["report", *config, "--output", str(tmp_path / "no" / "page.html")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_a_report_beside_the_sources_is_none_of_them(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    corpus.path = corpus.docs / "corpus.duckdb"
    corpus.fill(2)
    corpus.run()
    assert main(["report", "--config", str(tmp_path / "stemma.toml")]) == 0
    assert (corpus.docs / "corpus.report.html").exists()
    assert corpus.run().counts["raw"].rows == 2


@pytest.mark.slow
def test_no_run_loads_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMMA_CONFIG", "")
    corpus = make_corpus(tmp_path)
    corpus.config()
    code = (
        "import sys; from stemma.cli import main; code = main(['run', '--quiet', '--json'])\n"
        "print(code, 'matplotlib' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stderr.strip().splitlines()[-1] == "0 False"
    for facts in json.loads(done.stdout)["datasets"].values():
        assert not any(str(value).startswith("![") for value in facts.values()), (
            "pictures are not for programs"
        )
