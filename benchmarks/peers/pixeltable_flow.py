"""Pixeltable: folder → clean → chunk → embed → its own tables, brought up to date once.

    python pixeltable_flow.py --folder DIR --state DIR [--chunk-size 800] [--cleaner 1|2]

Everything lies below --state, in a Postgres that Pixeltable starts and this script stops. Postgres refuses
to run as root; for root Pixeltable would create a system user and open the permissions of every folder above,
so this script becomes `nobody` instead. The environment's interpreter and the documents must then be readable
for everybody (Debian's /usr/bin/python3.11 is, one below /root is not).

Pixeltable has no folder as a source, does not see that a function was edited, and can't change a view's
splitter. So the flow compares the folder with the table by content hash, asks for `recompute_columns` when
the cleaner was edited, and drops and makes the view anew for another chunk size. --undeclared leaves out the
second: the rows then stay as the old cleaner made them, without a word.
"""

import argparse
import hashlib
import os
import pwd
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import Stopwatch, disk_megabytes, list_files, parse_arguments, report


def become_nobody(state: Path) -> None:
    if os.geteuid() != 0:
        return
    nobody = pwd.getpwnam("nobody")
    os.chown(state, nobody.pw_uid, nobody.pw_gid)
    state.chmod(0o700)
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)


def setting_changed(state: Path, name: str, value: int) -> bool:
    """Whether the value differs from the one of the last call, which it replaces."""
    kept = state / f"{name}.txt"
    changed = kept.exists() and kept.read_text() != str(value)
    kept.write_text(str(value))
    return changed


def make_tables(chunk_size: int, replace_chunks: bool) -> tuple[Any, Any]:
    import pixeltable as pxt
    from pixeltable_udfs import clean, embed, pieces

    columns = {"path": pxt.Required[pxt.String], "text": pxt.String, "content_hash": pxt.String}
    documents = pxt.create_table("documents", columns, primary_key="path", if_exists="ignore")
    documents.add_computed_column(cleaned=clean(documents.text), if_exists="ignore")
    exists = "replace_force" if replace_chunks else "ignore"
    splitter = pieces(documents.cleaned, chunk_size)
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
        documents.insert(new)


def update(arguments: argparse.Namespace) -> tuple[int, int]:
    """One update of the state to the folder; the numbers of documents and chunks there are then."""
    documents, chunks = make_tables(
        arguments.chunk_size, setting_changed(arguments.state, "chunk-size", arguments.chunk_size)
    )
    if setting_changed(arguments.state, "cleaner", arguments.cleaner) and not arguments.undeclared:
        documents.recompute_columns(documents.cleaned)
    synchronize(documents, arguments.folder)
    return documents.count(), chunks.count()


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


def main() -> None:
    arguments = parse_arguments(__doc__)
    become_nobody(arguments.state)
    state = str(arguments.state)
    os.environ.update(HOME=state, TMPDIR=state, XDG_RUNTIME_DIR=state)
    os.environ.update(PIXELTABLE_HOME=f"{state}/pixeltable", PIXELTABLE_VERBOSITY="0")

    # Only now: what the packages open on import must belong to the user that goes on to use it.
    import pixeltable as pxt
    import pixeltable_udfs

    pixeltable_udfs.cleaner = arguments.cleaner
    startup = Stopwatch()
    pxt.init()
    startup_seconds, _ = startup.elapsed()
    server = Server(arguments.state)
    server_before = server.cpu_seconds()
    watch = Stopwatch()
    try:
        documents, chunks = update(arguments)
        seconds, cpu_seconds = watch.elapsed()
        server_seconds = server.cpu_seconds() - server_before
    finally:
        server.stop()
    report(
        peer="pixeltable",
        version=pxt.__version__,
        documents=documents,
        chunks=chunks,
        embed_calls=pixeltable_udfs.EMBEDDER.calls,
        seconds=seconds,
        cpu_seconds=cpu_seconds + server_seconds,
        server_cpu_seconds=server_seconds,
        startup_seconds=startup_seconds,
        disk_mb=disk_megabytes(arguments.state),
    )


if __name__ == "__main__":
    main()
