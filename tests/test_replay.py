"""A real history, that of Python's enhancement proposals, there and back again: the corpus equals a rebuild."""

import hashlib
import json
import lzma
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest
from harness import NOTHING, Corpus

STEPS = 539
SAMPLES = 20
# How often a corpus of the whole history is rebuilt, in steps.
REBUILT = 20
FIRST_SECOND = 1_700_000_000
MONTH = 30 * 86_400


@pytest.fixture(scope="module")
def history(shared: Path) -> tuple[dict[str, str], list[list[dict[str, Any]]]]:
    """The texts that the history begins with, by path, and the events of each step."""
    events = [list(step) for _, step in groupby(read(shared, "events"), key=lambda event: event["step"])]
    assert len(events) == STEPS
    return {row["path"]: row["text"] for row in read(shared, "base")}, events


def read(shared: Path, name: str) -> Iterator[dict[str, Any]]:
    with lzma.open(shared / "data" / "a4_pep_events" / f"{name}.jsonl.xz", "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


@dataclass
class Replay:
    """A corpus of the documents as they are after a step; `versions` keeps earlier texts, as documents of their own."""

    corpus: Corpus
    texts: dict[str, str]
    events: list[list[dict[str, Any]]]
    versions: bool = False
    step: int = 0
    undone: list[dict[str, str | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for path, text in self.texts.items():
            self._write(path, text)

    def go(self, step: int) -> None:
        """Write the documents as they are after the step (0: before the first one)."""
        while self.step < step:
            self._forward(self.events[self.step])
            self.step += 1
        while self.step > step:
            self.step -= 1
            for path, text in self.undone.pop().items():
                self._put(path, text)

    def _forward(self, events: list[dict[str, Any]]) -> None:
        before: dict[str, str | None] = {}
        for event in events:
            path, old = event["path"], self.texts.get(event["path"])
            before.setdefault(path, old)
            if self.versions and old is not None:
                version = f"{path.removesuffix('.rst')}@{event['step']}.rst"
                before.setdefault(version, self.texts.get(version))
                self._put(version, old)
            self._put(path, event["text"] if event["op"] == "put" else None)
        self.undone.append(before)

    def _put(self, path: str, text: str | None) -> None:
        if text is None:
            del self.texts[path]
            self.corpus.delete(path)
        else:
            self.texts[path] = text
            self._write(path, text)

    def _write(self, path: str, text: str) -> None:
        """Write a document; its time is that of its text, so that an earlier text has the earlier time again."""
        file = self.corpus.write(path, text)
        number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
        os.utime(file, (FIRST_SECOND, FIRST_SECOND + number % MONTH))

    def update_families(self, step: int) -> None:
        """Go to a step, and bring families up to date."""
        self.go(step)
        self.corpus.update("deduplicated")

    def families(self) -> list[tuple[Any, ...]]:
        """Return what became of each document."""
        with self.corpus.state() as connection:
            return connection.execute(
                "SELECT * EXCLUDE (run_id, input_hash) FROM deduplicated ORDER BY document_id"
            ).fetchall()

    def near(self) -> int:
        """Return how many documents are removed as near-duplicates."""
        with self.corpus.state() as connection:
            ((count,),) = connection.execute(
                "SELECT count(*) FROM deduplicated WHERE method = 'near'"
            ).fetchall()
        return count


def goes_there_and_back(replay: Replay, stops: list[int], sampled: set[int]) -> int:
    """Stop at these steps, on the way there and back; returns how many near-duplicates there were at the most.

    Families and their index equal a rebuild at the sampled steps, and families are on the way back what they
    were on the way there.
    """
    replay.update_families(0)
    families = {0: replay.families()}
    near = 0
    for stop in stops:
        replay.update_families(stop)
        families[stop] = replay.families()
        near = max(near, replay.near())
        if stop in sampled:
            assert replay.corpus.family_differences() == {}, stop
    replay.corpus.run(allow_deletes=True)
    assert replay.corpus.differences() == []
    for stop in [0, *stops][-2::-1]:
        replay.update_families(stop)
        assert replay.families() == families[stop], stop
        if stop in sampled:
            assert replay.corpus.family_differences() == {}, stop
    replay.corpus.run(allow_deletes=True)
    assert replay.corpus.differences() == []
    return near


def test_the_first_steps_there_and_back(history: Any, tmp_path: Path) -> None:
    base, events = history
    changed = {event["path"] for step in events[:24] for event in step}
    texts = {
        path: text for number, (path, text) in enumerate(base.items()) if path in changed or number % 20 == 0
    }
    replay = Replay(Corpus(tmp_path), texts, events, versions=True)
    replay.corpus.steady = True
    assert goes_there_and_back(replay, [1, 2, 12, 24], {2, 24}) > 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("versions", [False, True])
def test_the_whole_history_there_and_back(history: Any, tmp_path: Path, versions: bool) -> None:
    base, events = history
    chooser = random.Random(int(versions))
    stops = [0]
    while stops[-1] < STEPS:
        stops.append(min(stops[-1] + chooser.randint(1, 15), STEPS))
    # The largest steps by far, each alone.
    stops = sorted({*stops, *range(215, 224)})
    sampled = {*chooser.sample(stops, SAMPLES // 2), 217, 220, STEPS}
    assert max(after - before for before, after in pairwise(stops)) <= 15
    replay = Replay(Corpus(tmp_path), base, events, versions=versions)
    replay.corpus.steady = True
    near = goes_there_and_back(replay, stops[1:], sampled)
    assert near > (300 if versions else 0)


def pipeline_goes_there_and_back(replay: Replay, last: int, rebuilt_every: int) -> None:
    """Run the whole pipeline at each step up to the last one, and at each on the way back.

    On the way there all tables equal a rebuild, every so many steps and at the last. On the way back they are at each
    step, row for row, what they were on the way there, and no stage but raw computes what it computed there already.
    """
    corpus = replay.corpus
    corpus.run()
    tables = [corpus.fingerprints()]
    for step in range(1, last + 1):
        replay.go(step)
        result = corpus.run(allow_deletes=True)
        assert result.publication.published, step
        assert corpus.count("corpus.raw") == len(replay.texts), step
        tables.append(corpus.fingerprints())
        if step % rebuilt_every == 0 or step == last:
            assert corpus.differences() == [], step
    for step in range(last - 1, -1, -1):
        replay.go(step)
        result = corpus.run(allow_deletes=True)
        assert result.publication.published, step
        assert {**result.computed, "raw": 0} == NOTHING, step
        assert corpus.fingerprints() == tables[step], step
    assert corpus.differences() == []
    assert len({str(found) for found in tables}) > last // 2


def whole_pipeline(folder: Path, texts: dict[str, str], events: list[list[dict[str, Any]]]) -> Replay:
    corpus = Corpus(folder, embed={"model": "hash:32"})
    corpus.steady = True
    return Replay(corpus, texts, events)


def test_the_whole_pipeline_goes_a_few_steps_there_and_back(history: Any, tmp_path: Path) -> None:
    base, events = history
    changed = {event["path"] for step in events[:4] for event in step}
    texts = {path: text for number, (path, text) in enumerate(base.items()) if path in changed or number < 8}
    pipeline_goes_there_and_back(whole_pipeline(tmp_path, texts, events), 4, rebuilt_every=4)


@pytest.mark.slow
@pytest.mark.timeout(2 * 3600)
def test_the_whole_pipeline_goes_through_the_whole_history_there_and_back(
    history: Any, tmp_path: Path
) -> None:
    base, events = history
    last = int(os.environ.get("STEMMA_TEST_STEPS", STEPS))
    pipeline_goes_there_and_back(whole_pipeline(tmp_path, base, events), last, rebuilt_every=REBUILT)
