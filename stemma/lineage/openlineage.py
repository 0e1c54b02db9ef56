"""The lineage of a run as OpenLineage events, made from the catalog: which dataset came of which, column by column.

Each dataset is a job of its own below the run's, so that a catalog shows the way from the sources to the vectors. The
spec (https://openlineage.io/spec/2-0-2/OpenLineage.json) has no naming for DuckDB files: a corpus is the namespace
`duckdb://` with the absolute path of its file, a dataset is `corpus.raw` in it.
"""

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stemma import __version__
from stemma.config import Config, SourceConfig
from stemma.datasets import DATASETS, Column, Dataset
from stemma.incremental.counts import Counts

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, OutputDataset, RunEvent
    from openlineage.client.generated.base import DatasetFacet, RunFacet

PRODUCER = f"https://pypi.org/project/stemma/{__version__}"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_BY_NAME = {dataset.name: dataset for dataset in DATASETS}


@dataclass(frozen=True)
class Update:
    """One update of a dataset: what the events of its beginning and its end have in common.

    Attributes:
        dataset: its name.
        run_id: Dagster's id of the run, a UUID.
        job: the name of the run's job.
        config: the configuration that the run has.
        namespace: that of the jobs, OPENLINEAGE_NAMESPACE.
    """

    dataset: str
    run_id: str
    job: str
    config: Config
    namespace: str = "stemma"

    @property
    def corpus(self) -> str:
        """The namespace of the corpus's datasets."""
        return f"duckdb://{self.config.warehouse.path.absolute()}"


def started(update: Update) -> "RunEvent":
    """Return the START event of an update: its job and run, its inputs, its output with schema and column lineage."""
    return _event(update, "START", None, None)


def completed(update: Update, counts: Counts) -> "RunEvent":
    """Return the COMPLETE event: as at the start, with the rows written and the version of the dataset."""
    return _event(update, "COMPLETE", counts, None)


def failed(update: Update, reason: str, *, was_stopped: bool = False) -> "RunEvent":
    """Return the FAIL event, or ABORT where somebody stopped it: as at the start, with the reason, one line."""
    return _event(update, "ABORT" if was_stopped else "FAIL", None, reason)


def _event(update: Update, kind: str, counts: Counts | None, reason: str | None) -> "RunEvent":
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import documentation_job, job_type_job

    dataset = _BY_NAME[update.dataset]
    return RunEvent(
        eventType=RunState(kind),
        eventTime=datetime.now(UTC).isoformat(),
        producer=PRODUCER,
        # Of a dataset in a run: the same for all its events.
        run=Run(str(uuid.uuid5(uuid.UUID(update.run_id), dataset.name)), facets=_run_facets(update, reason)),
        job=Job(
            update.namespace,
            f"{update.job}.{dataset.name}",
            facets={
                "jobType": job_type_job.JobTypeJobFacet("BATCH", "STEMMA", "TASK", producer=PRODUCER),
                "documentation": documentation_job.DocumentationJobFacet(
                    dataset.description, producer=PRODUCER
                ),
            },
        ),
        inputs=_inputs(update, dataset),
        outputs=[_output(update, dataset, counts)],
    )


def _run_facets(update: Update, reason: str | None) -> "dict[str, RunFacet]":
    from openlineage.client.facet_v2 import error_message_run, parent_run, processing_engine_run

    facets: dict[str, RunFacet] = {
        "parent": parent_run.ParentRunFacet(
            parent_run.Run(update.run_id), parent_run.Job(update.namespace, update.job), producer=PRODUCER
        ),
        "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
            __version__, "Stemma", producer=PRODUCER
        ),
    }
    if reason is not None:
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(reason, "PYTHON", producer=PRODUCER)
    return facets


def _inputs(update: Update, dataset: Dataset) -> "list[InputDataset]":
    """Return what a dataset is made of: the sources, or the datasets that its columns derive from and the one above."""
    from openlineage.client.event_v2 import InputDataset

    if dataset.upstream is None:
        places = [source_name(source, update.config.directory) for source in update.config.sources]
        return [InputDataset(*place) for place in dict.fromkeys(places)]
    above = {origin[0] for column in dataset.columns for origin in _origins(dataset, column)}
    return [
        InputDataset(update.corpus, each.qualified, facets={"schema": _schema(each.columns)})
        for each in DATASETS
        if each.name in above | {dataset.upstream}
    ]


def source_name(source: SourceConfig, directory: Path) -> tuple[str, str]:
    """Return namespace and name of a source, as OpenLineage names files and stores; nothing of a login is in them.

    A query is `query:NAME`, as in corpus.raw.uri. Of a chain (`zip://*.csv::s3://…`) the store counts.
    """
    if source.query is not None:
        return "stemma", f"query:{source.name}"
    store = source.path.rsplit("::", 1)[-1]
    if not _URL.match(store):
        return "file", str((directory / store).absolute())
    parts = urlsplit(store)
    place = parts.netloc.rsplit("@", 1)[-1]
    if parts.scheme == "file":
        return "file", parts.path
    return f"{parts.scheme}://{place}", parts.path.strip("/") or "/"


def _output(update: Update, dataset: Dataset, counts: Counts | None) -> "OutputDataset":
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import (
        dataset_version_dataset,
        datasource_dataset,
        documentation_dataset,
        output_statistics_output_dataset,
    )

    facets: dict[str, DatasetFacet] = {
        "schema": _schema(dataset.columns),
        "dataSource": datasource_dataset.DatasourceDatasetFacet("duckdb", update.corpus, producer=PRODUCER),
        "documentation": documentation_dataset.DocumentationDatasetFacet(
            dataset.description, producer=PRODUCER
        ),
    }
    origins = {column.name: _origins(dataset, column) for column in dataset.columns}
    if any(origins.values()):
        known = {name: above for name, above in origins.items() if above}
        facets["columnLineage"] = _column_lineage(update.corpus, known)
    if counts is None:
        return OutputDataset(update.corpus, dataset.qualified, facets=facets)
    facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(
        counts.state_hash, producer=PRODUCER
    )
    written = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rowCount=counts.rows_added + counts.rows_changed, producer=PRODUCER
    )
    return OutputDataset(
        update.corpus, dataset.qualified, facets=facets, outputFacets={"outputStatistics": written}
    )


def _schema(columns: Sequence[Column]) -> "DatasetFacet":
    from openlineage.client.facet_v2 import schema_dataset

    return schema_dataset.SchemaDatasetFacet(
        [
            schema_dataset.SchemaDatasetFacetFields(
                column.name, column.type, column.description, ordinal_position=place
            )
            for place, column in enumerate(columns, 1)
        ],
        producer=PRODUCER,
    )


def _origins(dataset: Dataset, column: Column) -> list[tuple[str, str]]:
    """Return the columns of other datasets (dataset, column) that a column comes of: by way of its own, if need be."""
    found: list[tuple[str, str]] = []
    for name in column.derives_from:
        of, origin = name.split(".")
        if of == dataset.name:
            (own,) = (each for each in dataset.columns if each.name == origin)
            found += _origins(dataset, own)
        else:
            found.append((of, origin))
    return list(dict.fromkeys(found))


def _column_lineage(corpus: str, origins: Mapping[str, Sequence[tuple[str, str]]]) -> "DatasetFacet":
    from openlineage.client.facet_v2 import column_lineage_dataset

    return column_lineage_dataset.ColumnLineageDatasetFacet(
        {
            name: column_lineage_dataset.Fields(
                [
                    column_lineage_dataset.InputField(corpus, _BY_NAME[dataset].qualified, column)
                    for dataset, column in above
                ]
            )
            for name, above in origins.items()
        },
        producer=PRODUCER,
    )
