"""Where each key stands in a TOML text: `tomllib` reads the values but does not say the lines."""

import re
import tomllib
from collections.abc import Iterator

Path = tuple[str | int, ...]
"""Keys from the top of the file down; the elements of an array are counted from 0."""

# A multi-line string may end in up to two quotes of its own before the three that close it.
_TOKEN = re.compile(
    r'''
    (?P<blank>[ \t\r]+|\#[^\n]*)
    | (?P<string>"""(?:[^\\]|\\.)*?"""(?:"{0,2})|\'\'\'.*?\'\'\'(?:'{0,2})|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')
    | (?P<mark>[\n\[\]{}=,])
    | (?P<bare>[^\s\#"'\[\]{}=,]+)
    ''',
    re.VERBOSE | re.DOTALL,
)


class Lines(dict[Path, int]):
    """Line numbers, from 1, of tables, keys and array elements."""

    def of(self, path: Path) -> int | None:
        """Return the line of a key, else that of the nearest one around it, None for the top of the file."""
        while path:
            if path in self:
                return self[path]
            path = path[:-1]
        return None


def key_lines(text: str) -> Lines:
    """Return the line of every key of a text that `tomllib` has accepted."""
    scanner = _Scanner(text)
    scanner.scan()
    return scanner.lines


class _Scanner:
    """Goes through the tokens once; where one is not what the grammar says, the rest has no line numbers."""

    def __init__(self, text: str) -> None:
        self.lines = Lines()
        self._tokens = [*_tokens(text), ("", text.count("\n") + 1)]
        self._position = 0
        self._elements: dict[Path, int] = {}  # of [[arrays of tables]]: the number of the last one

    def scan(self) -> None:
        prefix: Path = ()
        while token := self._skip("\n"):
            if token == "[":
                prefix = self._header()
            else:
                self._assignment(prefix)
            while self._peek() not in ("\n", ""):
                self._next()

    def _peek(self) -> str:
        return self._tokens[self._position][0]

    def _next(self) -> tuple[str, int]:
        token = self._tokens[self._position]
        self._position = min(self._position + 1, len(self._tokens) - 1)
        return token

    def _skip(self, *marks: str) -> str:
        while self._peek() in marks:
            self._next()
        return self._peek()

    def _record(self, path: Path, line: int) -> None:
        for end in range(1, len(path) + 1):
            self.lines.setdefault(path[:end], line)

    def _header(self) -> Path:
        _, line = self._next()
        is_array = self._peek() == "["
        if is_array:
            self._next()
        *parents, last = self._key("]")
        path = self._place(parents)
        path = (*path, last)
        if is_array:
            self._elements[path] = self._elements.get(path, -1) + 1
            self._record(path, line)
        path = self._latest(path)
        self._record(path, line)
        return path

    def _place(self, keys: list[str]) -> Path:
        path: Path = ()
        for key in keys:
            path = self._latest((*path, key))
        return path

    def _latest(self, path: Path) -> Path:
        return (*path, self._elements[path]) if path in self._elements else path

    def _assignment(self, prefix: Path) -> None:
        line = self._tokens[self._position][1]
        path = (*prefix, *self._key("="))
        self._next()
        self._record(path, line)
        self._value(path)

    def _key(self, end: str) -> list[str]:
        """Return the parts of a dotted key, up to the mark that ends it."""
        written = ""
        while self._peek() not in (end, "\n", ""):
            written += self._next()[0]
        return _key_parts(written)

    def _value(self, path: Path) -> None:
        opening = self._peek()
        if opening == "[":
            self._next()
            element = 0
            while self._skip("\n", ",") not in ("]", ""):
                self._record((*path, element), self._tokens[self._position][1])
                self._value((*path, element))
                element += 1
            self._next()
        elif opening == "{":
            self._next()
            while self._skip("\n", ",") not in ("}", ""):
                self._assignment(path)
            self._next()
        else:
            while self._peek() not in ("\n", ",", "]", "}", ""):
                self._next()


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    line = 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "blank":
            yield match.group(), line
        line += match.group().count("\n")


def _key_parts(written: str) -> list[str]:
    table = tomllib.loads(f"{written} = 0")
    parts = []
    while isinstance(table, dict):
        ((part, table),) = table.items()
        parts.append(part)
    return parts
