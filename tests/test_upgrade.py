"""Upgrades: what an earlier version wrote can be read, is taken further, and nothing of its history is lost."""

import json
import tarfile
from pathlib import Path
from typing import Any

import duckdb
import pytest
from harness import NOTHING, READER, failed_checks

from stemma.config import Config, load_config
from stemma.lineage.comparison import compare_files
from stemma.resources.engine import Run, Setup, run_all
from stemma.resources.memo import Memo
from stemma.resources.warehouse import Warehouse

# Each made by its version with fixtures/make_warehouse.py; "before_days" by commit 3fc8ee4, whose state was laid out
# otherwise and knew no days.
WAREHOUSES = sorted((Path(__file__).parent / "fixtures").glob("*.tar.xz"))
STAGES = {"cleaned": "clean", "deduplicated": "sign", "chunked": "chunk", "embedded": "embed"}


@pytest.fixture(params=WAREHOUSES, ids=lambda path: path.name.split(".")[0])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with documents, stemma.toml and a corpus that an earlier version wrote."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask as any reader would."""
    with duckdb.connect(str(path), read_only=True, config=READER) as connection:
        return connection.execute(sql).fetchall()


def run_once(config: Config, path: Path, run_id: str) -> dict[str, int]:
    """Run, and return the rows computed of each dataset."""
    run = Run(run_id, Setup.of(config), Warehouse(path))
    try:
        assert run_all(run).published
    finally:
        run.warehouse.close()
    return {name: counts.rows_computed for name, counts in run.counts.items()}


def has_its_contract(root: Path) -> None:
    """Assert that every table, column and type answers that the version promised which wrote the file."""
    path = root / ".stemma" / "corpus.duckdb"
    for table, columns in json.loads((root / "contract.json").read_text()).items():
        told = {name: kind for name, kind, *_rest in query(path, f"DESCRIBE {table}")}
        assert columns.items() <= told.items(), table
        query(path, f"SELECT {', '.join(columns)} FROM {table}")


def test_a_corpus_of_an_earlier_version_is_taken_further(root: Path, tmp_path_factory: Any) -> None:
    config = load_config(root / "stemma.toml")
    path = config.warehouse.path
    has_its_contract(root)
    assert failed_checks(path) == []
    before = query(path, "FROM lineage.runs ORDER BY ALL")
    columns = [name for name, *_rest in query(path, "DESCRIBE lineage.runs")]
    recipes = query(path, "FROM lineage.recipes ORDER BY ALL")
    assert len({row[0] for row in before}) == 2
    setup, memo = Setup.of(config), Memo(path.with_suffix(".work") / "memo")
    same = {
        name
        for name, stage in STAGES.items()
        if (memo.root / stage / setup.recipe(getattr(setup, stage))).is_dir()
    }
    computed = run_once(config, path, "present")
    # What the recipe says is made as it was has been found again.
    assert {name: computed[name] for name in {"raw", *same}} == dict.fromkeys({"raw", *same}, 0)
    has_its_contract(root)
    assert failed_checks(path) == []
    after = query(path, f"SELECT {', '.join(columns)} FROM lineage.runs ORDER BY ALL")
    assert set(before) < set(after)
    assert {row[0] for row in after} - {row[0] for row in before} == {"present"}
    assert set(recipes) <= set(query(path, "FROM lineage.recipes"))
    rebuilt = tmp_path_factory.mktemp("rebuilt") / "corpus.duckdb"
    run_once(config, rebuilt, "rebuilt")
    compared = compare_files(path, rebuilt)
    assert [table for table in compared if table.differs] == []
    assert run_once(config, path, "again") == NOTHING
