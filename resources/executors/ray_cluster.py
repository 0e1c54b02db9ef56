"""The connection to a Ray cluster: made once for this process, and its nodes looked at."""

import contextlib
import importlib.util
import ipaddress
import logging
import os
import socket
from typing import Any

from stemma.errors import StemmaError
from stemma.resources.executors.ray_tasks import node_facts

CONNECT_SECONDS = 5.0
STALLED_SECONDS = 1800.0
# A node whose first worker process is still to be started answers late.
NODE_SECONDS = 120.0


def connect(address: str, batch_seconds: float) -> None:
    """Connect this process to the cluster, unless it is; the token comes from the environment (RAY_AUTH_TOKEN).

    `batch_seconds` is how long a batch may take when all goes wrong.

    Raises StemmaError where Ray is not installed, nothing answers at the address, or a node has other versions.
    """
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("ray.data") is None:
        raise StemmaError('[engine] kind = "ray" needs the packages of the extra: pip install "stemma[ray]"')
    # No telemetry, whatever the machine's own default.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if not ray.is_initialized():
        _reach(address)
        try:
            ray.init(
                address=address,
                log_to_driver=False,
                configure_logging=False,
                logging_level=logging.ERROR,
                **_own_address(address),
            )
        except Exception as error:  # Ray raises errors of many kinds, of versions and tokens too
            raise StemmaError(
                f"cannot join the Ray cluster at {address}: {told(error)} (is RAY_AUTH_TOKEN that of the cluster?)"
            ) from error
        check_nodes()
    _set_context(batch_seconds)


def _reach(address: str) -> None:
    """Raise StemmaError where nothing listens: Ray itself would wait for a minute, and may end the process."""
    host, _, port = address.rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise StemmaError(
            f'cannot reach the Ray cluster at {address}: {reason}; look at [engine] address, and "ray status" there'
        ) from error


def _own_address(address: str) -> dict[str, Any]:
    """Return what Ray must be told of a cluster on a loopback address: it would look for this machine's own."""
    with contextlib.suppress(ValueError):
        host = address.rpartition(":")[0]
        if ipaddress.ip_address(host).is_loopback:
            return {"_node_ip_address": host}
    return {}


def told(error: Exception) -> str:
    """Return an error in one line."""
    return " ".join(str(error).split())[:600] or type(error).__name__


def _set_context(batch_seconds: float) -> None:
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Ray gives up after so long without a result, which a batch of documents that all hang must not be taken for.
    context.execution_no_progress_timeout_s = STALLED_SECONDS + batch_seconds


def nodes() -> list[dict[str, Any]]:
    """Return the living nodes that compute."""
    import ray

    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def check_nodes() -> None:
    """Raise StemmaError where a node has no Stemma, or another version of it or of Python."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ours = node_facts()
    asked: dict[str, Any] = {}
    task = ray.remote(num_cpus=0, max_retries=1)(node_facts)
    for node in nodes():
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[node["NodeManagerAddress"]] = task.options(scheduling_strategy=there).remote()
    if not asked:
        raise StemmaError("the Ray cluster has no node with a CPU to compute on")
    for address, reference in asked.items():
        try:
            facts = ray.get(reference, timeout=NODE_SECONDS)
        except Exception as error:
            raise StemmaError(
                f"node {address} of the Ray cluster cannot compute for Stemma: install stemma {ours['stemma']} with"
                f" its extra 'ray' on every node ({told(error)})"
            ) from error
        for name, version in ours.items():
            if facts[name] != version:
                raise StemmaError(
                    f"node {address} of the Ray cluster has {name} {facts[name]}, this machine {version}: install the"
                    " same version on every node"
                )
