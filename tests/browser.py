"""Chromium on Dagster's UI and on the report: how it is started, and what a person would do there."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

from server import Server, wait_for

# Debian's Chromium; elsewhere it may have another name.
NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
# Dagster's page is several megabytes of JavaScript, and the machine may be busy.
PAGE_SECONDS = 120
RUN_SECONDS = 300

RUNS = """query Runs { runsOrError(limit: 50) { ... on Runs { results { runId status } } } }"""


def chromium() -> str | None:
    """Return the path of Chromium, or None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextlib.contextmanager
def opened() -> Iterator[Any]:
    """Start Chromium; yields playwright's Browser."""
    from playwright.sync_api import sync_playwright

    # Neither the driver nor the browser has anything to ask for outside.
    os.environ.setdefault("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def new_page(browser: Any, width: int = 1400, height: int = 1500, scheme: str = "light") -> Any:
    """Open an empty page; the asset graph will run from top to bottom."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    context.add_init_script("localStorage.setItem('asset-graph-direction', JSON.stringify('vertical'))")
    page = context.new_page()
    page.set_default_timeout(PAGE_SECONDS * 1000)
    return page


def open_graph(page: Any, server: Server) -> None:
    """Open the asset graph and wait until it is drawn."""
    page.goto(f"http://127.0.0.1:{server.port}/locations/stemma.definitions/asset-groups/corpus")
    page.get_by_text("embedded", exact=True).first.wait_for()


def open_asset(page: Any, server: Server, name: str, view: str) -> None:
    """Open a tab (overview, events, checks) of an asset's page."""
    page.goto(f"http://127.0.0.1:{server.port}/assets/{name}?view={view}")
    page.get_by_text(name, exact=True).first.wait_for()


def materialize_all(page: Any, server: Server) -> None:
    """Press Materialize all, choose today where a dialog asks for days, and wait until all runs have succeeded.

    A run of today's partition takes in all days.
    """
    before = len(runs(server))
    page.get_by_role("button", name="Materialize all").click()
    launch = page.get_by_role("dialog").get_by_role("button", name=re.compile("^(Launch|Materialize)"))
    launched = page.get_by_text(re.compile("^(Launched run|Created backfill)"))
    launch.or_(launched).first.wait_for()
    if launch.count():
        if launch.first.is_disabled():
            page.get_by_role("dialog").get_by_role("button", name="Latest", exact=True).click()
        launch.first.click()
        launched.first.wait_for()
    wait_for(lambda: _have_succeeded(runs(server), before), RUN_SECONDS)


def materialize_day(page: Any, server: Server, name: str, day: str) -> None:
    """Choose a day in the dialog of an asset's Materialize, and wait until its run has succeeded."""
    before = len(runs(server))
    open_asset(page, server, name, "partitions")
    page.get_by_text(re.compile("^Materialize")).first.click()
    dialog = page.get_by_role("dialog")
    chosen = dialog.get_by_role("textbox").first
    chosen.wait_for()
    chosen.fill(day)
    chosen.blur()
    dialog.get_by_role("button", name=re.compile("^(Launch|Materialize)")).first.click()
    page.get_by_text(re.compile("^(Launched run|Created backfill)")).first.wait_for()
    wait_for(lambda: _have_succeeded(runs(server), before), RUN_SECONDS)


def runs(server: Server) -> list[str]:
    """Return the status of each run there has been."""
    return [run["status"] for run in server.ask(RUNS)["runsOrError"]["results"]]


def _have_succeeded(statuses: list[str], before: int) -> bool:
    assert not {"FAILURE", "CANCELED"} & set(statuses), statuses
    return len(statuses) > before and set(statuses) == {"SUCCESS"}


def picture_width(image: Any) -> int:
    """Return the width of a picture once it is decoded: 0 where the browser can't make anything of it."""
    image.first.wait_for()
    image.first.evaluate("image => image.decode().catch(() => null)")
    return int(image.first.evaluate("image => image.naturalWidth"))
