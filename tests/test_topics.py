"""Topics and key words: of generated sets of documents, and of a published corpus."""

import json
from typing import Any

import numpy as np
import pytest
from harness import Corpus

from stemma.cli import main
from stemma.search.topics import find_topics


def sets(*documents: range | list[int]) -> list[np.ndarray]:
    return [np.array(sorted(each), np.uint64) for each in documents]


def test_words_of_the_same_documents_are_a_topic() -> None:
    words = ["anchor", "ship", "harbour", "judge", "claim", "tenant", "lone"]
    stands = sets(range(10), range(10), range(1, 10), range(20, 26), range(20, 26), range(21, 26), [40, 41])
    one, other = find_topics(words, stands)
    assert (set(one.words), one.documents.tolist()) == ({"anchor", "ship", "harbour"}, list(range(10)))
    assert set(other.words) == {"judge", "claim", "tenant"}
    assert one.words[0] in ("anchor", "ship"), "the centre is what the others resemble most"


def test_no_order_of_the_words_makes_another_topic() -> None:
    draw = np.random.default_rng(4)
    words = [f"word{number:02}" for number in range(60)]
    stands = [
        np.unique(draw.integers(0, 40, 12).astype(np.uint64) + np.uint64(40 * (n % 3))) for n in range(60)
    ]
    found = find_topics(words, stands)
    order = draw.permutation(60)
    again = find_topics([words[place] for place in order], [stands[place] for place in order])
    assert [topic.words for topic in found] == [topic.words for topic in again]
    named = [word for topic in found for word in topic.words]
    assert len(named) == len(set(named)) > 0


def test_there_may_be_none() -> None:
    assert find_topics([], []) == []
    assert find_topics(["a", "b"], sets([1, 2, 3], [7, 8, 9])) == []


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    corpus = Corpus(tmp_path_factory.mktemp("topics"), deduplicate={"layers": ("exact",)})
    fillers = [
        "window",
        "garden",
        "pencil",
        "bottle",
        "carpet",
        "ladder",
        "mirror",
        "basket",
        "candle",
        "hammer",
    ]
    for number in range(40):
        about = ["harbour anchor sailor tide", "tribunal judge Kläger verdict", "", "", ""][number % 5]
        own = " ".join(fillers[(number + step * (1 + number // 10)) % 10] for step in range(4))
        corpus.write(f"{number:02}.txt", f"The text of number {number} tells this: {about} and {own}.")
    corpus.run()
    return corpus


def told(capsys: pytest.CaptureFixture[str], corpus: Corpus, *arguments: str) -> Any:
    capsys.readouterr()
    assert main(["topics", "--config", str(corpus.root / "stemma.toml"), *arguments]) == 0
    return capsys.readouterr().out


def test_the_command_tells_topics_and_examples(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    topics = json.loads(told(capsys, corpus, "--json"))
    found = {frozenset(topic["words"]): topic for topic in topics}
    assert frozenset(("tribunal", "judge", "kläger", "verdict")) in found, "and not klager beside it"
    sea = found[frozenset(("harbour", "anchor", "sailor", "tide"))]
    assert sea["documents"] == 8
    assert sea["examples"][0].endswith((".txt",))
    assert "harbour" in told(capsys, corpus)
    assert json.loads(told(capsys, corpus, "--json", "--source", "nobody")) == []


def test_key_words_tell_a_document_from_the_others(corpus: Corpus) -> None:
    rows = corpus.query(
        """SELECT word, frequency, documents, score FROM search.keywords JOIN corpus.raw USING (document_id)
        WHERE uri LIKE '%01.txt' ORDER BY rank"""
    )
    words = [row[0] for row in rows]
    assert {"kläger", "tribunal", "judge", "verdict"} <= set(words[:4])
    assert "klager" not in words
    assert rows[0][1:] == (1, 8, pytest.approx(np.log(40 / 8)))
    assert corpus.value("SELECT max(rank) FROM search.keywords") <= 10
