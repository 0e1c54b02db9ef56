"""What a person sees: Dagster's real UI and the report, in Chromium."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from browser import (
    chromium,
    materialize_all,
    materialize_day,
    new_page,
    open_asset,
    open_graph,
    opened,
    picture_width,
)
from harness import Corpus, sentence
from server import Server, running

from stemma.cli import main
from stemma.reporting.charts import WIDTH
from stemma.resources.engine.step_checks import NAMES

pytestmark = pytest.mark.skipif(
    chromium() is None,
    reason="no Chromium: apt-get install chromium (make browser does it for root on Debian)",
)

TITLE = "<script>alert('title')</script>"


def make_corpus(root: Path) -> Corpus:
    # In two dimensions vectors lie in a plane, of which a check warns.
    corpus = Corpus(root, chunk={"max_tokens": 60}, embed={"model": "hash:2"})
    corpus.fill(70, words=40)
    corpus.write("copy.txt", sentence("doc000.txt", 40))
    corpus.write("empty.txt", " \n")
    corpus.write("broken.pdf", b"%PDF-1.4 broken")
    escaped = TITLE.replace("<", "&lt;")
    corpus.write("2024-05-05/a-title.html", f"<title>{escaped}</title><p>{sentence('title', 60)}.</p>")
    return corpus


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with opened() as started:
        yield started


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(make_corpus(tmp_path_factory.mktemp("browser"))) as started:
        yield started


@pytest.fixture(scope="module")
def page(browser: Any, server: Server) -> Any:
    """A page of the UI, after Materialize all has been pressed on the asset graph."""
    page = new_page(browser)
    page.dialogs = []
    page.on("dialog", lambda dialog: (page.dialogs.append(dialog.message), dialog.dismiss()))
    open_graph(page, server)
    materialize_all(page, server)
    return page


def test_materialize_all_turns_the_graph_green(page: Any, server: Server) -> None:
    open_graph(page, server)
    # Those with partitions tell how many of these are filled.
    page.get_by_text("Materialized", exact=True).nth(2).wait_for()
    for name in ("raw", "cleaned", "deduplicated", "chunked"):
        count = len(NAMES[name])
        page.get_by_text(f"{count} / {count} Passed").first.wait_for()
    assert page.get_by_text("Failed", exact=True).count() == 0
    assert server.corpus.count("corpus.embedded") > 70


def test_an_asset_shows_rows_pictures_and_checks_in_place(page: Any, server: Server) -> None:
    open_asset(page, server, "cleaned", "events")
    for name in ("How long the texts are", "Languages", "Rules that dropped documents"):
        assert picture_width(page.get_by_alt_text(name)) == WIDTH, name
    for label, count in (("rows_in", 74), ("rows_computed", 73), ("errors", 1)):
        row = page.get_by_role("row").filter(has=page.get_by_text(label, exact=True))
        assert row.get_by_role("cell").nth(1).inner_text().strip() == str(count), label
    assert page.get_by_text("seconds_saved", exact=True).count() == 1
    page.get_by_role("row").filter(has_text="preview").get_by_text(TITLE).wait_for()
    assert page.dialogs == [], "a title stays text"


def test_an_asset_links_to_its_columns_lineage_and_code(page: Any, server: Server) -> None:
    open_asset(page, server, "cleaned", "overview")
    page.get_by_text("cleaning/clean.py").first.wait_for()
    page.get_by_text("language code by CLD2; null when unknown").wait_for()


def test_the_map_of_vectors_opens(page: Any, server: Server) -> None:
    open_asset(page, server, "embedded", "events")
    assert picture_width(page.get_by_alt_text("From raw to embedded")) == WIDTH
    page.get_by_role("row").filter(has_text="map").get_by_text("[Show Markdown]").click()
    assert picture_width(page.get_by_role("dialog").get_by_alt_text("A map of ")) == WIDTH


def test_a_failed_check_is_explained(page: Any, server: Server) -> None:
    open_asset(page, server, "embedded", "checks")
    page.get_by_text("vectors_spread").first.click()
    page.get_by_text("The vectors do not all point one way, nor lie in a plane").first.wait_for()
    page.get_by_text("(at least 2.0)").first.wait_for()
    page.get_by_text("Failed", exact=True).first.wait_for()


def test_a_day_is_launched(page: Any, server: Server) -> None:
    # Of the last 90 days: the dialog shows no others at first.
    day, other = (date.today() - timedelta(days=days) for days in (3, 5))
    server.corpus.write(f"{day}/more.txt", sentence("more", 60))
    server.corpus.write(f"{other}/waits.txt", sentence("waits", 60))
    materialize_day(page, server, "raw", day.isoformat())
    open_asset(page, server, "raw", "events")
    row = page.get_by_role("row").filter(has=page.get_by_text("rows_added", exact=True))
    assert row.get_by_role("cell").nth(1).inner_text().strip() == "1"
    row = page.get_by_role("row").filter(has=page.get_by_text("rows_waiting", exact=True))
    assert row.get_by_role("cell").nth(1).inner_text().strip() == "1"


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (380, "dark")])
def test_the_report_is_a_page_of_its_own(
    browser: Any, page: Any, server: Server, tmp_path: Path, width: int, scheme: str
) -> None:
    file = tmp_path / "report.html"
    assert main(["report", "--config", str(server.corpus.root / "stemma.toml"), "--output", str(file)]) == 0
    report = new_page(browser, width, 800, scheme)
    heard: list[str] = []
    asked: list[str] = []
    report.on("console", lambda message: heard.append(message.text))
    report.on("pageerror", lambda error: heard.append(str(error)))
    report.on("dialog", lambda dialog: (heard.append(dialog.message), dialog.dismiss()))
    report.on("request", lambda request: asked.append(request.url))
    report.goto(file.as_uri(), wait_until="load")
    assert heard == []
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    assert report.evaluate("document.documentElement.scrollWidth") == width, "nothing sticks out"
    assert report.title() == "docs: corpus report"
    assert report.locator("figure svg").count() == 9
    assert TITLE in report.locator("#map").evaluate("map => map.textContent")
    ink, paper = report.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert abs(brightness(ink) - brightness(paper)) > 180
    assert (brightness(paper) > 128) == (scheme == "light")
    bar = report.locator("#funnel svg path.a").first
    assert bar.evaluate("bar => getComputedStyle(bar).stroke") not in (ink, paper, "none"), (
        "the style applies"
    )
    report.context.close()


def brightness(colour: str) -> float:
    """Return how bright a colour `rgb(r, g, b)` is, 0 to 255."""
    red, green, blue = (int(each) for each in colour.removeprefix("rgb(").removesuffix(")").split(","))
    return 0.3 * red + 0.59 * green + 0.11 * blue
