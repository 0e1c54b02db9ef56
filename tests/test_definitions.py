"""The definitions: what `workspace.yaml`, `dagster dev`, `dg` and `stemma run` load."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from stemma.assets.audit import CHECK
from stemma.commands.run import prepare_dagster_home
from stemma.config import Config, load_config
from stemma.datasets import DATASETS
from stemma.definitions import JOB, build_definitions, defs
from stemma.errors import UsageError
from stemma.resources.engine.step_checks import WARNING

ROOT = Path(__file__).resolve().parents[1]
NAMES = [dataset.name for dataset in DATASETS]


def configured(folder: Path, text: str = '[[sources]]\npath = "."\n[embed]\nmodel = "hash:8"\n') -> Config:
    (folder / "stemma.toml").write_text(text)
    return load_config(folder / "stemma.toml")


def tool(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run one of Dagster's commands as a person would in the repository's root, with a home of its own."""
    home = folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    configured(folder)
    environment = os.environ | {"DAGSTER_HOME": str(home), "STEMMA_CONFIG": str(folder / "stemma.toml")}
    program = str(Path(sys.executable).with_name(command[0]))
    return subprocess.run(
        [program, *command[1:]], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


def test_the_graph_is_source_raw_cleaned_deduplicated_chunked_embedded(tmp_path: Path) -> None:
    graph = build_definitions(configured(tmp_path)).resolve_asset_graph()
    parents = {
        key.to_user_string(): [p.to_user_string() for p in graph.get(key).parent_keys]
        for key in graph.get_all_asset_keys()
    }
    assert parents == {"source": []} | dict(
        zip(NAMES, [[above] for above in ["source", *NAMES[:-1]]], strict=True)
    )
    assert [
        key.to_user_string() for key in graph.materializable_asset_keys if key.to_user_string() not in NAMES
    ] == []


def test_every_asset_says_what_it_is(tmp_path: Path) -> None:
    graph = build_definitions(configured(tmp_path)).resolve_asset_graph()
    for dataset in DATASETS:
        asset = graph.get(dg.AssetKey(dataset.name))
        assert asset.group_name == "corpus"
        assert asset.owners == ["team:stemma"]
        assert "duckdb" in asset.kinds
        assert asset.description == dataset.description
        assert asset.code_version
        assert asset.check_keys, f"{dataset.name} has blocking checks"
    source = graph.get(dg.AssetKey("source"))
    assert str(tmp_path) in source.description


def test_every_check_says_what_it_checks_and_all_but_those_of_health_block(tmp_path: Path) -> None:
    graph = build_definitions(configured(tmp_path)).resolve_asset_graph()
    for key in graph.asset_check_keys:
        check = graph.get(key)
        assert check.blocking == (key.name not in {*WARNING, CHECK})
        assert check.description


def test_the_job_runs_in_one_process(tmp_path: Path) -> None:
    definitions = build_definitions(configured(tmp_path))
    job = definitions.resolve_job_def(JOB)
    assert job.executor_def is dg.in_process_executor
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == set(NAMES)
    assert definitions.executor is dg.in_process_executor


def test_without_a_configuration_there_are_definitions_without_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STEMMA_CONFIG", raising=False)
    graph = defs().resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == {"source", *NAMES}
    assert list(tmp_path.iterdir()) == [], "loading writes nothing"


def test_a_bad_configuration_is_named_when_definitions_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stemma.toml").write_text("[chunk]\nmax_tokens = 0\n")
    monkeypatch.setenv("STEMMA_CONFIG", str(tmp_path / "stemma.toml"))
    with pytest.raises(UsageError, match=r"stemma.toml, line 2"):
        defs()


def test_the_code_version_is_the_same_in_another_folder(tmp_path: Path) -> None:
    versions = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        graph = build_definitions(configured(tmp_path / name)).resolve_asset_graph()
        versions.append({key: graph.get(dg.AssetKey(key)).code_version for key in NAMES})
    assert {n for n in NAMES if versions[0][n] != versions[1][n]} <= {"raw"}, "only raw may name its places"


def test_the_workspace_loads_stemma_definitions() -> None:
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())
    assert workspace == {"load_from": [{"python_module": "stemma.definitions"}]}
    assert "[tool.dagster]" not in [
        line.strip() for line in (ROOT / "pyproject.toml").read_text().splitlines()
    ]


def test_telemetry_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    home = prepare_dagster_home(configured(tmp_path))
    assert home == tmp_path / ".dagster"
    assert os.environ["DAGSTER_HOME"] == str(home)
    monkeypatch.delenv("DAGSTER_HOME")
    for file in (ROOT / "dagster.yaml", home / "dagster.yaml"):
        settings = yaml.safe_load(file.read_text())
        assert settings["telemetry"]["enabled"] is False
        assert settings["nux"]["enabled"] is False


def test_a_dagster_home_that_is_set_is_kept_with_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "dagster.yaml").write_text("{}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "mine"))
    assert prepare_dagster_home(configured(tmp_path)) == tmp_path / "mine"
    assert (tmp_path / "mine" / "dagster.yaml").read_text() == "{}\n"


def test_the_repositorys_own_configuration_reads_the_sample() -> None:
    config = load_config(ROOT / "stemma.toml")
    assert [source.path for source in config.sources] == [str(ROOT / "sample" / "corpus")]
    defaults = Config(directory=ROOT)
    for section in ("clean", "deduplicate", "chunk", "embed", "engine"):
        assert getattr(config, section) == getattr(defaults, section), "everything else is the default"


def test_dg_check_defs_passes(tmp_path: Path) -> None:
    done = tool(tmp_path, "dg", "check", "defs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All definitions loaded successfully" in done.stdout + done.stderr


def test_dg_list_defs_lists_everything(tmp_path: Path) -> None:
    done = tool(tmp_path, "dg", "list", "defs", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in (*NAMES, "source", JOB, "nightly", "inbox", "run_failure"):
        assert f'"{name}"' in done.stdout, name


def test_dagster_definitions_validate_passes(tmp_path: Path) -> None:
    done = tool(tmp_path, "dagster", "definitions", "validate")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All code locations passed validation" in done.stdout + done.stderr
