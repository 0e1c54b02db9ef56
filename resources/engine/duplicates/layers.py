"""The layers that find duplicates: how each signs a text, where it looks for candidates, and how it measures them."""

import functools
import itertools
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from stemma.config import SourceDuplicatesConfig
from stemma.deduplication import (
    Buckets,
    Policy,
    band_keys,
    band_parameters,
    bucket_pairs,
    jaccard,
    plausible_pairs,
    shingle_sets,
    signature_array,
    sketch_array,
)
from stemma.deduplication.containment import (
    CONTAINED,
    contained_buckets,
    contained_scores,
    plausible_contained,
    sign_contained,
)
from stemma.deduplication.edit import EDIT, edit_buckets, edit_scores, plausible_edit, sign_edit
from stemma.deduplication.nodes import scoped_nodes
from stemma.deduplication.semantic import (
    SIGNED_SEMANTIC,
    semantic_buckets,
    semantic_scores,
    sign_semantic,
    vector_array,
)
from stemma.hashing import key
from stemma.incremental.stage import Stage
from stemma.resources.embedder import Embedder
from stemma.resources.engine.setup import SIGNING, TEXT, Setup

# How layers are numbered in the state; a number is never given to another.
NUMBERS = {"near": 1, "contained": 2, "edit": 3, "semantic": 4}


@dataclass(frozen=True)
class Layer:
    """One layer of duplicates.

    Attributes:
        name: its name in lineage.duplicates.method.
        threshold: the lowest that any source asks for.
        stage: text to signature (null for a text that cannot take part), and what else the columns name of it.
        bucketed: the columns of the stage's results that `buckets` takes.
        compared: the columns of them that `plausible` takes.
        buckets: from results of the stage to the buckets that they are in.
        plausible: which pairs of results may reach the threshold.
        scores: the exact scores of pairs of texts, by their positions; of contained, of the first with the second.
        of_signatures: whether `scores` takes what `plausible` takes in the place of texts.
        code: the functions that its candidates and scores depend on, beside the stage.
    """

    name: str
    threshold: float
    stage: Stage
    bucketed: tuple[str, ...]
    compared: tuple[str, ...]
    buckets: Callable[[pa.Table], Buckets]
    plausible: Callable[[pa.Table, np.ndarray], np.ndarray]
    scores: Callable[[Any, np.ndarray], np.ndarray]
    code: tuple[Callable[..., Any], ...]
    of_signatures: bool = False

    @property
    def directed(self) -> bool:
        """Whether it matters which of a pair comes first."""
        return self.name == "contained"

    @property
    def number(self) -> int:
        """Its number in the state."""
        return NUMBERS[self.name]


def asked_layers(setup: Setup, source: str) -> tuple[str, ...]:
    """Return the layers that are asked for a source's documents."""
    return _own(setup, source).layers or setup.config.deduplicate.layers


def _own(setup: Setup, source: str) -> SourceDuplicatesConfig:
    named = (each.deduplicate for each in setup.config.sources if each.name == source)
    return next(named, SourceDuplicatesConfig())


def document_policy(setup: Setup, source: str, category: str = "") -> Policy:
    """Return what the documents of a source and category are removed for."""
    settings = setup.config.deduplicate
    thresholds = {
        "exact": 1.0,
        "near": settings.threshold,
        "contained": settings.contained.threshold,
        "edit": settings.edit.threshold,
        "semantic": dict(settings.semantic.thresholds).get(category, settings.semantic.threshold),
    } | dict(_own(setup, source).thresholds)
    asked = asked_layers(setup, source)
    return Policy({name: thresholds[name] for name in thresholds if name in asked}, category)


def layers(setup: Setup) -> tuple[Layer, ...]:
    """Return the layers that any source asks for, but exact, which needs none; none for the index "bloom"."""
    if setup.config.deduplicate.index == "bloom":
        return ()
    sources = ["", *(source.name for source in setup.config.sources)]
    categories = ["", *dict(setup.config.deduplicate.semantic.thresholds)]
    lowest: dict[str, float] = {}
    for source, category in itertools.product(sources, categories):
        for name, threshold in document_policy(setup, source, category).thresholds.items():
            lowest[name] = min(threshold, lowest.get(name, threshold))
    return tuple(make(setup, lowest[name]) for name, make in MAKERS.items() if name in lowest)


def index_recipe(setup: Setup) -> str:
    """Return the recipe of all that stands in the index: nodes, buckets, candidates and their scores."""
    settings = setup.config.deduplicate
    parts: list[Any] = ["index", setup.recipe(setup.sign), setup.code(bucket_pairs), setup.code(scoped_nodes)]
    # Who comes first in a bucket is a matter of the order of priority.
    parts += [settings.scope, settings.numbers, settings.keep, repr((settings.quality, settings.priority))]
    for layer in layers(setup):
        parts += [layer.name, repr(layer.threshold), setup.recipe(layer.stage)]
        parts += [setup.code(function) for function in layer.code]
    return key(*parts).hex()


def _near(setup: Setup, threshold: float) -> Layer:
    settings = setup.config.deduplicate
    return Layer(
        name="near",
        threshold=threshold,
        stage=setup.sign,
        bucketed=("signature",),
        compared=("sketch",),
        buckets=functools.partial(_near_buckets, permutations=settings.permutations, threshold=threshold),
        plausible=functools.partial(_near_plausible, permutations=settings.permutations, threshold=threshold),
        scores=functools.partial(_near_scores, shingle_words=settings.shingle_words),
        code=(band_parameters, band_keys, plausible_pairs, shingle_sets, jaccard),
    )


def _near_buckets(signed: pa.Table, *, permutations: int, threshold: float) -> Buckets:
    bands, rows = band_parameters(threshold, permutations)
    keys = band_keys(signature_array(signed["signature"], permutations), bands, rows).reshape(-1)
    position = np.repeat(np.arange(signed.num_rows), bands)
    return Buckets(keys, position, np.zeros(len(keys), np.int64), np.ones(len(keys), bool))


def _near_plausible(
    signed: pa.Table, pairs: np.ndarray, *, permutations: int, threshold: float
) -> np.ndarray:
    return plausible_pairs(sketch_array(signed["sketch"], permutations), pairs, threshold)


def _near_scores(texts: Sequence[str], pairs: np.ndarray, *, shingle_words: int) -> np.ndarray:
    return jaccard(shingle_sets(texts, shingle_words=shingle_words), pairs)


def _contained(setup: Setup, threshold: float) -> Layer:
    settings = setup.config.deduplicate
    return Layer(
        name="contained",
        threshold=threshold,
        stage=Stage(
            name="sign_contained",
            function=sign_contained,
            parameters={
                "shingle_words": settings.shingle_words,
                "min_shingles": settings.contained.min_shingles,
            },
            inputs=TEXT,
            outputs=CONTAINED,
            libraries=("numpy",),
            digests={"unicode": unicodedata.unidata_version},
            parallel=True,
            **SIGNING,
        ),
        bucketed=("shingles", "signature"),
        compared=("signature",),
        buckets=contained_buckets,
        plausible=functools.partial(plausible_contained, threshold=threshold),
        scores=functools.partial(contained_scores, shingle_words=settings.shingle_words),
        code=(contained_buckets, plausible_contained, contained_scores),
    )


def _edit(setup: Setup, threshold: float) -> Layer:
    return Layer(
        name="edit",
        threshold=threshold,
        stage=Stage(
            name="sign_edit",
            function=sign_edit,
            parameters={"max_characters": setup.config.deduplicate.edit.max_characters},
            inputs=TEXT,
            outputs=EDIT,
            libraries=("datasketch", "numpy"),
            digests={"unicode": unicodedata.unidata_version},
            parallel=True,
            **SIGNING,
        ),
        bucketed=("characters", "signature"),
        compared=("characters", "signature"),
        buckets=functools.partial(edit_buckets, threshold=threshold),
        plausible=functools.partial(plausible_edit, threshold=threshold),
        scores=edit_scores,
        code=(edit_buckets, plausible_edit, edit_scores),
    )


def _semantic(setup: Setup, threshold: float) -> Layer:
    embedder = setup.embedder
    return Layer(
        name="semantic",
        threshold=threshold,
        stage=Stage(
            name="sign_semantic",
            function=sign_semantic,
            # The recipe of the model's own stage stands for its code, weights and settings.
            parameters={"embedder": setup.recipe(setup.embed)},
            inputs=TEXT,
            outputs=SIGNED_SEMANTIC,
            libraries=("numpy",),
            digests={"unicode": unicodedata.unidata_version},
            load=functools.partial(_load_embedder, embedder),
        ),
        bucketed=("signature",),
        compared=("signature",),
        buckets=functools.partial(semantic_buckets, threshold=threshold),
        plausible=_all_plausible,
        scores=_semantic_scores,
        code=(semantic_buckets, semantic_scores),
        of_signatures=True,
    )


def _load_embedder(embedder: Embedder, /, **_parameters: Any) -> Callable[[pa.Table], pa.Table]:
    model = {"model": embedder.load(**embedder.parameters)} if embedder.load else {}
    return functools.partial(embedder.function, **embedder.parameters, **model)


def _all_plausible(_signed: pa.Table, pairs: np.ndarray) -> np.ndarray:
    return np.ones(len(pairs), bool)


def _semantic_scores(signed: pa.Table, pairs: np.ndarray) -> np.ndarray:
    return semantic_scores(vector_array(signed["signature"]), pairs)


MAKERS: dict[str, Callable[[Setup, float], Layer]] = {
    "near": _near,
    "contained": _contained,
    "edit": _edit,
    "semantic": _semantic,
}
