"""stemma chunk-eval: which strategy and size suits this corpus."""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemma.commands.output import print_json, print_table, say
from stemma.commands.published import open_published
from stemma.config import ChunkConfig, Config, EmbedConfig, load_config
from stemma.errors import StemmaError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.axes import Axes

    from stemma.embedding.arrays import Vectors
    from stemma.evaluation import Document, Question
    from stemma.resources.embedder import Embedder
    from stemma.resources.engine.setup import Setup

STRATEGIES = ("structure", "semantic", "recursive", "fixed")
SIZES = ("64/128", "96/160", "128/200")
# Without questions of the user's, scores of a sample are the same as those of all, to a percent.
SAMPLED_DOCUMENTS = 500
_SIZE = re.compile(r"(?:([0-9]{1,6})/)?([0-9]{1,6})")
_INTRINSIC = ("whole", "even", "separation", "score")
_TITLES = {"precision_omega": "PΩ", "iou": "IoU", "mb_per_second": "MB/s", "tokens": "tokens/answer"}


@dataclass(frozen=True)
class Grid:
    """What is compared: strategies, and sizes as (target or none, maximum)."""

    strategies: tuple[str, ...]
    sizes: tuple[tuple[int | None, int], ...]


def chunk_eval(options: argparse.Namespace) -> int:
    """Chunk the corpus in each way of a grid, score it, and print a row for each."""
    config = load_config(options.config)
    if options.model is not None:
        config = replace(config, embed=replace(config.embed, model=options.model))
    if options.questions is not None and options.cloze is not None:
        raise UsageError("--questions and --cloze: give one of them")
    if options.plot is not None and not options.plot.absolute().parent.is_dir():
        raise UsageError(f"--plot: there is no folder {options.plot.parent}")
    grid = _grid(options.strategies, options.sizes)
    limit = options.documents or (None if options.questions else SAMPLED_DOCUMENTS)
    documents = _documents(config, limit)
    rows = evaluate(config, grid, documents, _questions(options, documents), options.k)
    if options.plot is not None:
        plot(rows, options.plot)
    if options.json:
        print_json(rows)
        return 0
    columns = [name for name in rows[0] if name not in ("target_tokens", "max_tokens")]
    shown = [[_shown(row[name]) for name in columns] for row in rows]
    kind = "questions" if "recall" in rows[0] else "no questions"
    print_table(f"{len(documents):,} documents, {kind}", [_TITLES.get(each, each) for each in columns], shown)
    return 0


def evaluate(
    config: Config, grid: Grid, documents: "Sequence[Document]", questions: "Sequence[Question]", k: int
) -> list[dict[str, Any]]:
    """Return a row of scores for each strategy and size.

    With questions: recall, precision, precision_omega, iou and tokens of the `k` nearest chunks (see
    `stemma.evaluation.retrieval_scores`; means). Always: whole, even, separation, score (`intrinsic_scores`), chunks
    and mb_per_second, megabytes of UTF-8 chunked in a second.
    """
    import pyarrow as pa

    from stemma.evaluation import intrinsic_scores, mean_scores, nearest, retrieval_scores
    from stemma.resources.engine.setup import Setup

    texts = pa.table({"text": pa.array([document.text for document in documents], pa.string())})
    megabytes = sum(len(document.text.encode()) for document in documents) / 1e6
    embedder = Setup.of(config).embedder
    embed = _Embedding(embedder, config.embed)
    asked = embed.queries([question.text for question in questions]) if questions else None
    rows: list[dict[str, Any]] = []
    for strategy in grid.strategies:
        for target, most in grid.sizes:
            settings = replace(config, chunk=ChunkConfig(strategy, most, target))
            chunks, seconds = _chunked(Setup(settings, embedder), texts)
            row: dict[str, Any] = {"strategy": strategy, "size": f"{target}/{most}" if target else str(most)}
            row |= {"target_tokens": target, "max_tokens": most}
            own = intrinsic_scores(texts.append_column("chunks", chunks))
            row |= {"chunks": int(own["chunks"])}
            if asked is not None:
                table = _flat(chunks)
                found = nearest(asked, embed(table), k)
                row |= mean_scores(retrieval_scores(table, questions, found))
            else:
                row |= {"mean_tokens": own["tokens"]}
            row |= {name: own[name] for name in _INTRINSIC}
            rows.append({**row, "mb_per_second": megabytes / seconds})
    return rows


def plot(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Draw recall against IoU, or the score against the mean size, with a line for each strategy.

    Raises UsageError where the file's ending names no format, StemmaError where it cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes: Axes = figure.subplots()
    across, up = ("recall", "iou") if "recall" in rows[0] else ("mean_tokens", "score")
    for strategy in dict.fromkeys(row["strategy"] for row in rows):
        points = [row for row in rows if row["strategy"] == strategy]
        axes.plot([row[across] for row in points], [row[up] for row in points], marker="o", label=strategy)
        for row in points:
            axes.annotate(
                row["size"],
                (row[across], row[up]),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=7,
            )
    axes.set_xlabel(across.replace("_", " "))
    axes.set_ylabel(_TITLES.get(up, up))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    try:
        figure.savefig(file, dpi=120)
    except ValueError as error:
        raise UsageError(f"--plot {file}: {error}") from error
    except OSError as error:
        raise StemmaError(f"{file}: cannot be written: {error}") from error


class _Embedding:
    """The configured model, loaded when it is first needed; what many ways share is embedded once.

    Chunks are embedded as a run does it: below their section and smoothed by their neighbours, if so configured.
    """

    def __init__(self, embedder: "Embedder", settings: EmbedConfig) -> None:
        self._embedder = embedder
        self._settings = settings
        self._columns = ["text", "section"] if settings.context == "section" else ["text"]
        self._known: dict[tuple[str, ...], Any] = {}

    def __call__(self, chunks: "pa.Table") -> "Vectors":
        import numpy as np
        import pyarrow as pa

        from stemma.embedding.arrays import matrix

        inputs = list(zip(*(chunks[name].to_pylist() for name in self._columns), strict=True))
        missing = list(dict.fromkeys(each for each in inputs if each not in self._known))
        if missing:
            say(f"embedding {len(missing):,} chunks …", file=sys.stderr)
            embedder = self._embedder
            model = {"model": self._model} if embedder.load else {}
            columns = zip(self._columns, zip(*missing, strict=True), strict=True)
            table = pa.table({name: pa.array(values, pa.string()) for name, values in columns})
            vectors = matrix(embedder.function(table, **embedder.parameters, **model))
            self._known.update(zip(missing, vectors, strict=True))
        return _normalised(self._smoothed(np.array([self._known[each] for each in inputs]), chunks))

    def _smoothed(self, vectors: "Vectors", chunks: "pa.Table") -> "Vectors":
        import numpy as np

        from stemma.embedding.context import smoothed

        if not self._settings.smoothing or not len(vectors):
            return vectors
        rows = np.arange(len(vectors))
        small = chunks["tokens"].to_numpy() <= self._settings.smoothing_tokens
        is_next = np.diff(chunks["document"].to_numpy(), prepend=-1) == 0
        before = np.where(small & is_next, rows - 1, -1)
        after = np.where(small & np.append(is_next[1:], False), rows + 1, -1)
        return smoothed(vectors, rows, before, after, self._settings.smoothing)

    def queries(self, texts: list[str]) -> "Vectors":
        import numpy as np

        vectors = [self._embedder.embed_query(text, self._model) for text in texts]
        return _normalised(np.array(vectors, dtype=np.float32))

    @cached_property
    def _model(self) -> Any:
        return self._embedder.load(**self._embedder.parameters) if self._embedder.load else None


def _normalised(vectors: "Vectors") -> "Vectors":
    import numpy as np

    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _chunked(setup: "Setup", texts: "pa.Table") -> tuple["pa.ChunkedArray", float]:
    """Chunk the texts as a run would, and say how many seconds that took."""
    stage = setup.chunk
    model = stage.load(**stage.parameters) if stage.load else None
    started = time.perf_counter()
    chunks = stage.function(texts, **stage.parameters, model=model)["chunks"]
    return chunks, time.perf_counter() - started


def _flat(chunks: "pa.ChunkedArray") -> "pa.Table":
    import pyarrow as pa

    array = chunks.combine_chunks()
    return pa.Table.from_struct_array(array.flatten()).append_column("document", array.value_parent_indices())


def _documents(config: Config, limit: int | None) -> "list[Document]":
    """Return the kept documents of the published corpus; their ids are hashes, so that the first are a sample."""
    from stemma.evaluation import Document

    with open_published(config) as connection:
        found = connection.execute(
            """SELECT d.document_id::VARCHAR, r.uri, d.text
            FROM corpus.deduplicated AS d JOIN corpus.raw AS r USING (document_id)
            ORDER BY d.document_id LIMIT $most""",
            {"most": limit},
        ).fetchall()
    if not found:
        raise StemmaError("the corpus has no documents")
    return [Document(*row) for row in found]


def _questions(options: argparse.Namespace, documents: "Sequence[Document]") -> "list[Question]":
    from stemma.evaluation import cloze_questions, read_questions

    if options.questions is not None:
        return read_questions(options.questions, documents)
    if options.cloze is None:
        return []
    questions = cloze_questions(documents, options.cloze)
    if not questions:
        raise StemmaError("no paragraph of the documents has three sentences to ask for")
    return questions


def _grid(strategies: str | None, sizes: str | None) -> Grid:
    names = tuple(strategies.split(",")) if strategies is not None else STRATEGIES
    rule = ChunkConfig.__dataclass_fields__["strategy"].metadata["rule"]
    for name in names:
        if complaint := rule.complaint(name):
            raise UsageError(f"--strategies {name}: must be {complaint}")
    return Grid(names, tuple(map(_size, sizes.split(",") if sizes is not None else SIZES)))


def _size(text: str) -> tuple[int | None, int]:
    match = _SIZE.fullmatch(text)
    target, most = (int(match[1]) if match[1] else None, int(match[2])) if match else (None, 0)
    if not most or (target is not None and not 1 <= target <= most):
        raise UsageError(f"--sizes {text}: must be MAXIMUM or TARGET/MAXIMUM, in tokens, as in 200 or 96/160")
    return target, most


def _shown(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value
