"""A real Ray cluster on loopback addresses: a head that computes nothing, and two workers."""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# A store of 80 MiB for each node; tables of tests are small.
NODE: dict[str, Any] = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
# A node that is gone is missed after five seconds and not after fifteen.
SYSTEM = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 5000,
}
# Seconds that nodes may take to be up, on a machine that does other things as well.
PATIENCE = 200
# Ray would rewrite 127.0.0.1 to the machine's own address.
ADDRESSES = "127.0.0."


class TestCluster:
    """The cluster, and what befalls it."""

    __test__ = False

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._last = 2
        self.nodes: list[Any] = []

    @property
    def address(self) -> str:
        """Where it is."""
        return self._cluster.address

    def add_node(self) -> None:
        """Start a worker with one processor."""
        self._last += 1
        address = f"{ADDRESSES}{self._last}"
        self.nodes.append(self._cluster.add_node(node_ip_address=address, num_cpus=1, wait=False, **NODE))

    def remove_node(self) -> None:
        """Kill all processes of the worker that was started last, while one of them is at work."""
        self._at_work(self.nodes[-1])
        self._cluster.remove_node(self.nodes.pop(), allow_graceful=False)

    def kill_process(self) -> None:
        """Kill a process that is at work on the first worker."""
        os.kill(self._at_work(self.nodes[0]), signal.SIGKILL)

    @staticmethod
    def _at_work(node: Any) -> int:
        """Wait for a process that is at work on a node, and return it."""
        raylet = node.all_processes["raylet"][0].process.pid
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for process, parent, command in processes():
                if parent == raylet and command.startswith("ray::MapBatches"):
                    return process
            time.sleep(0.005)
        raise AssertionError("nothing is at work there")

    def wait(self) -> None:
        """Wait until all nodes are there."""
        self._cluster.wait_for_nodes(timeout=PATIENCE)


@contextlib.contextmanager
def started(nodes: int = 2) -> Iterator[TestCluster]:
    """Start a cluster that no other one can be taken for, and end it by its own handle: nobody else's."""
    # Paths of sockets may have 107 bytes.
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
    settings = {
        "RAY_TMPDIR": folder,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": os.urandom(16).hex(),
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
        ),
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ |= settings
    try:
        import ray
        from ray.cluster_utils import Cluster

        head = {"node_ip_address": f"{ADDRESSES}2", "num_cpus": 0, "_system_config": SYSTEM, **NODE}
        cluster = Cluster()
        try:
            cluster.add_node(wait=False, **head)
            for_tests = TestCluster(cluster)
            for _ in range(nodes):
                for_tests.add_node()
            for_tests.wait()
            yield for_tests
        finally:
            ray.shutdown()
            cluster.shutdown()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)
    _await_end(folder)


def processes() -> Iterator[tuple[int, int, str]]:
    """Yield the process, its parent and its command line of all that live."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            yield int(folder.name), int(parent), command


def _await_end(folder: str) -> None:
    """Raise AssertionError where a process of the cluster lives on."""
    deadline = time.monotonic() + 20
    while left := [process for process, _parent, command in processes() if folder in command]:
        assert time.monotonic() < deadline, f"processes of the cluster live on: {left}"
        time.sleep(0.1)
