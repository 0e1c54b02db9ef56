"""Counting tokens: where each token of a text starts, by an estimate or by a model's own tokenizer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from stemma.chunking.characters import WHITE, WORD
from stemma.chunking.joined import Joined, Positions
from stemma.errors import StemmaError

# English words of a WordPiece vocabulary of 30,000 become one token up to about this many letters.
_WORD_TOKEN_CHARACTERS = 6
# A 100 kB word is one [UNK] to a model, and a page of blanks none: past this many bytes a token counts again.
TOKEN_BYTES = 16
# A mark falls on a character boundary, at most three bytes before the place computed for it.
_MARK_BYTES = TOKEN_BYTES - 3
# The tokenizer's encodings take a hundred bytes a token: never encode much more than this at once.
_ENCODE_CHARACTERS = 1 << 20
_PIECE_CHARACTERS = 1 << 16
# A piece ends at white space if there is some in its last so many characters.
_UNBROKEN_CHARACTERS = _PIECE_CHARACTERS // 16


class TokenCounter(Protocol):
    """Says where tokens start, and how many a text of its own has."""

    def token_starts(self, joined: Joined) -> Positions:
        """Return the start of every token of the joined texts, in order; two tokens may start at one character."""

    def counts(self, index: "TokenIndex", starts: Positions, ends: Positions) -> list[int]:
        """Return how many tokens each span of the joined texts has by itself."""


def load_tokenizer(tokenizer_file: Path | None) -> TokenCounter:
    """Load the counter for a Hugging Face `tokenizer.json`, or the estimate if there is none.

    Raises StemmaError if the file is not a tokenizer.
    """
    return EstimatedCounter() if tokenizer_file is None else ModelCounter(tokenizer_file)


class EstimatedCounter:
    """Counts without a model.

    One token for each six characters of a word, for each character of a script without spaces, and for each
    other character that is not white space.
    """

    def token_starts(self, joined: Joined) -> Positions:
        """Return the start of every estimated token."""
        in_word = (joined.flags & WORD) != 0
        edges = np.flatnonzero(in_word[1:] != in_word[:-1]) + 1
        word_starts, word_ends = edges[::2], edges[1::2]
        starting = (joined.flags & (WORD | WHITE)) == 0
        starting[word_starts] = True
        long = np.flatnonzero(word_ends - word_starts > _WORD_TOKEN_CHARACTERS)
        pieces = (word_ends[long] - word_starts[long] - 1) // _WORD_TOKEN_CHARACTERS
        starting[_steps(word_starts[long], pieces, _WORD_TOKEN_CHARACTERS)] = True
        return np.flatnonzero(starting)

    def counts(self, index: "TokenIndex", starts: Positions, ends: Positions) -> list[int]:
        """Return the estimate for each span."""
        return (index.last(ends) - index.first(starts)).tolist()


class ModelCounter:
    """Counts with a model's own tokenizer, without its special tokens."""

    def __init__(self, tokenizer_file: Path) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer: Tokenizer = Tokenizer.from_file(str(tokenizer_file))
        except Exception as error:  # the library raises bare Exception
            raise StemmaError(f"{tokenizer_file} is not a tokenizer: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        parts = json.loads(self._tokenizer.to_str())
        kinds = [(parts.get(name) or {}).get("type") for name in ("normalizer", "pre_tokenizer")]
        # BERT's way: words are split at white space before anything else, and nothing looks across it.
        self._splits_at_white = kinds in (["BertNormalizer", "BertPreTokenizer"], [None, "BertPreTokenizer"])

    def token_starts(self, joined: Joined) -> Positions:
        """Return the start of every token."""
        pieces: list[tuple[int, str]] = []
        for start, text in zip(joined.starts.tolist(), joined.texts, strict=True):
            pieces.extend((start + offset, piece) for offset, piece in _pieces(text))
        found = [np.zeros(0, dtype=np.intp)]
        for batch in _batches(pieces):
            encodings = self._tokenizer.encode_batch([text for _, text in batch], add_special_tokens=False)
            for (start, _), encoding in zip(batch, encodings, strict=True):
                offsets = np.array(encoding.offsets, dtype=np.intp).reshape(-1, 2)
                found.append(offsets[:, 0] + start)
        return np.concatenate(found)

    def counts(self, index: "TokenIndex", starts: Positions, ends: Positions) -> list[int]:
        """Count each span's tokens; those of a tokenizer that looks at no neighbours need no second look."""
        joined = index.joined
        white = (joined.flags & WHITE) != 0
        known = white[starts - 1] & white[ends] & self._splits_at_white
        # A longer one might hold a word that `_pieces` cut.
        known &= ends - starts < _UNBROKEN_CHARACTERS
        counts = np.searchsorted(index.starts, ends) - np.searchsorted(index.starts, starts)
        alone = np.flatnonzero(~known)
        spans = zip(starts[alone].tolist(), ends[alone].tolist(), strict=True)
        counts[alone] = self.count([joined.text[start:end] for start, end in spans])
        return counts.tolist()

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text when it is encoded by itself."""
        counts: list[int] = []
        for batch in _batches([(0, text) for text in texts]):
            encodings = self._tokenizer.encode_batch_fast(
                [text for _, text in batch], add_special_tokens=False
            )
            counts.extend(len(encoding) for encoding in encodings)
        return counts


class TokenIndex:
    """Answers how many tokens a span touches, by the starts of all tokens.

    A token counts once for each `TOKEN_BYTES` bytes up to the start of the next one, so that a span of n
    tokens never has more than n * TOKEN_BYTES bytes.
    """

    def __init__(self, joined: Joined, starts: Positions) -> None:
        # Every text starts one: some tokenizers drop what they do not know.
        self.joined, self.starts = joined, starts
        firsts = joined.first_words()
        self.marks = _with_long_tokens_marked(joined, _merged(joined, (starts, firsts[firsts < joined.ends])))

    def first(self, positions: Positions) -> Positions:
        """Return the index of the token that holds each position."""
        index = np.searchsorted(self.marks, positions)
        return index - (np.append(self.marks, -1)[index] != positions)

    def last(self, positions: Positions) -> Positions:
        """Return the number of tokens that start before each position."""
        return np.searchsorted(self.marks, positions)

    def first_of(self, position: int) -> int:
        """Return the index of the token that holds one position."""
        index = int(np.searchsorted(self.marks, position))
        return index if index < len(self.marks) and self.marks[index] == position else index - 1

    def last_of(self, position: int) -> int:
        """Return the number of tokens that start before one position."""
        return int(np.searchsorted(self.marks, position))

    def reach(self, start: int, tokens: int, end: int) -> int:
        """Return the furthest position, at most `end`, such that the span from `start` touches `tokens`."""
        index = self.first_of(start) + tokens
        return min(int(self.marks[index]), end) if index < len(self.marks) else end


def _with_long_tokens_marked(joined: Joined, starts: Positions) -> Positions:
    byte_positions = _byte_positions(joined)
    token_bytes = byte_positions[starts]
    # The last token of a text ends with it: what stands after it is another text's, or nothing.
    text_ends = joined.ends[np.searchsorted(joined.starts, starts, side="right") - 1]
    nexts = np.minimum(np.append(starts[1:], len(joined.codes) - 1), text_ends)
    lengths = byte_positions[nexts] - token_bytes
    long = np.flatnonzero(lengths > TOKEN_BYTES)
    if not len(long):
        return starts
    extra = _steps(token_bytes[long], (lengths[long] - 1) // _MARK_BYTES, _MARK_BYTES)
    positions = np.searchsorted(byte_positions, extra, side="right") - 1
    return _merged(joined, (starts, positions))


def _merged(joined: Joined, parts: Sequence[Positions]) -> Positions:
    """Return the positions of all parts, each once and in order; ten times as fast as np.unique."""
    marked = np.zeros(len(joined.codes), dtype=bool)
    for positions in parts:
        marked[positions] = True
    return np.flatnonzero(marked)


def _byte_positions(joined: Joined) -> Positions:
    if joined.text.isascii():
        return np.arange(len(joined.codes))
    widths = np.ones(len(joined.codes), dtype=np.int8)
    for limit in (0x80, 0x800, 0x10000):
        widths += joined.codes >= limit
    return np.cumsum(widths, dtype=np.intp) - widths


def _steps(starts: Positions, counts: Positions, step: int) -> Positions:
    """Return start + step, start + 2 * step, … for each start, as many as its count says."""
    numbers = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(starts, counts) + (numbers + 1) * step


def _pieces(text: str) -> list[tuple[int, str]]:
    """Cut a long text at white space into pieces that encode to the same tokens, with their offsets."""
    pieces = []
    start = 0
    while len(text) - start > _PIECE_CHARACTERS:
        limit = start + _PIECE_CHARACTERS
        cut = max(text.rfind("\n", start + 1, limit), text.rfind(" ", limit - _UNBROKEN_CHARACTERS, limit))
        end = cut if cut > start else limit
        pieces.append((start, text[start:end]))
        start = end
    pieces.append((start, text[start:]))
    return pieces


def _batches(pieces: Sequence[tuple[int, str]]) -> list[list[tuple[int, str]]]:
    batches: list[list[tuple[int, str]]] = [[]]
    size = 0
    for piece in pieces:
        if batches[-1] and size + len(piece[1]) > _ENCODE_CHARACTERS:
            batches.append([])
            size = 0
        batches[-1].append(piece)
        size += len(piece[1])
    return batches if batches[0] else []
