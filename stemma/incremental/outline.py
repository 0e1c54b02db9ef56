"""The outline of a module: what each piece of its code says, as data that can be kept.

Syntax trees are the dearest part of a recipe, and all that is needed of them is a few kilobytes of JSON. Outlines are
kept where `keep_outlines` says, under the name of their module, and hold for one source and this code only.
"""

import ast
import functools
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from stemma import hashing
from stemma.incremental import syntax
from stemma.incremental.syntax import (
    DEFINITIONS,
    Import,
    Reference,
    assigned_expression,
    literal_value,
    read,
    touched_names,
)

Data = dict[str, Any]
"""What JSON has."""


class Piece(NamedTuple):
    """A definition of a module, another of its statements, or all of it.

    Attributes:
        text: the hash of what it says.
        names: the names that it uses and does not bind itself, annotations included.
        decorated: whether a function or class has decorators; None for anything else.
        literal: the right side of a plain assignment to one name, where that spells a value out.
        attributes: of a class, name and right side of what its body so assigns.
    """

    text: str
    names: frozenset[Reference]
    decorated: bool | None
    literal: str | None
    attributes: list[tuple[str, str]]


class Outline:
    """The pieces of a module's code, and where to find them."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self._pieces: dict[int, Piece] = {}
        self._imports: dict[str, list[Import]] = {}

    def piece(self, number: int) -> Piece:
        """Return a piece by its number; 0 is the whole module."""
        if number not in self._pieces:
            text, names, *rest = self._data["pieces"][number]
            self._pieces[number] = Piece(text, frozenset(map(_name, names)), *rest)
        return self._pieces[number]

    def statements(self, name: str) -> list[Piece]:
        """Return the module-level statements that bind or mutate `name`, imports aside, in order."""
        numbers = self._data["statements"].get(name)
        return [self.piece(number) for number in numbers] if numbers else []

    def definitions(self, name: str, line: int) -> list[int]:
        """Return the numbers of what is defined under a name at a line, that of the first decorator if it has any."""
        return self._data["definitions"].get(_place(name, line), [])

    def is_class(self, number: int) -> bool:
        """Tell whether a piece is a class."""
        return number in self._data["classes"]

    def imports(self, name: str) -> list[Import]:
        """Return what the module-level imports that bind `name` stand for."""
        if name not in self._imports:
            self._imports[name] = [Import(*target) for target in self._data["imports"].get(name, ())]
        return self._imports[name]

    @property
    def star_imports(self) -> list[str]:
        """The modules that all names are imported from."""
        return self._data["stars"]

    @property
    def rebound(self) -> list[str]:
        """The names that some function declares `global`."""
        return self._data["rebound"]


def outline(source: bytes | str, module: str, package: str) -> Outline:
    """Return the outline of a module's source; relative imports in it start from `package`.

    Raises SyntaxError or ValueError where the source is not Python.
    """
    key = hashing.key(source, package, _made_by()).hex()
    data = _load(module)
    if data is None or data.get("key") != key:
        data = {"key": key, **_outlined(ast.parse(source), package)}
        _save(module, data)
    return Outline(data)


@functools.cache
def _made_by() -> str:
    """Return a hash of what an outline depends on beside the source: this code, and Python's own grammar."""
    code = [Path(file).read_bytes() for file in (__file__, syntax.__file__)]
    return hashing.key(*code, repr(sys.version_info)).hex()


def _outlined(tree: ast.Module, package: str) -> Data:
    pieces: dict[ast.AST, list[Any]] = {tree: _piece_data(tree, package)}
    numbers: dict[ast.AST, int] = {tree: 0}

    def number(node: ast.AST) -> int:
        if node not in pieces:
            numbers[node] = len(pieces)
            pieces[node] = _piece_data(node, package)
        return numbers[node]

    statements, imports = defaultdict(list), defaultdict(list)
    stars: list[str] = []
    for statement in tree.body:
        names, imported, modules = touched_names(statement, package)
        stars += modules
        for name, target in imported:
            imports[name].append(list(target))
        if not isinstance(statement, (ast.Import, ast.ImportFrom)):
            for name in names:
                statements[name].append(number(statement))
    definitions = defaultdict(list)
    rebound: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (*DEFINITIONS, ast.Lambda)):
            first: Any = next(iter(getattr(node, "decorator_list", [])), node)
            definitions[_place(getattr(node, "name", "<lambda>"), first.lineno)].append(number(node))
        elif isinstance(node, ast.Global):
            rebound.update(node.names)
    return {
        "pieces": list(pieces.values()),
        "statements": statements,
        "definitions": definitions,
        "classes": [numbers[node] for node in pieces if isinstance(node, ast.ClassDef)],
        "imports": imports,
        "stars": stars,
        "rebound": sorted(rebound),
    }


def _place(name: str, line: int) -> str:
    return f"{name} {line}"


def _piece_data(node: ast.AST, package: str) -> list[Any]:
    reading = read(node, package)
    decorators = getattr(node, "decorator_list", None)
    return [
        hashing.key(reading.text).hex(),
        [[".".join(name.path), *(name.imported or ())] for name in reading.references],
        None if decorators is None else bool(decorators),
        _literal(node),
        list(_attributes(node.body)) if isinstance(node, ast.ClassDef) else [],
    ]


def _name(data: list[Any]) -> Reference:
    path, *imported = data
    return Reference(tuple(path.split(".")) if path else (), Import(*imported) if imported else None)


def _attributes(body: Iterable[ast.stmt]) -> Iterator[tuple[str, str]]:
    for statement in body:
        literal = _literal(statement)
        for target in getattr(statement, "targets", [getattr(statement, "target", None)]):
            if literal is not None and isinstance(target, ast.Name):
                yield target.id, literal


def _literal(node: ast.AST) -> str | None:
    expression = assigned_expression(node)
    if expression is None:
        return None
    try:
        literal_value(expression)
    except ValueError:
        return None
    return ast.unparse(expression)


def evaluated(literal: str) -> object:
    """Return the value that the right side of an assignment, as a piece has it, spells out."""
    return literal_value(ast.parse(literal, mode="eval").body)


# -- where outlines are kept ---------------------------------------------------------------------------------------

Load = Callable[[str], Data | None]
Save = Callable[[str, Data], None]


def _forget(_module: str) -> None:
    return None


def _let_go(_module: str, _data: Data) -> None:
    return None


_load: Load = _forget
_save: Save = _let_go


def keep_outlines(load: Load, save: Save) -> None:
    """Take outlines from `load` by the name of their module, where it has any, and give new ones to `save`."""
    global _load, _save
    _load, _save = load, save
