"""Makes the pictures of docs/images/ that show the UI and the report: python tests/screenshots.py

The sample corpus is built with the real model, two documents of it in a second run, and looked at in Chromium.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from browser import materialize_all, new_page, open_asset, open_graph, opened
from harness import Corpus
from PIL import Image
from server import Server, running

from stemma.cli import main
from stemma.config import EmbedConfig, SourceConfig

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
LATER = ("bzip2/manual.html", "electron/blog/fr-FR/electron-14-0.md")
# Colours of a palette: a third of the size, and nobody sees it.
COLOURS = 128
MARGIN = 40
DRAGGED = 580


def make() -> None:
    """Write asset-graph.png, asset-page.png, report.png and report-map.png."""
    with tempfile.TemporaryDirectory(prefix="sample-") as folder:
        corpus = Corpus(Path(folder), embed={"model": EmbedConfig().model}, chunk={})
        # Named as in the README, so that ids, and who is kept for whom, are the same.
        corpus.sources = [SourceConfig("corpus", str(corpus.docs))]
        shutil.copytree(ROOT / "sample" / "corpus", corpus.docs, dirs_exist_ok=True)
        for name in LATER:
            corpus.delete(name)
        with running(corpus) as server, opened() as browser:
            page = new_page(browser, 1700, 1560)
            open_graph(page, server)
            materialize_all(page, server)
            for name in LATER:
                shutil.copy(ROOT / "sample" / "corpus" / name, corpus.docs / name)
            open_graph(page, server)
            materialize_all(page, server)
            graph(page, server)
            asset(new_page(browser, 1240, 1400), server)
            report(browser, corpus)


def graph(page: Any, server: Server) -> None:
    """The asset graph, with what there is to see of embedded beside it."""
    open_graph(page, server)
    page.get_by_text("Hide navigation").click()
    page.get_by_text("Materialized", exact=True).nth(2).wait_for()
    page.get_by_text("embedded", exact=True).first.click()
    page.get_by_alt_text("From raw to embedded").wait_for()
    # Once more, so that the graph fits what the sidebar leaves of the page; and the last node to the bottom.
    page.reload()
    page.get_by_alt_text("From raw to embedded").wait_for()
    page.wait_for_timeout(3000)
    page.mouse.move(200, 400)
    page.mouse.down()
    page.mouse.move(200, 400 + DRAGGED, steps=10)
    page.mouse.up()
    page.wait_for_timeout(10_000)
    save(page, "asset-graph.png")


def asset(page: Any, server: Server) -> None:
    """The page of cleaned: its counts, the time saved, its pictures."""
    open_asset(page, server, "cleaned", "events")
    page.get_by_text("Hide navigation").click()
    page.get_by_alt_text("Languages").wait_for()
    page.wait_for_timeout(1000)
    save(page, "asset-page.png")


def report(browser: Any, corpus: Corpus) -> None:
    """The head of the report, and the map of the vectors in dark."""
    file = corpus.root / "report.html"
    assert main(["report", "--config", str(corpus.root / "stemma.toml"), "--output", str(file)]) == 0
    page = new_page(browser, 1200, 1400)
    page.goto(file.as_uri())
    save(page, "report.png")
    page = new_page(browser, 1200, 1000, "dark")
    page.goto(file.as_uri())
    place = page.locator("#map").bounding_box()
    clip = {"x": 0, "y": place["y"], "width": 1200, "height": place["height"] + MARGIN}
    save(page, "report-map.png", full_page=True, clip=clip)


def save(page: Any, name: str, **what: Any) -> None:
    """Write a picture of a page, or of a part of it."""
    path = IMAGES / name
    page.screenshot(path=path, **what)
    Image.open(path).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    make()
