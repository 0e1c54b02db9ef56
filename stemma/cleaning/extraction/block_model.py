"""Which blocks of a page are its content: gradient-boosted trees over what is seen of each block.

The model is a readable file, `block_model.json`, made by `benchmarks/train_blocks.py`: words that speak for
content or against it, and two stages of oblivious trees, of which the second sees what the first thinks of a
block's neighbours. They are evaluated with numpy, all blocks and trees at once, in whole numbers.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from stemma.cleaning.extraction.page_blocks import FLAG, KINDS, Page, words_of_name

Column = np.ndarray[Any, np.dtype[Any]]

MODEL_FILE = "block_model.json"
# What the file holds: as a part of the code it is a part of the recipe of all that it chooses.
MODEL_DIGEST = "bd39f25938588e59d73469c3bc29cea7563a589a177edbd00c8ce382ffa68965"

# Longer blocks with few links count as prose.
_PROSE_CHARACTERS = 80
_PROSE_LINKS = 0.4
# So many words tell whether a block is a button, a caption or a notice.
_FIRST_WORDS = 12
_FIRST_CHARACTERS = 120
# The innermost elements that hold these shares of the page's prose.
_SHARES = (0.5, 0.75, 0.9)
# Steps from a block's element towards the body at which its surroundings are measured.
_STEPS = (0, 1, 2, 3, 5, 7)
# Leaves are whole thousandths of log-odds, so that sums are exact on any machine.
LEAF_SCALE = 1000
# A page whose best block is less likely to be content than this has none.
_LEAST_LIKELY = 0.1
# Probabilities to this power: a little in favour of precision (articles 0.954 -> 0.956, all pages the same).
_CAUTION = 1.1
# Longer cells are no data, but a page's layout.
_DATA_CHARACTERS = 200
# Blocks to evaluate at once: 2 MB of comparisons.
_BATCH = 1024

_HEADINGS = [KINDS.index(f"h{level}") for level in (1, 2, 3, 4)]
_SENTENCE_ENDS = [ord(mark) for mark in '.!?。"”']


@dataclass(frozen=True)
class Lexicon:
    """Words that speak for content or against it, as log-odds.

    Attributes:
        names: words in the class and id of elements.
        words: lower-case words of texts.
    """

    names: Mapping[str, float]
    words: Mapping[str, float]


@dataclass(frozen=True)
class Trees:
    """Oblivious trees: all nodes of a level ask the same question, whose answers are the bits of a leaf.

    Attributes:
        features: (trees, depth) int, the column that is asked about.
        thresholds: (trees, depth) float32; the answer is yes above.
        leaves: (trees, 2 ** depth) int32, in thousandths of log-odds.
        bias: what all trees together start from, in thousandths.
    """

    features: Column
    thresholds: Column
    leaves: Column
    bias: int

    def probabilities(self, columns: Mapping[str, Column]) -> Column:
        """Return the probability of each block to be content."""
        table = np.array(list(columns.values()), np.float32)
        scores = [
            self._scores(table[:, start : start + _BATCH]) for start in range(0, table.shape[1], _BATCH)
        ]
        # Rounded, as the last bits of an exponential depend on the machine.
        return np.round(1 / (1 + np.exp(-np.concatenate(scores) / LEAF_SCALE)), 4)

    def _scores(self, table: Column) -> Column:
        leaf = np.zeros((len(self.features), table.shape[1]), np.uint8)
        for level in range(self.features.shape[1]):
            above = table[self.features[:, level]] > self.thresholds[:, level, None]
            leaf |= above.view(np.uint8) << level
        return np.take_along_axis(self.leaves, leaf.astype(np.intp), axis=1).sum(axis=0) + self.bias


@dataclass(frozen=True)
class Model:
    """The lexicon and the two stages."""

    lexicon: Lexicon
    first: Trees
    second: Trees


@cache
def load_model() -> Model:
    """Read the model that comes with the package.

    Raises:
        ValueError: the file is not the one that this code was released with.
    """
    content = files("stemma.cleaning.extraction").joinpath(MODEL_FILE).read_bytes()
    if (digest := hashlib.sha256(content).hexdigest()) != MODEL_DIGEST:
        raise ValueError(f"{MODEL_FILE} has the digest {digest}, not {MODEL_DIGEST}")
    return parse_model(json.loads(content))


def parse_model(data: Mapping[str, Any]) -> Model:
    """Make a model of what the file holds (see `benchmarks/train_blocks.py` for its form)."""
    return Model(Lexicon(data["names"], data["words"]), _trees(data["first"]), _trees(data["second"]))


def _trees(data: Mapping[str, Any]) -> Trees:
    return Trees(
        np.array(data["features"], np.intp),
        np.array(data["thresholds"], np.float32),
        np.array(data["leaves"], np.int32),
        int(data["bias"]),
    )


def keep_blocks(page: Page, hints: Mapping[str, float]) -> list[bool]:
    """Say for each block of a page (it has at least one) whether it is content.

    Args:
        page: the page's blocks.
        hints: what kind of page it says it is (`PageMetadata.hints`).
    """
    model = load_model()
    seen = features(page, model.lexicon, hints)
    first = model.first.probabilities(seen)
    second = model.second.probabilities(seen | second_features(page, first))
    return choice(page, second).tolist()


def choice(page: Page, probabilities: Column) -> Column:
    """Choose the blocks to keep by their probabilities of being content."""
    sizes = np.array([len(text) for text in page.texts], np.float64)
    return best_choice(_agree(page, probabilities, sizes) ** _CAUTION, sizes)


def _agree(page: Page, probabilities: Column, length: Column) -> Column:
    """Bring the probabilities of blocks closer that stand alike, and make those of a table of data one.

    Blocks alike in their elements' tags and classes, and so are those of all elements around them, are half
    themselves and half their mean. With both, on the pages of c4 in the cross-validation, 0.857 -> 0.860.
    """
    holders = np.array(page.holders)
    alike = (probabilities + _means(probabilities, length, np.array(page.paths)[holders])) / 2
    tables = np.array(page.tables)[holders]
    is_cell = np.array(page.kinds)[holders] == KINDS.index("cell")
    cells = np.flatnonzero((tables >= 0) & is_cell & (length <= _DATA_CHARACTERS))
    if len(cells):
        alike[cells] = _of_tables(alike, length, cells, tables[cells])
    return alike


def _of_tables(probabilities: Column, length: Column, cells: Column, tables: Column) -> Column:
    """Return for each cell the probability of its table: half its cells', half that of the blocks around it.

    Numbers and names say little by themselves: where some cells are likely, the root of the mean square
    leans towards these.
    """
    _, first, group = np.unique(tables, return_index=True, return_inverse=True)
    last = len(tables) - 1 - np.unique(tables[::-1], return_index=True)[1]
    framed = np.concatenate([[0.0], probabilities, [0.0]])
    around = (framed[cells[first]] + framed[cells[last] + 2]) / 2
    own = np.sqrt(_means(probabilities[cells] ** 2, length[cells], group))
    return (own + around[group]) / 2


def _means(values: Column, weights: Column, groups: Column) -> Column:
    """Return for each value the weighted mean of its group."""
    return (np.bincount(groups, values * weights) / np.maximum(np.bincount(groups, weights), 1.0))[groups]


def best_choice(probabilities: Column, sizes: Column) -> Column:
    """Choose the blocks for which the F1 of the page is likely to be the highest.

    Blocks are taken in the order of their probability, up to where twice the text that is likely right, by
    the text taken and all that is likely content together, is at its maximum. That gives every page a
    threshold of its own (about half of the F1 that it can reach), as the optimum of F1 needs one.
    """
    order = np.argsort(-probabilities, kind="stable")
    likely = np.cumsum((probabilities * sizes)[order])
    scores = 2 * likely / (np.cumsum(sizes[order]) + likely[-1])
    kept = np.zeros(len(sizes), bool)
    if probabilities[order[0]] >= _LEAST_LIKELY:
        kept[order[: int(np.argmax(scores)) + 1]] = True
    return kept


# What is seen of a block -------------------------------------------------------------------------


def features(page: Page, lexicon: Lexicon, hints: Mapping[str, float]) -> dict[str, Column]:
    """Return what the first stage sees: a column a feature, a value a block."""
    blocks = _Blocks(page, lexicon)
    return (
        blocks.of_text()
        | blocks.of_element()
        | blocks.of_place()
        | blocks.of_surroundings()
        | blocks.of_prose()
        | blocks.of_neighbours()
        | blocks.of_page(hints)
    )


class _Blocks:
    """The columns that others are made of."""

    def __init__(self, page: Page, lexicon: Lexicon) -> None:
        self.page, self.lexicon = page, lexicon
        self.count = len(page.texts)
        self.order = np.arange(self.count)
        self.holders = np.array(page.holders)
        self.parents = np.array(page.parents)
        self.first, self.last = np.array(page.first), np.array(page.last)
        self.kinds = np.array(page.kinds)
        self.kind = self.kinds[self.holders]
        self.path = np.array(page.paths)[self.holders]
        self.length = np.array([len(text) for text in page.texts], np.float64)
        self.linked = np.array(page.linked, np.float64)
        self.links = self.linked / self.length
        is_prose = (self.length >= _PROSE_CHARACTERS) & (self.links < _PROSE_LINKS)
        self.prose = np.where(is_prose, self.length - self.linked, 0.0)
        self.depths = _depths(page.parents)
        scores = [self._word_scores(text) for text in page.texts]
        self.word_score = np.array([total for total, _ in scores])
        self.word_minimum = np.array([lowest for _, lowest in scores])
        self.heading = np.maximum.accumulate(np.where(np.isin(self.kind, _HEADINGS), self.order, -1))

    def _word_scores(self, text: str) -> tuple[float, float]:
        get = self.lexicon.words.get
        scores = [get(word, 0.0) for word in text[:_FIRST_CHARACTERS].lower().split()[:_FIRST_WORDS]]
        return sum(scores) / len(scores), min(scores)

    def of_text(self) -> dict[str, Column]:
        codes = np.frombuffer("".join(self.page.texts).encode("utf-32-le", "surrogatepass"), np.uint32)
        ends = np.cumsum(self.length).astype(np.intp)
        starts = ends - self.length.astype(np.intp)

        def count(characters: str) -> Column:
            return np.add.reduceat(np.isin(codes, [ord(c) for c in characters]), starts, dtype=np.float64)

        def between(low: str, high: str) -> Column:
            inside = (codes >= ord(low)) & (codes <= ord(high))
            return np.add.reduceat(inside, starts, dtype=np.float64)

        words = count(" ") + 1
        stops = count(".。!?")
        return {
            "length": self.length,
            "words": words,
            "word_length": self.length / words,
            "digits": between("0", "9") / self.length,
            "upper": between("A", "Z") / self.length,
            "commas": count(",、，"),
            "stops": stops,
            "stops_per_word": stops / words,
            "odd": count("|©»›>"),
            "money": count("$£€¥"),
            "ends_sentence": np.isin(codes[ends - 1], _SENTENCE_ENDS).astype(float),
            "ends_colon": (codes[ends - 1] == ord(":")).astype(float),
            "link_share": self.links,
            "links": np.array(self.page.links, float),
            "word_score": self.word_score,
            "word_minimum": self.word_minimum,
        }

    def of_element(self) -> dict[str, Column]:
        flags = np.array(self.page.flags)[self.holders]
        columns = {f"in_{name}": (flags & bit > 0).astype(float) for name, bit in FLAG.items()}
        columns["kind"] = self.kind.astype(float)
        columns["depth"] = self.depths[self.holders].astype(float)
        names = self._name_scores()
        columns |= {f"name_{key}": scores[self.holders] for key, scores in names.items()}
        has_heading = self.heading >= 0
        columns["heading_name"] = np.where(has_heading, columns["name_sum"][self.heading], 0.0)
        columns["heading_score"] = np.where(has_heading, self.word_score[self.heading], 0.0)
        columns["heading_kind"] = np.where(has_heading, self.kind[self.heading], 0).astype(float)
        return columns

    def _name_scores(self) -> dict[str, Column]:
        """Return the log-odds of each element's class and id, and those of all elements around it."""
        get = self.lexicon.names.get
        known: dict[str, float] = {"": 0.0}
        own: list[float] = []
        total: list[float] = []
        low: list[float] = []
        high: list[float] = []
        for name, parent in zip(self.page.names, self.page.parents, strict=True):
            score = known.get(name)
            if score is None:
                score = known[name] = sum(get(word, 0.0) for word in sorted(words_of_name(name)))
            own.append(score)
            total.append(score + (total[parent] if total else 0.0))
            low.append(min(score, (low[parent] if low else 0.0)))
            high.append(max(score, (high[parent] if high else 0.0)))
        column = np.array(own)
        return {
            "own": column,
            "parent": column[self.parents],
            "grandparent": column[self.parents[self.parents]],
            "sum": np.array(total),
            "low": np.array(low),
            "high": np.array(high),
        }

    def of_place(self) -> dict[str, Column]:
        lengths = _running(self.length)
        main_heading = np.flatnonzero(self.kind == KINDS.index("h1"))
        from_main = self.order - main_heading[0] if len(main_heading) else np.full(self.count, -999)
        return {
            "position": (lengths[1:] + lengths[:-1]) / 2 / lengths[-1],
            "order": self.order.astype(float),
            "order_from_end": (self.count - self.order).astype(float),
            "from_h1": from_main.astype(float),
            "from_heading": (self.order - self.heading).astype(float),
            **self._repeats(),
        }

    def _repeats(self) -> dict[str, Column]:
        """Return how often a block's text, and its place in elements of the same classes, are there."""
        counts: dict[str, int] = {}
        nth = []
        for text in self.page.texts:
            counts[text] = counts.get(text, 0) + 1
            nth.append(counts[text])
        length = np.bincount(self.path, self.length)
        linked = np.bincount(self.path, self.linked)
        return {
            "nth": np.array(nth, float),
            "times": np.array([counts[text] for text in self.page.texts], float),
            "same_path": np.bincount(self.path)[self.path].astype(float),
            "same_path_length": length[self.path],
            "same_path_links": linked[self.path] / length[self.path],
        }

    def of_surroundings(self) -> dict[str, Column]:
        """Return how much text, links and prose the elements around a block hold."""
        length, linked, prose = _running(self.length), _running(self.linked), _running(self.prose)
        scores = _running(self.word_score * np.minimum(self.length / 6, _FIRST_WORDS))
        columns: dict[str, Column] = {}
        for step, element in _ancestors(self.holders, self.parents, _STEPS):
            first, last = self.first[element], self.last[element]
            inside, blocks = length[last] - length[first], last - first
            columns |= {
                f"up{step}_share": inside / length[-1],
                f"up{step}_links": (linked[last] - linked[first]) / inside,
                f"up{step}_prose": (prose[last] - prose[first]) / max(prose[-1], 1.0),
                f"up{step}_mean": inside / blocks,
            }
            if step in (1, 2, 3):
                columns[f"up{step}_words"] = (scores[last] - scores[first]) / blocks
                columns[f"up{step}_blocks"] = blocks.astype(float)
                columns[f"up{step}_kind"] = self.kinds[element].astype(float)
        return columns

    def of_prose(self) -> dict[str, Column]:
        """Return where a block stands from the innermost elements that hold most of the page's prose."""
        prose = _running(self.prose)
        shares = (prose[self.last] - prose[self.first]) / max(prose[-1], 1.0)
        columns = {}
        for share in _SHARES:
            # In document order the last of the elements that hold so much is the innermost.
            found = np.flatnonzero(shares >= share)
            element = found[-1] if len(found) else 0
            before = np.minimum(self.order - self.first[element], 0)
            behind = np.maximum(self.order - self.last[element] + 1, 0)
            columns[f"out_of_{share}"] = (before + behind).astype(float)
            columns[f"depth_in_{share}"] = (self.depths[self.holders] - self.depths[element]).astype(float)
        at = np.flatnonzero(self.prose)
        edges = (at[0], at[-1]) if len(at) else (0, self.count)
        columns["from_first_prose"] = (self.order - edges[0]).astype(float)
        columns["from_last_prose"] = (self.order - edges[1]).astype(float)
        return columns

    def of_neighbours(self) -> dict[str, Column]:
        columns = {}
        for distance in (1, 2, 3, -1, -2, -3):
            columns[f"length_{distance:+}"] = _shift(self.length, distance)
            columns[f"words_{distance:+}"] = _shift(self.word_score, distance)
        for distance in (1, -1):
            columns[f"links_{distance:+}"] = _shift(self.links, distance)
            columns[f"kind_{distance:+}"] = _shift(self.kind.astype(float), distance)
        for width in (3, 8):
            for name, values in (("prose", self.prose), ("linked", self.linked), ("length", self.length)):
                begin, end = _window(self.count, width, width)
                running = _running(values)
                columns[f"near{width}_{name}"] = running[end] - running[begin]
        return columns

    def of_page(self, hints: Mapping[str, float]) -> dict[str, Column]:
        total = self.length.sum()
        flags = np.array(self.page.flags)
        begun = flags & ~flags[self.parents]
        values = {
            "page_blocks": float(self.count),
            "page_length": total,
            "page_links": self.linked.sum() / total,
            "page_prose": self.prose.sum() / total,
            "page_prose_length": self.prose.sum(),
            "page_repeats": np.bincount(self.path).max() / self.count,
            **{
                f"page_{name}": np.count_nonzero(begun & FLAG[name])
                for name in ("article", "main", "table", "pre")
            },
            **hints,
        }
        return {name: np.full(self.count, float(value)) for name, value in values.items()}


def second_features(page: Page, first: Column) -> dict[str, Column]:
    """Return what the second stage sees besides: what the first thinks of a block and of those around it."""
    count = len(first)
    length = np.array([len(text) for text in page.texts], np.float64)
    likely, all_ = _running(first * length), _running(length)

    def mean(begin: Column, end: Column) -> Column:
        return (likely[end] - likely[begin]) / np.maximum(all_[end] - all_[begin], 1.0)

    columns = {"p": first}
    for distance in (1, 2, 3, 4, -1, -2, -3, -4):
        columns[f"p_{distance:+}"] = _shift(first, distance)
    for width in (2, 5, 12):
        columns[f"p_near{width}"] = mean(*_window(count, width, width))
        columns[f"p_before{width}"] = mean(*_window(count, width, -1))
        columns[f"p_after{width}"] = mean(*_window(count, -1, width))
    holders, parents = np.array(page.holders), np.array(page.parents)
    elements = dict(_ancestors(holders, parents, range(7)))
    inner, outer = np.array(page.first), np.array(page.last)
    columns |= {f"p_up{step}": mean(inner[element], outer[element]) for step, element in elements.items()}
    path = np.array(page.paths)[holders]
    columns["p_path"] = (np.bincount(path, first * length) / np.maximum(np.bincount(path, length), 1.0))[path]
    return columns | _of_whole(page, first, likely, all_)


def _of_whole(page: Page, first: Column, likely: Column, length: Column) -> dict[str, Column]:
    order = np.arange(len(first))
    is_heading = np.isin(np.array(page.kinds)[np.array(page.holders)], _HEADINGS)
    heading = np.maximum.accumulate(np.where(is_heading, order, -1))
    at = np.flatnonzero(first >= 0.4)
    edges = (at[0], at[-1]) if len(at) else (0, 0)
    content = _running(np.where(first >= 0.5, np.diff(length), 0.0))
    return {
        "p_heading": np.where(heading >= 0, first[heading], 0.0),
        "p_page": np.full(len(first), likely[-1] / length[-1]),
        "p_most": np.full(len(first), first.max()),
        "p_length": np.full(len(first), likely[-1]),
        "from_first": (order - edges[0]).astype(float),
        "from_last": (order - edges[1]).astype(float),
        "p_so_far": content[:-1] / max(content[-1], 1.0),
    }


def _depths(parents: list[int]) -> Column:
    depths = [0] * len(parents)
    for index in range(1, len(parents)):
        depths[index] = depths[parents[index]] + 1
    return np.array(depths)


def _ancestors(elements: Column, parents: Column, steps: Any) -> list[tuple[int, Column]]:
    """Return for each number of steps the elements that many steps up (the body stays where it is)."""
    found = []
    for step in range(max(steps) + 1):
        if step:
            elements = parents[elements]
        if step in steps:
            found.append((step, elements))
    return found


def _running(values: Column) -> Column:
    """Return the sums of the values before each block, and of all: the sum of a range is one difference."""
    return np.concatenate([[0.0], np.cumsum(values)])


def _window(count: int, before: int, behind: int) -> tuple[Column, Column]:
    """Return the ranges from so many blocks before each block to so many behind it; -1 leaves itself out."""
    order = np.arange(count)
    return np.clip(order - before, 0, count), np.clip(order + behind + 1, 0, count)


def _shift(values: Column, distance: int) -> Column:
    """Return the values of the blocks so far ahead (behind, when negative), 0 beyond the ends."""
    moved = np.zeros_like(values)
    if distance > 0:
        moved[:-distance] = values[distance:]
    else:
        moved[-distance:] = values[:distance]
    return moved
