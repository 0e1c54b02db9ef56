"""One run may read some of the sources, and have other values of keys, than stemma.toml says."""

from pathlib import Path

import pytest
from harness import Corpus, sentence

from stemma.config import load_config, parse_override
from stemma.definitions import JOB, build_definitions
from stemma.errors import StemmaError, UsageError
from stemma.resources.engine import run_all


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    made = Corpus(tmp_path)
    for source in ("one", "two"):
        made.write(f"{source}/a.txt", sentence(source, 40))
        made.write(f"{source}/broken.jsonl", "{no\n")
    made.split_sources("one", "two", labels="from")
    return made


def read_only(corpus: Corpus, *sources: str) -> None:
    run = corpus.start()
    run.sources = sources
    try:
        run_all(run)
    finally:
        run.warehouse.close()


@pytest.mark.slow
def test_documents_and_errors_of_other_sources_stay(corpus: Corpus) -> None:
    read_only(corpus, "two")
    assert corpus.query("SELECT source FROM corpus.raw") == [("two",)]
    corpus.run()
    for source in ("one", "two"):
        corpus.write(f"{source}/a.txt", sentence(f"other {source}", 40))
        corpus.delete(f"{source}/broken.jsonl")
    before = corpus.query("SELECT content FROM corpus.raw WHERE source = 'one'")
    read_only(corpus, "two")
    assert corpus.query("SELECT content FROM corpus.raw WHERE source = 'one'") == before
    assert corpus.query("SELECT source FROM lineage.errors") == [("one",)]
    corpus.run()
    assert corpus.differences() == []
    with pytest.raises(StemmaError, match="no source 'three'; there are one, two"):
        read_only(corpus, "three")


def test_a_run_of_dagster_takes_overrides(corpus: Corpus) -> None:
    config = corpus.config()
    job = build_definitions(config, str(config.file)).resolve_job_def(JOB)
    file = {"config_file": str(config.file)}
    pipeline = file | {"sources": ["one"], "overrides": {"chunk": {"max_tokens": 20, "target_tokens": 10}}}
    quiet = {"console": {"config": {"log_level": "CRITICAL"}}}
    result = job.execute_in_process(
        run_config={"loggers": quiet, "resources": {"pipeline": {"config": pipeline}}}
    )
    assert result.success
    assert corpus.query("SELECT DISTINCT source FROM corpus.raw") == [("one",)]
    assert corpus.value("SELECT max(tokens) FROM corpus.chunked") <= 20
    recipes = dict(corpus.query("SELECT dataset, recipe FROM lineage.runs"))
    corpus.run()
    assert dict(corpus.query("SELECT name, recipe FROM lineage.datasets"))["chunked"] != recipes["chunked"]


def test_overrides_are_checked_like_the_file(tmp_path: Path) -> None:
    file = tmp_path / "stemma.toml"
    file.write_text("[deduplicate]\nthreshold = 0.8\nkeep = 'longest'\n")
    config = load_config(file, overrides=parse_override("deduplicate.threshold = 0.9"))
    assert (config.deduplicate.threshold, config.deduplicate.keep) == (0.9, "longest")
    assert load_config(cwd=tmp_path / "none", overrides={"chunk": {"overlap": 3}}).chunk.overlap == 3
    for bad, said in {
        "deduplicate.threshold = 9": "overrides: [deduplicate] threshold: must be",
        "deduplicate.treshold = 0.9": "did you mean threshold",
        "warehouse.path = 'x'": "[warehouse]: a run cannot change this section",
        "threshold": "write section.key=value",
    }.items():
        with pytest.raises(UsageError) as error:
            load_config(file, overrides=parse_override(bad))
        assert said in str(error.value), str(error.value)
