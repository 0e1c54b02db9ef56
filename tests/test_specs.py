"""A snapshot of every asset, check, job, schedule and sensor, as tests/specs.json has it.

After a change that is meant: `.venv/bin/python tests/test_specs.py`, and read the difference.
"""

import json
from pathlib import Path
from typing import Any

import dagster as dg

from stemma.config import Config, SourceConfig
from stemma.definitions import build_definitions

SNAPSHOT = Path(__file__).with_name("specs.json")


def specs() -> dict[str, Any]:
    """Return what Dagster shows of a corpus with one source, but for what depends on code, versions and day."""
    config = Config(sources=(SourceConfig("docs", "/srv/docs"),))
    definitions = build_definitions(config)
    repository = definitions.get_repository_def()
    return {
        "assets": {
            key.to_user_string(): asset(node) for key, node in sorted(repository.assets_defs_by_key.items())
        },
        "checks": {
            f"{key.asset_key.to_user_string()}.{key.name}": {
                "blocking": spec.blocking,
                "description": spec.description,
            }
            for key, spec in sorted(
                (
                    (spec.key, spec)
                    for node in repository.assets_defs_by_key.values()
                    for spec in node.check_specs
                ),
                key=lambda item: str(item[0]),
            )
        },
        "jobs": {
            job.name: one_job(job) for job in repository.get_all_jobs() if not job.name.startswith("__")
        },
        "schedules": {
            schedule.name: {
                "job": schedule.job_name,
                "cron": schedule.cron_schedule,
                "timezone": schedule.execution_timezone,
                "status": schedule.default_status.value,
                "description": schedule.description,
            }
            for schedule in repository.schedule_defs
        },
        "sensors": {
            sensor.name: {
                "kind": sensor.sensor_type.value,
                "job": sensor.job_name if sensor.has_jobs or sensor.sensor_type.value == "STANDARD" else None,
                "seconds": sensor.minimum_interval_seconds,
                "status": sensor.default_status.value,
                "description": sensor.description,
            }
            for sensor in repository.sensor_defs
        },
        "resources": sorted(repository.get_top_level_resources()),
    }


def asset(node: dg.AssetsDefinition) -> dict[str, Any]:
    (spec,) = node.specs
    columns = spec.metadata.get("dagster/column_schema")
    lineage = spec.metadata.get("dagster/column_lineage")
    return {
        "group": spec.group_name,
        "kinds": sorted(spec.kinds),
        "owners": list(spec.owners),
        "description": spec.description,
        "deps": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
        "partitions": str(spec.partitions_def) if spec.partitions_def else None,
        "backfill": str(node.backfill_policy) if node.backfill_policy else None,
        "freshness": str(spec.freshness_policy) if spec.freshness_policy else None,
        "table": spec.metadata.get("dagster/table_name"),
        "columns": {column.name: column.type for column in columns.columns} if columns else None,
        "derived_columns": sorted(lineage.deps_by_column) if lineage else None,
    }


def one_job(job: dg.JobDefinition) -> dict[str, Any]:
    return {
        "description": job.description,
        "steps": [node.name for node in job.nodes_in_topological_order],
        "partitions": str(job.partitions_def) if job.partitions_def else None,
        "tags": sorted(job.tags),
        "executor": job.executor_def.name,
    }


def test_every_spec_is_as_in_the_snapshot() -> None:
    assert json.loads(json.dumps(specs())) == json.loads(SNAPSHOT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(specs(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
