"""Pixeltable: folder → clean → chunk → embed → its own tables, brought up to date once.

Everything lies below --state, in a Postgres that Pixeltable starts and this script stops. Postgres refuses
to run as root; for root Pixeltable would create a system user and open the permissions of every folder above,
so this script becomes `nobody` instead. The environment's interpreter and the documents must then be readable
for everybody (Debian's /usr/bin/python3.11 is, one below /root is not).

Pixeltable has no folder as a source, does not see that a function was edited, and can't change a view's
splitter. So the flow compares the folder with the table by content hash. Told by `--redo` what was edited it asks for
`recompute_columns`, or drops and makes the view anew for another chunk size; else the rows stay as the old code and
setting made them, without a word.

Rows go in with `on_error="ignore"`: a document that fails has an error in its computed columns
(`cleaned.errormsg`) and no chunks. Without it one such document stops the whole insert.
"""

import hashlib
import os
import pwd
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import Row, Stopwatch, list_files, parse_arguments, run_flow

ARGUMENTS = parse_arguments(__doc__)


def become_nobody(state: Path) -> None:
    if os.geteuid() != 0:
        return
    nobody = pwd.getpwnam("nobody")
    os.chown(state, nobody.pw_uid, nobody.pw_gid)
    state.chmod(0o700)
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)


def make_tables() -> tuple[Any, Any]:
    import pixeltable as pxt
    from pixeltable_udfs import clean, embed, pieces

    columns = {"path": pxt.Required[pxt.String], "text": pxt.String, "content_hash": pxt.String}
    documents = pxt.create_table("documents", columns, primary_key="path", if_exists="ignore")
    documents.add_computed_column(cleaned=clean(documents.text), if_exists="ignore")
    exists = "replace_force" if ARGUMENTS.redo == "chunk-size" else "ignore"
    splitter = pieces(documents.cleaned, ARGUMENTS.chunk_size)
    chunks = pxt.create_view("chunks", documents, iterator=splitter, if_exists=exists)
    chunks.add_computed_column(embedding=embed(chunks.piece), if_exists="ignore")
    return documents, chunks


def synchronize(documents: Any, folder: Path) -> None:
    """Insert, update and delete until the table's rows are the folder's files."""
    rows = documents.select(documents.path, documents.content_hash).collect()
    known = {row["path"]: row["content_hash"] for row in rows}
    files = list_files(folder)
    new: list[dict[str, str]] = []
    changed: list[dict[str, str]] = []
    for path, file in files.items():
        content = file.read_bytes()
        content_hash = hashlib.sha256(content).hexdigest()
        if known.get(path) != content_hash:
            row = {"path": path, "text": content.decode(errors="replace"), "content_hash": content_hash}
            (changed if path in known else new).append(row)
    gone = sorted(known.keys() - files.keys())
    if gone:
        documents.delete(where=documents.path.isin(gone))
    if changed:
        documents.batch_update(changed)
    if new:
        documents.insert(new, on_error="ignore")


def update_tables() -> dict[str, Any]:
    """One update of the state to the folder."""
    documents, chunks = make_tables()
    if ARGUMENTS.redo in ("cleaner", "helper"):
        documents.recompute_columns(documents.cleaned)
    elif ARGUMENTS.redo == "embedder":
        chunks.recompute_columns(chunks.embedding)
    synchronize(documents, ARGUMENTS.folder)
    errors = documents.where(documents.cleaned.errortype != None).count()  # noqa: E711
    return {"errors": errors}


@dataclass
class Server:
    """The Postgres below a state folder. Pixeltable starts it and leaves it running."""

    state: Path

    def postmaster(self) -> int:
        return int((self.state / "pixeltable/pgdata/postmaster.pid").read_text().split()[0])

    def cpu_seconds(self) -> float:
        """Processor time taken so far by its living and its ended processes."""
        import psutil

        postmaster = psutil.Process(self.postmaster())
        ended = postmaster.cpu_times()
        living = [process.cpu_times() for process in postmaster.children()]
        return sum(times.user + times.system for times in [ended, *living]) + (
            ended.children_user + ended.children_system
        )

    def stop(self) -> None:
        """A fast shutdown, which writes everything out."""
        import psutil

        postmaster = psutil.Process(self.postmaster())
        postmaster.send_signal(signal.SIGINT)
        postmaster.wait(timeout=60)


def prepare() -> None:
    """Start Postgres, and make its database where there is none."""
    import pixeltable as pxt

    pxt.init()


def update() -> dict[str, Any]:
    import pixeltable_udfs

    pixeltable_udfs.log_to(ARGUMENTS.log)
    server = Server(ARGUMENTS.state)
    server_before = server.cpu_seconds()
    watch = Stopwatch()
    try:
        figures = update_tables()
        seconds = watch.seconds()
        server_seconds = server.cpu_seconds() - server_before
    finally:
        server.stop()
    return {
        **figures,
        "embed_calls": pixeltable_udfs.EMBEDDER.calls,
        "seconds": seconds,
        "server_cpu_seconds": server_seconds,
    }


def rows() -> Iterator[Row]:
    import pixeltable as pxt

    pxt.init()
    try:
        chunks = pxt.get_table("chunks")
        for row in chunks.select(chunks.path, chunks.piece, chunks.embedding).collect():
            yield Row(row["path"], row["piece"], row["embedding"])
    finally:
        Server(ARGUMENTS.state).stop()


if __name__ == "__main__":
    if ARGUMENTS.task != "expected":
        become_nobody(ARGUMENTS.state)
        state = str(ARGUMENTS.state)
        # What the packages open on import must belong to the user that goes on to use it.
        os.environ.update(HOME=state, TMPDIR=state, XDG_RUNTIME_DIR=state)
        os.environ.update(PIXELTABLE_HOME=f"{state}/pixeltable", PIXELTABLE_VERBOSITY="0")
    run_flow(ARGUMENTS, update, rows, prepare=prepare)
