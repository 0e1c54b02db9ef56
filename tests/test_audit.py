"""The audit: what is published against a rebuild, of all or of a sample of the files."""

import duckdb
import pytest
from harness import Corpus, sentence

from stemma.definitions import build_definitions
from stemma.resources.engine.audit import audit


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    made = Corpus(tmp_path_factory.mktemp("audit"))
    made.fill(12)
    made.write("again.txt", sentence("doc001.txt", 30))
    made.run()
    return made


def damage(corpus: Corpus) -> None:
    """Let the corpus hold, for one document, a chunk that no rebuild makes."""
    corpus.path.chmod(0o644)
    with duckdb.connect(str(corpus.path)) as connection:
        connection.execute("UPDATE main.chunked SET section = 'nobody wrote this' WHERE rowid % 2 = 0")


def test_an_audit_finds_what_no_rebuild_gives(corpus: Corpus) -> None:
    config = corpus.config()
    for share in (1.0, 0.7):
        found = audit(config, share)
        assert found.differing == []
        assert found.stale == ()
        assert all(row["rows"] for row in found.tables if row["table"].startswith("corpus."))
    job = build_definitions(config, str(config.file)).resolve_job_def("audit")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    assert job.execute_in_process(run_config=quiet).success
    corpus.write("later.txt", sentence("later", 30))
    assert "files of the sources" in audit(config).stale[0]
    assert "corpus.raw" in {row["table"] for row in audit(config).differing}
    corpus.delete("later.txt")
    damage(corpus)
    assert [row["table"] for row in audit(config, 0.7).differing] == ["corpus.chunked"]
    share = {"ops": {"rebuild_and_compare": {"config": {"share": 0.7}}}}
    result = job.execute_in_process(run_config=quiet | share, raise_on_error=False)
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert "corpus.chunked" in str(failed.step_failure_data.user_failure_data.description)
