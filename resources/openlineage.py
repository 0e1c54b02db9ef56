"""Sends the lineage of a run to an OpenLineage backend, where one is configured; a run never fails of it.

Which one, and how, is said by OpenLineage's own environment variables alone (OPENLINEAGE_URL, OPENLINEAGE_API_KEY,
OPENLINEAGE__TRANSPORT__…, OPENLINEAGE_CONFIG): without any of them nothing is imported and nothing is sent.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stemma.config import Config
from stemma.errors import StemmaError
from stemma.incremental.counts import Counts
from stemma.lineage import openlineage

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent

NAMESPACE = "OPENLINEAGE_NAMESPACE"
# Seconds that a transport which sends in the background has for what is left.
CLOSE_SECONDS = 10.0

# Runs whose backend could not be reached: asked once, not with each of ten events.
_silenced: set[str] = set()


def is_configured(environ: Mapping[str, str]) -> bool:
    """Tell whether the environment names an OpenLineage backend."""
    if environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return False
    named = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG")
    return any(
        value and (name in named or name.startswith("OPENLINEAGE__TRANSPORT"))
        for name, value in environ.items()
    )


@contextmanager
def reported(
    dataset: str, run_id: str, job: str, config: Config, warn: Callable[[str], None]
) -> Iterator[Callable[[Counts, Sequence[str]], None]]:
    """Send START, and COMPLETE, FAIL or ABORT, of an update of a dataset.

    Yields what is to be called in the end, with its counts and the names of blocking checks that failed. `warn` is told
    what went wrong with sending, in one line and once for a run.
    """
    ended: list[tuple[Counts, Sequence[str]]] = []

    def end(counts: Counts, faults: Sequence[str]) -> None:
        ended.append((counts, faults))

    if not is_configured(os.environ):
        yield end
        return
    update = openlineage.Update(dataset, run_id, job, config, os.environ.get(NAMESPACE) or "stemma")
    _send(update, warn, lambda: openlineage.started(update))
    try:
        yield end
    except BaseException as error:
        reason, was_stopped = _line(error), not isinstance(error, Exception)
        _send(update, warn, lambda: openlineage.failed(update, reason, was_stopped=was_stopped))
        raise
    counts, faults = ended[0]
    if faults:
        reason = f"a blocking check failed: {', '.join(faults)}"
        _send(update, warn, lambda: openlineage.failed(update, reason))
    else:
        _send(update, warn, lambda: openlineage.completed(update, counts))


def _send(update: openlineage.Update, warn: Callable[[str], None], make: "Callable[[], RunEvent]") -> None:
    if update.run_id in _silenced:
        return
    try:
        _emit(make())
    except Exception as error:
        _silenced.add(update.run_id)
        warn(f"no OpenLineage events of this run any more: {_line(error)}")


def _emit(event: "RunEvent") -> None:
    from openlineage.client import OpenLineageClient

    client = OpenLineageClient()
    try:
        client.emit(event)
    finally:
        client.close(CLOSE_SECONDS)


def _line(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("openlineage"):
        return 'the package is missing: pip install "stemma[openlineage]"'
    said = str(error).strip() or type(error).__name__
    line = said.splitlines()[0]
    return line if isinstance(error, StemmaError) else f"{type(error).__name__}: {line}"
