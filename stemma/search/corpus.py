"""Opening a published corpus from Python, with its embedding model at hand."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from duckdb.func import PythonUDFType

from stemma.config import Config, WarehouseConfig, load_config
from stemma.errors import StemmaError
from stemma.lineage.as_of import open_as_of
from stemma.lineage.views import database_name

Embed = Callable[[str], list[float]]


def open_corpus(
    corpus: str | os.PathLike[str] | None = None, *, as_of: str | None = None
) -> duckdb.DuckDBPyConnection:
    """Open a published corpus read-only, with the SQL function `embed(VARCHAR)`.

    `embed` makes the vector of a text as a query, of the type of corpus.embedded.embedding, by the model that the
    corpus was embedded with; the model is loaded when it is first called.

    Args:
        corpus: a configuration (`.toml`), or else the published file; None takes the configuration that the command
            line would take.
        as_of: a run, as `stemma.lineage.as_of.find_publication` takes it; None for what is published now. Without
            vectors of that run there is no `embed`.

    Raises:
        ConfigError: for a bad configuration.
        StemmaError: when nothing has been published yet, or the file is no DuckDB database.
    """
    config = _config(corpus)
    connection = _attached(config.warehouse.path, as_of)
    vectors = _vector_type(connection)
    if vectors is not None:
        _register(connection, query_embedder(connection, config), *vectors)
    return connection


def query_embedder(connection: duckdb.DuckDBPyConnection, config: Config) -> Embed:
    """Return what embeds queries with the model that a published file names; it loads the model when called first.

    The model's settings are those that the file's vectors were made with; the device is the configuration's.
    """
    # Asked now: a query of the connection may be under way when a text is to be embedded.
    model = connection.execute("SELECT model FROM corpus.embedded LIMIT 1").fetchone()
    made_by = connection.execute(
        """SELECT explained->>'parameters' FROM lineage.recipes JOIN lineage.datasets AS d USING (recipe)
        WHERE d.name = 'embedded' AND dataset = 'embedded'"""
    ).fetchone()
    parameters = json.loads(made_by[0]) if made_by else {}
    loaded: list[Embed] = []

    def embed(text: str) -> list[float]:
        if model is None:
            raise StemmaError(
                "the corpus has no vectors: its sources hold no documents ('stemma status' tells), or no run has"
                " embedded them"
            )
        if not loaded:
            loaded.append(_load(model[0], parameters.get("precision", config.embed.precision), config))
        return loaded[0](text)

    return embed


def _load(model: str, precision: str, config: Config) -> Embed:
    from stemma.resources.embedder import resolve_embedder

    device, backend = config.embed.device, config.embed.backend
    embedder = resolve_embedder(model, device, precision, backend, directory=config.directory)
    ready = embedder.load(**embedder.parameters) if embedder.load else None
    return lambda text: embedder.embed_query(text, ready)


def _config(corpus: str | os.PathLike[str] | None) -> Config:
    if corpus is None or Path(corpus).suffix == ".toml":
        return load_config(Path(corpus) if corpus is not None else None)
    return Config(warehouse=WarehouseConfig(path=Path(corpus).absolute()))


def _attached(path: Path, as_of: str | None) -> duckdb.DuckDBPyConnection:
    """Open a published file in a database instance of its own.

    Connections of one process to one path share an instance: with it functions, and what was published when the
    first of them was opened.
    """
    if not path.exists():
        raise StemmaError(f"{path}: nothing published yet; 'stemma run PATH' makes it")
    settings: dict[str, Any] = {"python_enable_replacements": False, "arrow_lossless_conversion": True}
    if as_of is not None:
        return open_as_of(path, as_of, settings)
    connection = duckdb.connect(config=settings)
    name, place = database_name(path).replace('"', '""'), str(path).replace("'", "''")
    try:
        connection.execute(f"""ATTACH '{place}' AS "{name}" (READ_ONLY)""")
        connection.execute(f'USE "{name}"')
    except duckdb.Error as error:
        connection.close()
        raise StemmaError(f"{path}: cannot be opened: {str(error).splitlines()[0]}") from error
    return connection


def _vector_type(connection: duckdb.DuckDBPyConnection) -> tuple[Any, int] | None:
    """Return the type of the corpus's vectors and their dimensions; None where it has none of a fixed length."""
    try:
        description = connection.execute("SELECT embedding FROM corpus.embedded LIMIT 0").description or []
        connection.execute("SELECT chunk_id FROM corpus.embedded LIMIT 1")
    except (duckdb.CatalogException, duckdb.InvalidInputException):
        return None
    kind = description[0][1]
    found = re.fullmatch(r"FLOAT\[(\d+)\]", str(kind))
    return (kind, int(found[1])) if found else None


def _register(connection: duckdb.DuckDBPyConnection, embed: Embed, kind: Any, dimensions: int) -> None:
    def vectors(texts: pa.ChunkedArray) -> pa.Array:
        rows = np.array([embed(text) for text in texts.to_pylist()], np.float32)
        return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), dimensions)

    connection.create_function(
        "embed", vectors, ["VARCHAR"], kind, type=PythonUDFType.ARROW, side_effects=False
    )
