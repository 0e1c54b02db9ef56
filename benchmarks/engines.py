"""What an engine costs: this machine by itself, and a Ray cluster of nodes on it.

    python benchmarks/engines.py [--documents 20000,80000] [--nodes 2] [--model hash:384] [--json FILE]

Needs ../shared, or the folder in STEMMA_SHARED. Texts are those of `make_load.py synth` in 64 Parquet files. Each
build, from nothing, is a process of its own that starts all that it needs: `cpu` is the processor time of it and of all
processes below it, the cluster's included, and `MB` the largest sum of their memory (each shared page counted once).
`cluster` is the time until its nodes are up, `start` that until a run has joined it and looked at them. The two
published files are compared table by table. What is printed at the end, for each document, is what
`benchmarks/cost_model.py --constants FILE` reckons with: processor time is the slope between the smallest and the
largest size, so that what a run costs by itself does not count.

All nodes of the cluster share this machine: the figures say what Ray costs, not how fast a cluster is. With the seconds
S = start + slope x documents of both engines, the crossover is where Ray on M such machines would be even.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from processes import Peak, processor_seconds

SHARED = Path(os.environ.get("STEMMA_SHARED", Path(__file__).resolve().parents[2] / "shared"))
STAGES = ("raw", "cleaned", "deduplicated", "chunked", "embedded", "publication")
MB = 1_000_000
TOML = """[[sources]]
name = "synth"
path = {path}
text_field = "text"
id_field = "id"
date_field = "date"

[embed]
model = {model}

[warehouse]
path = {warehouse}

[engine]
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", default="20000,80000")
    parser.add_argument("--engines", default="local,ray")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--model", default="hash:384")
    parser.add_argument("--json", type=Path, help="where to write the figures and constants")
    parser.add_argument("--build", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        print(json.dumps(build(json.loads(options.build))))
        return
    measured = []
    print(
        f"| documents | engine | cluster | start | {' | '.join(STAGES)} | total | cpu s | cpu ms each | MB |"
    )
    print("|---" * (len(STAGES) + 8) + "|")
    for documents in map(int, options.documents.split(",")):
        with tempfile.TemporaryDirectory(prefix="stemma-engines-") as folder:
            engines = options.engines.split(",")
            measured.append(measure(Path(folder), documents, engines, options.nodes, options.model))
    constants = slopes(measured)
    if "ray" in measured[-1]:
        print("\n" + crossover(measured, options.nodes))
    print(f"\nFor each document, of {measured[-1]['documents']:,}:\n")
    print("| | |\n|---|---|")
    for name, value in constants.items():
        print(f"| {name} | {value:,.4g} |")
    if options.json:
        options.json.write_text(json.dumps({"constants": constants, "measured": measured}, indent=1))


def measure(root: Path, documents: int, engines: list[str], nodes: int, model: str) -> dict[str, Any]:
    """Build with each engine, print a row for each, and compare what they published."""
    make_documents(root / "docs", documents)
    found: dict[str, Any] = {"documents": documents}
    for engine in engines:
        order = {"root": str(root), "engine": engine, "nodes": nodes, "model": model}
        command = [sys.executable, __file__, "--build", json.dumps(order)]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        result = found[engine] = json.loads(told.stdout.splitlines()[-1])
        seconds = [result["start"], *(result["seconds"][stage] for stage in STAGES)]
        cells = [f"{value:.1f}" for value in [result["cluster"], *seconds, sum(seconds), result["cpu"]]]
        each = f"{1000 * result['cpu'] / documents:.2f}"
        print(
            f"| {documents:,} | {engine} | {' | '.join(cells)} | {each} | {result['peak'] / MB:,.0f} |",
            flush=True,
        )
    found["constants"] = found[engines[0]]["constants"]
    for engine in engines:
        del found[engine]["constants"]
    if len(engines) > 1:
        compare(root, engines)
    return found


def compare(root: Path, engines: list[str]) -> None:
    """Print whether two engines published the same."""
    from stemma.lineage.comparison import compare_files

    tables = compare_files(*(root / f"{engine}.duckdb" for engine in engines))
    differing = [each.table for each in tables if each.differs]
    print(
        f"\n{len(tables)} tables compared; {'all are the same' if not differing else f'DIFFERENT: {differing}'}\n"
    )


def slopes(measured: list[dict[str, Any]]) -> dict[str, float]:
    """Return the constants of the largest size; processor time as what each more document took."""
    first, last = measured[0], measured[-1]
    found = dict(last["constants"])
    if first is not last:
        for name in found:
            if name.startswith("cpu ms"):
                more = last["documents"] * found[name] - first["documents"] * first["constants"][name]
                found[name] = max(0.0, more / (last["documents"] - first["documents"]))
    return found


def make_documents(folder: Path, documents: int) -> None:
    tool = [sys.executable, str(SHARED / "tools" / "make_load.py"), "synth", "--out", str(folder)]
    shards = str(min(64, max(2, documents // 100)))
    subprocess.run(
        [*tool, "--docs", str(documents), "--shards", shards], check=True, stdout=subprocess.DEVNULL
    )


# -- one build, in a process of its own ------------------------------------------------------------------------


def build(order: dict[str, Any]) -> dict[str, Any]:
    """Build the corpus from nothing; returns seconds, processor seconds, peak bytes, and constants."""
    from stemma.config import load_config
    from stemma.resources.engine import DATASETS, Run, Setup, publish
    from stemma.resources.warehouse import Warehouse

    root, kind = Path(order["root"]), order["engine"]
    peak, began = Peak(), time.monotonic()
    with cluster(order["nodes"]) if kind == "ray" else contextlib.nullcontext("auto") as address:
        up = time.monotonic()
        text = TOML.format(
            path=json.dumps(str(root / "docs")),
            model=json.dumps(order["model"]),
            warehouse=json.dumps(str(root / f"{kind}.duckdb")),
        )
        file = root / f"{kind}.toml"
        file.write_text(f'{text}kind = "{kind}"\naddress = "{address}"\n')
        config = load_config(file)
        run = Run("build", Setup.of(config), Warehouse(config.warehouse.path))
        _ = run.executor
        result: dict[str, Any] = {
            "cluster": up - began,
            "start": time.monotonic() - up,
            "seconds": {},
            "stage_cpu": {},
        }
        for stage in STAGES:
            started, before = time.monotonic(), processor_seconds(os.getpid())
            _ = publish(run) if stage == "publication" else DATASETS[stage](run)
            result["seconds"][stage] = time.monotonic() - started
            result["stage_cpu"][stage] = processor_seconds(os.getpid()) - before
        result["cpu"] = processor_seconds(os.getpid())
        result["peak"] = peak.end()
        result["constants"] = constants(run, root / "docs", result["stage_cpu"])
        run.warehouse.close()
    return result


@contextlib.contextmanager
def cluster(nodes: int) -> Iterator[str]:
    """Start a cluster on loopback addresses; yields where it is."""
    processors = max(1, (os.cpu_count() or 1) // nodes)
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        os.environ |= {
            "RAY_TMPDIR": folder,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": os.urandom(16).hex(),
        }
        import ray
        from ray.cluster_utils import Cluster

        node: dict[str, Any] = {"object_store_memory": 512 * 2**20, "include_dashboard": False}
        started = Cluster(
            initialize_head=True, head_node_args={"node_ip_address": "127.0.0.2", "num_cpus": 0, **node}
        )
        try:
            for number in range(nodes):
                started.add_node(
                    node_ip_address=f"127.0.0.{3 + number}", num_cpus=processors, wait=False, **node
                )
            started.wait_for_nodes()
            yield str(started.address)
        finally:
            ray.shutdown()
            started.shutdown()


def constants(run: Any, docs: Path, cpu: dict[str, float]) -> dict[str, float]:
    """Return what a document is and costs, on average."""
    size = run.warehouse.size()
    with run.warehouse.session() as connection:
        one = lambda query: connection.execute(query).fetchone()[0]  # noqa: E731
        documents = one("SELECT count(*) FROM state.raw")
        sums = {
            "source bytes": sum(file.stat().st_size for file in docs.rglob("*") if file.is_file()),
            "content bytes": one("SELECT sum(size_bytes)::BIGINT FROM state.raw"),
            "memo bytes": size.memo,
            "state bytes": size.state,
            "published bytes": size.published,
            "chunks": one("SELECT count(*) FROM state.chunked"),
            "vectors": one("SELECT count(DISTINCT input_hash) FROM state.embedded"),
            "bucket rows": one("SELECT count(*) FROM state.dedup_bands"),
            "bucket rows exchanged": one(
                """SELECT coalesce(sum(n), 0)::BIGINT FROM (SELECT count(*) AS n FROM state.dedup_bands
                GROUP BY layer, bucket HAVING count(*) > 1)"""
            ),
            "verified pairs": one("SELECT count(*) FROM state.dedup_pairs"),
            **{f"cpu ms of {stage}": 1000 * seconds for stage, seconds in cpu.items()},
        }
    return {name: value / documents for name, value in sums.items()}


def crossover(measured: list[dict[str, Any]], nodes: int) -> str:
    """Return from how many documents on Ray is sooner, by straight lines through the measurements."""
    if len(measured) < 2:
        return "Crossover: two sizes are needed."
    lines = {}
    for engine in ("local", "ray"):
        points = [
            (each["documents"], each[engine]["start"] + sum(each[engine]["seconds"].values()))
            for each in measured
        ]
        (low, first), (high, last) = points[0], points[-1]
        slope = (last - first) / (high - low)
        lines[engine] = (first - slope * low, slope)
    (local_start, local_slope), (ray_start, ray_slope) = lines["local"], lines["ray"]
    told = [
        f"local: {local_start:.1f} s + {1000 * local_slope:.3f} ms a document; Ray: {ray_start:.1f} s +"
        f" {1000 * ray_slope:.3f} ms a document, with {nodes} nodes on this one machine."
    ]
    for machines in (1, 2, 3, 4, 8):
        gain = local_slope - ray_slope / machines
        even = f"from {(ray_start - local_start) / gain:,.0f} documents on" if gain > 0 else "never"
        told.append(f"- Ray on {machines} such machine{'s'[: machines > 1]}: sooner than local on one {even}")
    told.append(
        "\nThe lines of more than one machine take for granted that the work spreads evenly: what stays on one node"
        " (docs/scale.md) does not."
    )
    return "\n".join(told)


if __name__ == "__main__":
    main()
