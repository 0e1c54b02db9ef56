"""What a process and all below it take: processor time and memory, as Linux tells."""

import contextlib
import os
import threading
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def below(process: int) -> list[int]:
    """Return a process and all below it."""
    found = [process]
    for each in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def processor_seconds(process: int) -> float:
    """Return the processor time of a process, of all below it, and of those of them that have ended."""
    ticks = 0
    for each in below(process):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / TICKS


class Peak:
    """The largest memory of this process and all below it, looked at at once and then four times a second."""

    def __init__(self) -> None:
        self._largest = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while True:
            self._largest = max(self._largest, sum(map(proportional_bytes, below(os.getpid()))))
            if self._end.wait(0.25):
                return

    def end(self) -> int:
        self._end.set()
        self._thread.join()
        return self._largest


def proportional_bytes(process: int) -> int:
    """Return the memory of a process; of pages that several have, its part."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
