"""Families of duplicates: what hangs together, who is kept, and who testifies for each that is not."""

import gzip
import json
from collections import deque
from itertools import combinations, pairwise
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from harness import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from stemma.deduplication import FAMILIES, Policy, families, jaccard, shingle_sets, sign
from stemma.deduplication.components import components
from stemma.hashing import digest, uuid_array

DEFAULT = (Policy({"exact": 1.0, "near": 0.7}),)
PREFERENCE = ["exact", "near", "contained", "edit", "semantic"]


def uuid(number: int) -> UUID:
    return UUID(int=number)


def uuids(numbers: list[int]) -> pa.Array:
    return uuid_array(number.to_bytes(16, "big") for number in numbers)


def documents_of(rows: list[dict]) -> pa.Table:
    return pa.table(
        {
            "document_id": uuids([row["id"] for row in rows]),
            "node": uuids([row.get("node", row["id"]) for row in rows]),
            "policy": pa.array([row.get("policy", 0) for row in rows], pa.int64()),
            "rank": pa.array([row.get("rank", 0) for row in rows], pa.int64()),
            "document_date": pa.array([row.get("day") for row in rows], pa.int32()).cast(pa.date32()),
            "length": pa.array([row.get("length", 1) for row in rows], pa.int64()),
            "quality": pa.array([row.get("quality") for row in rows], pa.float64()),
        }
    )


def edges_of(edges: list[tuple]) -> pa.Table:
    """Edges (a, b, similarity) or (a, b, similarity, method)."""
    columns = zip(*((*edge, "near")[:4] for edge in edges), strict=True) if edges else ([], [], [], [])
    a, b, similarity, method = ([*column] for column in columns)
    return pa.table(
        {
            "a": uuids(a),
            "b": uuids(b),
            "similarity": pa.array(similarity, pa.float64()),
            "method": pa.array(method, pa.string()),
        }
    )


def solved(rows: list[dict], edges: list[tuple], policies=DEFAULT, **options: str) -> dict[int, dict]:
    table = families(documents_of(rows), edges_of(edges), policies=policies, **options)
    assert table.schema == FAMILIES
    assert table["document_id"].to_pylist() == [uuid(row["id"]) for row in rows]
    return {row["document_id"].int: row for row in table.to_pylist()}


def kept(rows: list[dict], edges: list[tuple], policies=DEFAULT, **options: str) -> list[int]:
    return sorted(number for number, row in solved(rows, edges, policies, **options).items() if row["kept"])


def families_in_plain_python(
    rows: list[dict], edges: list[tuple], policies: list[Policy], keep: str
) -> dict[int, tuple]:
    """The definition, a group of equal documents at a time."""

    def priority(row: dict) -> tuple:
        undated, day = row["day"] is None, row["day"] or 0
        dates = (undated, -day if keep == "newest" else day)
        best = {"longest": -row["length"], "best": -(row["quality"] if row["quality"] is not None else -99)}
        return (row["rank"], best.get(keep, 0), *dates, row["id"])

    def removes_equal(policy: int) -> bool:
        return bool(policies[policy].thresholds.keys() - {"contained"})

    groups: dict[tuple, list[dict]] = {}
    for row in sorted(rows, key=priority):
        alone = None if removes_equal(row["policy"]) else row["id"]
        groups.setdefault((row["node"], row["policy"], row["rank"], alone), []).append(row)
    order = list(groups)
    by_node: dict[int, list[tuple]] = {}
    for group in order:
        by_node.setdefault(group[0], []).append(group)

    def threshold(group: tuple, method: str) -> float:
        if method == "exact":
            return 1.0 if removes_equal(group[1]) else 2.0
        return policies[group[1]].thresholds.get(method, 2.0)

    relations = [
        (first, later, 1.0, "exact")
        for equal in by_node.values()
        for place, later in enumerate(equal)
        for first in equal[: min(place, 4)]
    ]
    relations += [
        (source, target, similarity, method)
        for a, b, similarity, method in edges
        for source in by_node[a]
        for target in by_node[b]
    ]
    wins: dict[tuple, dict[tuple, list]] = {group: {} for group in order}
    neighbours: dict[tuple, set] = {group: set() for group in order}
    for contains in (False, True):
        for a, b, similarity, method in relations:
            if (method == "contained") != contains:
                continue
            first, last = (a, b) if contains or order.index(a) < order.index(b) else (b, a)
            if similarity >= threshold(last, method) or (
                not contains and similarity >= threshold(first, method)
            ):
                neighbours[a].add(b)
                neighbours[b].add(a)
            if similarity < threshold(last, method):
                continue
            if contains and (first[2] > last[2] or wins[first].get(last) or wins[last].get(first)):
                symmetric = wins[first].get(last, []) + wins[last].get(first, [])
                if first[2] > last[2] or any(m != "contained" for _, m in symmetric):
                    continue
            wins[last].setdefault(first, []).append((similarity, method))
    testimonies: dict[tuple, set] = {group: set() for group in order}
    for a, b, similarity, method in relations:
        for witness, loser in ((a, b), (b, a))[: 1 if method == "contained" else 2]:
            if similarity >= threshold(loser, method) and witness[2] <= loser[2]:
                testimonies[loser].add((witness, similarity, method))

    decided: dict[tuple, bool] = {}
    while len(decided) < len(order):
        open_groups = [group for group in order if group not in decided]
        free = [group for group in open_groups if all(winner in decided for winner in wins[group])]
        group = (free or open_groups)[0]
        decided[group] = not any(decided.get(winner) for winner in wins[group])
    witnesses = {
        group: min(
            (PREFERENCE.index(method), -similarity, order.index(witness))
            for witness, similarity, method in testimonies[group]
            if decided[witness]
        )
        for group in order
        if not decided[group]
    }

    result: dict[int, tuple] = {}
    for group, (best, *others) in groups.items():
        thresholds = policies[group[1]].thresholds
        equal_by = next((m for m in PREFERENCE if m in thresholds and m != "contained"), None)
        if decided[group]:
            result[best["id"]] = (True, None, None, None, None)
            reason = (False, best["id"], 1.0, equal_by, thresholds.get(equal_by))
            result.update({row["id"]: reason for row in others})
        else:
            number, similarity, place = witnesses[group]
            method = equal_by if PREFERENCE[number] == "exact" else PREFERENCE[number]
            keeper = groups[order[place]][0]["id"]
            reason = (False, keeper, -similarity, method, thresholds[method])
            result.update({row["id"]: reason for row in (best, *others)})
    for group in order:
        component, queue = {group}, deque([group])
        while queue:
            for other in neighbours[queue.popleft()] - component:
                component.add(other)
                queue.append(other)
        ids = [row["id"] for member in component for row in groups[member]]
        for row in groups[group]:
            result[row["id"]] = (min(ids), len(ids), *result[row["id"]])
    return result


def test_a_chain_keeps_both_ends():
    rows = [{"id": 1}, {"id": 2}, {"id": 3}]
    result = solved(rows, [(1, 2, 0.8), (2, 3, 0.9)])
    assert [result[number]["kept"] for number in (1, 2, 3)] == [True, False, True]
    assert result[2]["kept_document_id"] == uuid(3), "the witness is the most similar kept neighbour"
    assert result[2]["similarity"] == 0.9
    assert result[2]["method"] == "near"
    assert {row["cluster_id"] for row in result.values()} == {uuid(1)}
    assert {row["cluster_size"] for row in result.values()} == {3}


def test_of_equally_similar_witnesses_the_first_by_priority_testifies():
    result = solved(
        [{"id": 1, "day": 9}, {"id": 2, "day": 10}, {"id": 3, "day": 8}], [(1, 2, 0.8), (2, 3, 0.8)]
    )
    assert result[2]["kept_document_id"] == uuid(3)


def test_exact_duplicates_of_kept_and_removed_nodes():
    rows = [{"id": 5, "node": 1}, {"id": 4, "node": 1}, {"id": 7, "node": 2, "day": 3}, {"id": 6, "node": 2}]
    result = solved(rows, [(1, 2, 0.75)])
    assert result[7]["kept"], "a date comes before none"
    assert result[6] | {"cluster_id": None} == {
        "document_id": uuid(6),
        "cluster_id": None,
        "cluster_size": 4,
        "kept": False,
        "kept_document_id": uuid(7),
        "similarity": 1.0,
        "method": "exact",
        "threshold": 1.0,
    }
    for number in (4, 5):
        assert (result[number]["kept_document_id"], result[number]["similarity"]) == (uuid(7), 0.75)
        assert (result[number]["method"], result[number]["threshold"]) == ("near", 0.7)
        assert result[number]["cluster_id"] == uuid(4)


@pytest.mark.parametrize(("keep", "best"), [("oldest", 2), ("newest", 3), ("longest", 4), ("best", 5)])
def test_keep_policies(keep, best):
    rows = [
        {"id": 1, "node": 9, "length": 7},
        {"id": 2, "node": 9, "day": -5, "quality": -1.0},
        {"id": 3, "node": 9, "day": 20_000},
        {"id": 4, "node": 9, "day": 3, "length": 8},
        {"id": 5, "node": 9, "day": 4, "length": 8, "quality": 0.5},
    ]
    assert kept(rows, [], keep=keep) == [best]


def test_what_a_source_has_is_never_dropped_for_a_less_precious_one():
    rows = [{"id": 1, "day": 1, "rank": 1}, {"id": 2, "day": 9}, {"id": 3, "node": 2, "day": 0, "rank": 1}]
    result = solved(rows, [(1, 2, 0.9)])
    assert [number for number in result if result[number]["kept"]] == [2]
    assert result[3]["method"] == "exact"
    contained = [Policy({"contained": 0.9})]
    assert kept([{"id": 1, "rank": 1}, {"id": 2}], [(1, 2, 1.0, "contained")], contained) == [1, 2]
    assert kept([{"id": 1}, {"id": 2, "rank": 1}], [(1, 2, 1.0, "contained")], contained) == [1]


def test_a_container_is_kept_whatever_its_date_and_testifies():
    rows = [{"id": 1, "day": 1}, {"id": 2, "day": 5}, {"id": 3, "day": 3}]
    policy = [Policy({"exact": 1.0, "near": 0.7, "contained": 0.9})]
    result = solved(rows, [(2, 1, 0.95, "contained"), (2, 3, 1.0, "contained")], policy)
    assert [number for number in result if result[number]["kept"]] == [2]
    assert (result[1]["method"], result[1]["similarity"], result[1]["threshold"]) == ("contained", 0.95, 0.9)


def test_a_container_that_goes_does_not_take_its_contents_with_it():
    # 1 is near 2, which contains 3; 2 goes for 1, and nothing that stays contains 3.
    policy = [Policy({"near": 0.7, "contained": 0.9})]
    edges = [(1, 2, 0.8, "near"), (2, 3, 0.95, "contained")]
    assert kept([{"id": 1}, {"id": 2}, {"id": 3}], edges, policy) == [1, 3]


def test_of_near_duplicates_the_policy_decides_and_not_the_size():
    policy = [Policy({"near": 0.7, "contained": 0.9})]
    edges = [(2, 1, 0.97, "contained"), (1, 2, 0.8, "near")]
    assert kept([{"id": 1, "day": 1}, {"id": 2, "day": 2}], edges, policy) == [1]


def test_winners_in_a_circle_are_decided_by_priority():
    policy = [Policy({"near": 0.7, "contained": 0.9})]
    edges = [(1, 2, 0.7, "near"), (2, 3, 0.9, "contained"), (3, 1, 0.9, "contained")]
    result = solved([{"id": 1}, {"id": 2}, {"id": 3}], edges, policy)
    assert [number for number in result if result[number]["kept"]] == [1, 3]
    assert result[2]["kept_document_id"] == uuid(1)


def test_layers_of_sources():
    strict, loose, never = Policy({"near": 0.9}), Policy({"exact": 1.0, "near": 0.5}), Policy()
    policies = [strict, loose, never]
    rows = [{"id": 1}, {"id": 2, "policy": 0}, {"id": 3, "policy": 1}, {"id": 4, "policy": 2}]
    edges = [(1, 2, 0.6), (1, 3, 0.6), (1, 4, 1.0)]
    result = solved(rows, edges, policies)
    assert [number for number in result if result[number]["kept"]] == [1, 2, 4]
    assert result[3]["threshold"] == 0.5
    assert result[2]["cluster_size"] == 1
    equal = [{"id": number, "node": 9, "policy": number % 3} for number in range(1, 10)]
    result = solved(equal, [], policies)
    assert {number: row["method"] for number, row in result.items()} == {
        1: None,
        2: None,
        3: "near",
        4: "exact",
        5: None,
        6: "near",
        7: "exact",
        8: None,
        9: "near",
    }


def test_ties_go_by_the_bytes_of_the_id():
    high, low = 0xF0 << 120, 0x0F << 120
    result = solved([{"id": high, "node": 1}, {"id": low, "node": 1}], [])
    assert result[low]["kept"]
    assert result[high]["cluster_id"] == uuid(low)


def test_documents_without_neighbours_stay():
    result = solved([{"id": 1}, {"id": 2}], [])
    assert all(row["kept"] and row["cluster_size"] == 1 and row["method"] is None for row in result.values())
    assert families(documents_of([]), edges_of([]), policies=DEFAULT).schema == FAMILIES


def test_wrong_families_are_refused():
    with pytest.raises(ValueError, match="twice"):
        solved([{"id": 1}, {"id": 1}], [])
    with pytest.raises(ValueError, match="no document has"):
        solved([{"id": 1}], [(1, 2, 0.9)])
    with pytest.raises(ValueError, match="keep must be"):
        solved([{"id": 1}], [], keep="worst")
    with pytest.raises(ValueError, match="methods are"):
        solved([{"id": 1}, {"id": 2}], [(1, 2, 0.9, "guess")])


LAYERS = st.dictionaries(st.sampled_from(PREFERENCE), st.sampled_from([0.7, 0.8, 0.9]), max_size=4)


@settings(max_examples=examples(300), deadline=None)
@given(st.data())
def test_families_equal_plain_python_in_any_order(data):
    ids = data.draw(st.lists(st.integers(0, 2**128 - 1), min_size=1, max_size=12, unique=True))
    policies = [
        Policy({**layers, **({"exact": 1.0} if "exact" in layers else {})})
        for layers in data.draw(st.lists(LAYERS, min_size=1, max_size=3))
    ]
    rows = [
        {
            "id": number,
            "node": data.draw(st.integers(0, 7)),
            "policy": data.draw(st.integers(0, len(policies) - 1)),
            "rank": data.draw(st.integers(0, 1)),
            "day": data.draw(st.none() | st.integers(-3, 3)),
            "length": data.draw(st.integers(1, 3)),
            "quality": data.draw(st.none() | st.integers(0, 2)),
        }
        for number in ids
    ]
    nodes = sorted({row["node"] for row in rows})
    possible = [(a, b, m) for a, b in combinations(nodes, 2) for m in PREFERENCE[1:]]
    chosen = data.draw(st.lists(st.sampled_from(possible), unique=True)) if possible else []
    edges = [
        (*((b, a) if data.draw(st.booleans()) else (a, b)), data.draw(st.sampled_from([0.7, 0.8, 0.9])), m)
        for a, b, m in chosen
    ]
    keep = data.draw(st.sampled_from(["oldest", "newest", "longest", "best"]))
    expected = families_in_plain_python(rows, edges, policies, keep)
    shuffled = data.draw(st.permutations(rows))
    turned = [
        edge if edge[3] == "contained" else (edge[1], edge[0], *edge[2:])
        for edge in data.draw(st.permutations(edges))
    ]
    for some_rows, some_edges in ((rows, edges), (shuffled, turned)):
        result = solved(some_rows, some_edges, policies, keep=keep)
        assert {
            number: (
                row["cluster_id"].int,
                row["cluster_size"],
                row["kept"],
                row["kept_document_id"] and row["kept_document_id"].int,
                row["similarity"],
                row["method"],
                row["threshold"],
            )
            for number, row in result.items()
        } == expected
        for row in result.values():
            assert row["kept"] or result[row["kept_document_id"].int]["kept"]


def test_every_removed_licence_has_a_kept_witness(shared):
    path = shared / "data" / "b4_licence_clusters" / "docs.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines][::3]
    hashes = sign(pa.table({"text": texts}))["norm_hash"].combine_chunks()
    sets = shingle_sets(texts)
    pairs = np.array(list(combinations(range(len(texts)), 2)))
    similarity = jaccard(sets, pairs)
    pairs, similarity = pairs[similarity >= 0.7], similarity[similarity >= 0.7]
    edges = pa.table(
        {
            "a": hashes.take(pa.array(pairs[:, 0])),
            "b": hashes.take(pa.array(pairs[:, 1])),
            "similarity": similarity,
            "method": pa.array(["near"] * len(pairs)),
        }
    )
    documents = documents_of([{"id": 0, "length": len(text)} for text in texts])
    ids = uuid_array(digest(str(number).encode()) for number in range(len(texts)))
    documents = documents.set_column(0, "document_id", ids).set_column(1, "node", hashes)
    rows = families(documents, edges, policies=DEFAULT, keep="longest").to_pylist()
    position = {row["document_id"]: number for number, row in enumerate(rows)}
    removed = [row for row in rows if not row["kept"]]
    assert len(removed) > 100
    for row in removed:
        keeper = position[row["kept_document_id"]]
        assert rows[keeper]["kept"]
        assert rows[keeper]["cluster_id"] == row["cluster_id"]
        pair = np.array([[position[row["document_id"]], keeper]])
        assert row["similarity"] == jaccard(sets, pair)[0]


@settings(max_examples=examples(100), deadline=None)
@given(st.integers(1, 40), st.data())
def test_components_are_those_of_a_walk(nodes, data):
    places = st.integers(0, nodes - 1)
    edges = data.draw(st.lists(st.tuples(places, places), max_size=60))
    source, target = np.array(edges, np.int64).reshape(-1, 2).T
    expected = list(range(nodes))
    for _ in range(nodes):
        for a, b in edges:
            expected[a] = expected[b] = min(expected[a], expected[b])
    numbers = {root: number for number, root in enumerate(sorted(set(expected)))}
    assert components(nodes, source, target).tolist() == [numbers[root] for root in expected]


def test_long_chains_and_stars_are_solved():
    count = 200_000
    rows = [{"id": number} for number in range(count)]
    chain = [(a, b, 0.8) for a, b in pairwise(range(count // 2))]
    star = [(count // 2, leaf, 0.9) for leaf in range(count // 2 + 1, count)]
    result = families(documents_of(rows), edges_of(chain + star), policies=DEFAULT)
    is_kept = result["kept"].to_numpy()
    assert is_kept[: count // 2].tolist() == [True, False] * (count // 4)
    assert is_kept[count // 2 :].tolist() == [True] + [False] * (count // 2 - 1)


def test_equal_documents_of_a_source_without_layers_cost_no_square():
    rows = [{"id": number, "node": 1, "policy": number % 2} for number in range(20_000)]
    result = families(documents_of(rows), edges_of([]), policies=[Policy(), *DEFAULT])
    assert sum(result["kept"].to_pylist()) == 10_000
