"""What a first build of a large corpus takes: processor time, shuffle, storage, GPU time; and what one node must hold.

    python benchmarks/cost_model.py [--documents 1e6,1e7,1e8,1e9] [--nodes 10] [--cores 16] [--gpus 8]
        [--constants FILE]      # what benchmarks/engines.py --json wrote for your documents

It multiplies. Nothing beyond the sizes that benchmarks/engines.py has measured has been run; each assumption has a name
below, and is printed.
"""

import argparse
import json
from dataclasses import dataclass, fields
from pathlib import Path

# For each document: engines.py --documents 20000,80000, hash:384, on 2 x AMD EPYC, Python 3.11.7, 2026-11-26
# (RESULTS.md): synthetic texts of 2.2 KB on average.
MEASURED = {
    "source bytes": 681.1,
    "content bytes": 2153.0,
    "memo bytes": 25870.0,
    "state bytes": 1301.0,
    "published bytes": 10750.0,
    "chunks": 3.595,
    "vectors": 3.593,
    "bucket rows": 25.52,
    "bucket rows exchanged": 2.303,
    "verified pairs": 0.2275,
    "cpu ms of raw": 0.1978,
    "cpu ms of cleaned": 0.5318,
    "cpu ms of deduplicated": 0.1228,
    "cpu ms of chunked": 0.234,
    "cpu ms of embedded": 0.2863,
    "cpu ms of publication": 0.5605,
}
HOUR, GB, TB = 3600.0, 1e9, 1e12


@dataclass(frozen=True)
class Assumptions:
    """What the model takes for granted."""

    # Processor time of a document on Ray, against this machine: moving it, and a process more. engines.py, slope from
    # 20,000 to 80,000 documents: 4.7 ms against 1.9 ms.
    ray_factor: float = 2.4
    # Of the processor time of `deduplicated`: signing. The rest, measuring pairs and solving families, is one node's.
    signing_share: float = 0.5
    # Bytes of a row of a bucket in an exchange: bucket, member, asks; and of the state's index of buckets on disk.
    exchanged_row_bytes: float = 17.0
    # How often a text leaves the run's node: to be cleaned, signed, cut and embedded. Results come back once, as memo.
    text_crossings: float = 4.0
    # Texts of 100 tokens that an H100 embeds a second with a model of the size of MiniLM, in bfloat16. An estimate, not
    # measured: from the best that one may hope for to a quarter of it.
    gpu_vectors_a_second_low: float = 8_600.0
    gpu_vectors_a_second_high: float = 34_700.0
    # Bytes a second that the run's node writes and reads, of memo and published file: an NVMe drive.
    disk_bytes_a_second: float = 1e9
    # Bytes a second that leave or reach the run's node.
    network_bytes_a_second: float = 1.25e9
    # Memory that families take on the run's node: a document, and an edge.
    document_memory_bytes: float = 300.0
    edge_memory_bytes: float = 100.0
    # How well DuckDB and the drives use the run's cores in publication.
    node_efficiency: float = 0.5


def estimate(
    documents: float, nodes: int, cores: int, gpus: int, each: dict[str, float], take: Assumptions
) -> dict[str, str]:
    """Return the figures of a first build of so many documents."""
    cpu = {
        name.removeprefix("cpu ms of "): value / 1000
        for name, value in each.items()
        if name.startswith("cpu")
    }
    spread = cpu["raw"] + cpu["cleaned"] + cpu["chunked"] + cpu["deduplicated"] * take.signing_share
    spread *= take.ray_factor * documents
    alone = cpu["deduplicated"] * (1 - take.signing_share)
    publication = cpu["publication"]
    shuffle = each["bucket rows exchanged"] * take.exchanged_row_bytes * documents
    moved = (each["content bytes"] * take.text_crossings + each["memo bytes"]) * documents
    vectors = each["vectors"] * documents
    memory = documents * (take.document_memory_bytes + each["verified pairs"] * take.edge_memory_bytes)
    hours = {
        "nodes compute": spread / (nodes * cores) / HOUR,
        "run's node moves tables": moved / take.network_bytes_a_second / HOUR,
        "run's node writes the memo": each["memo bytes"] * documents / take.disk_bytes_a_second / HOUR,
        "run's node measures pairs, one core": alone * documents / HOUR,
        "run's node publishes": publication * documents / (cores * take.node_efficiency) / HOUR,
        "GPUs embed, at best": vectors / take.gpu_vectors_a_second_high / gpus / HOUR,
        "GPUs embed, at worst": vectors / take.gpu_vectors_a_second_low / gpus / HOUR,
    }
    return {
        "documents": f"{documents:,.0f}",
        "sources, TB": _size(each["source bytes"] * documents / TB),
        "chunks": f"{each['chunks'] * documents:,.0f}",
        "core-hours of the nodes": _size(spread / HOUR),
        "core-hours of the run's node": _size((alone + publication) * documents / HOUR),
        "GPU-hours (estimate)": f"{_size(vectors / take.gpu_vectors_a_second_high / HOUR)} to"
        f" {_size(vectors / take.gpu_vectors_a_second_low / HOUR)}",
        "shuffled, GB": _size(shuffle / GB),
        "moved between machines, TB": _size(moved / TB),
        "memo, TB": _size(each["memo bytes"] * documents / TB),
        "state, GB": _size(each["state bytes"] * documents / GB),
        "published, TB": _size(each["published bytes"] * documents / TB),
        "memory for families, GB": _size(memory / GB),
        **{f"hours: {name}": _size(value) for name, value in hours.items()},
    }


def _size(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", default="1e6,1e7,1e8,1e9")
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--cores", type=int, default=16)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--constants", type=Path)
    options = parser.parse_args()
    each = json.loads(options.constants.read_text())["constants"] if options.constants else MEASURED
    take = Assumptions()
    columns = [
        estimate(float(documents), options.nodes, options.cores, options.gpus, each, take)
        for documents in options.documents.split(",")
    ]
    print(f"{options.nodes} nodes and the run's own, of {options.cores} cores; {options.gpus} GPUs.\n")
    print(f"| {' | '.join(['', *(column['documents'] for column in columns)])} |")
    print("|---" * (len(columns) + 1) + "|")
    for name in columns[0]:
        if name != "documents":
            print(f"| {' | '.join([name, *(column[name] for column in columns)])} |")
    print("\nTaken for granted:\n")
    for field in fields(take):
        print(f"- {field.name.replace('_', ' ')}: {getattr(take, field.name):g}")
    print(f"- for each document: {', '.join(f'{name} {value:.4g}' for name, value in each.items())}")


if __name__ == "__main__":
    main()
