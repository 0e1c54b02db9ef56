"""The source that a loaded module really runs, indexed by name: definitions, constants, imports."""

import ast
import functools
import os
import types
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import Any

from stemma.incremental.syntax import DEFINITIONS, Import, Reading, Reference, read, touched_names

Namespace = dict[str, Any]
"""The globals of a module."""


class ModuleSource:
    """The syntax tree of one module, indexed by name."""

    def __init__(self, source: bytes | str, package: str, compiled: types.CodeType | None = None) -> None:
        """`compiled` is the module's code if that is at hand: it saves a third of the time."""
        self.package = package
        self.tree = ast.parse(source)
        if compiled is None:
            compiled = compile(source, "<recipe>", "exec", dont_inherit=True)
        self._codes: dict[str, list[types.CodeType]] = defaultdict(list)
        for code in _nested_codes(compiled):
            self._codes[code.co_qualname].append(code)
        self._statements: dict[str, list[ast.stmt]] = defaultdict(list)
        self._imports: dict[str, list[Import]] = defaultdict(list)
        self.star_imports: list[str] = []
        for statement in self.tree.body:
            self._index(statement)
        self._found: dict[int, tuple[types.CodeType, list[ast.AST]]] = {}
        self._readings: dict[ast.AST, Reading] = {}

    def _index(self, statement: ast.stmt) -> None:
        names, imports, stars = touched_names(statement, self.package)
        for name, target in imports:
            self._imports[name].append(target)
        self.star_imports.extend(stars)
        if not isinstance(statement, (ast.Import, ast.ImportFrom)):
            for name in names:
                self._statements[name].append(statement)

    @functools.cached_property
    def _definitions(self) -> dict[tuple[str, int], list[ast.AST]]:
        return _by_name_and_line(_statements_below(self.tree))

    @functools.cached_property
    def _all_definitions(self) -> dict[tuple[str, int], list[ast.AST]]:
        return _by_name_and_line(ast.walk(self.tree))

    @functools.cached_property
    def rebound(self) -> set[str]:
        """The names that some function declares `global`."""
        return {name for node in ast.walk(self.tree) if isinstance(node, ast.Global) for name in node.names}

    def statements(self, name: str) -> list[ast.stmt]:
        """Return the module-level statements that bind or mutate `name`, imports aside, in order."""
        return self._statements.get(name, [])

    def imports(self, name: str) -> list[Import]:
        """Return what the module-level imports that bind `name` stand for."""
        return self._imports.get(name, [])

    def function_nodes(self, code: types.CodeType) -> list[ast.AST]:
        """Return the definitions that compile to exactly `code`; none where this source is not the code's."""
        if id(code) not in self._found:
            candidates = self._codes.get(code.co_qualname, [])
            facts = code_facts(code) if candidates else ()
            same = [candidate for candidate in candidates if code_facts(candidate) == facts]
            self._found[id(code)] = (code, self._nodes(same))  # with the code, so that its id stays its own
        return self._found[id(code)][1]

    def class_nodes(self, qualname: str) -> list[ast.ClassDef]:
        """Return the definitions of the class with this qualified name: several where it is conditional."""
        return [node for node in self._nodes(self._codes.get(qualname, [])) if isinstance(node, ast.ClassDef)]

    def _nodes(self, codes: Iterable[types.CodeType]) -> list[ast.AST]:
        found: dict[ast.AST, None] = {}
        for code in codes:
            key = (code.co_name, code.co_firstlineno)
            found.update(dict.fromkeys(self._definitions.get(key) or self._all_definitions.get(key, [])))
        return list(found)

    def describes(self, namespace: Namespace) -> bool:
        """Tell whether each function at the top level of the module was compiled from this source."""
        return all(
            self.function_nodes(value.__code__)
            for value in list(namespace.values())
            if isinstance(value, types.FunctionType) and value.__globals__ is namespace
        )

    def read(self, node: ast.AST) -> Reading:
        """Return what a node of this module says."""
        if node not in self._readings:
            self._readings[node] = read(node, self.package)
        return self._readings[node]


_SOURCES: dict[str, tuple[ModuleSpec | tuple[int, int] | None, tuple[int, int], ModuleSource | None]] = {}


def module_source(namespace: Namespace) -> ModuleSource | None:
    """Return the source that a module was loaded from, or None where there is none (REPL, `exec`, extension).

    Importing or reloading a module gives it a new `__spec__`, so the spec tells one load from the next even
    within the clock's resolution. A file that was edited but not reloaded keeps the source that is running,
    where that was read before the edit; otherwise `function_nodes` finds nothing and the code object speaks.
    """
    file = namespace.get("__file__")
    if not isinstance(file, str) or not file.endswith(".py"):
        return None
    stat = _stat(file)
    load = namespace.get("__spec__") or stat
    if file in _SOURCES:
        known_load, known_stat, known = _SOURCES[file]
        same_load = known_load is load or (load is stat and known_load == stat)
        if same_load and (known_stat == stat or (known is not None and known.describes(namespace))):
            return known
    source = _read(file, namespace)
    _SOURCES[file] = (load, stat, source)
    return source


def _stat(file: str) -> tuple[int, int]:
    try:
        stat = os.stat(file)
    except OSError:  # inside a zip file, or removed since
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_size)


def _read(file: str, namespace: Namespace) -> ModuleSource | None:
    spec = namespace.get("__spec__")
    name = str(spec.name if spec else namespace.get("__name__"))
    package = str(
        namespace.get("__package__") or (name if "__path__" in namespace else name.rpartition(".")[0])
    )
    try:
        stat, source = _stat(file), Path(file).read_bytes()
        compiled = _cached_code(spec, file)
        return ModuleSource(source, package, compiled if _stat(file) == stat else None)
    except OSError:
        loader = namespace.get("__loader__")
        text = loader.get_source(name) if loader is not None and hasattr(loader, "get_source") else None
        return ModuleSource(text, package) if text is not None else None
    except (SyntaxError, ValueError):  # edited since it was loaded, and not Python any more
        return None


def _cached_code(spec: ModuleSpec | None, file: str) -> types.CodeType | None:
    """Return the code of a module as Python's own cache has it, or None where another loader is at work."""
    if spec is None or spec.origin != file or type(spec.loader) is not SourceFileLoader:
        return None
    return spec.loader.get_code(spec.name)


def code_facts(code: types.CodeType) -> tuple[Any, ...]:
    """Return all that makes a code object do what it does: no file name, no line numbers, no set order."""
    return (
        code.co_code,
        tuple(_constant_facts(constant) for constant in code.co_consts),
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags),
        code.co_exceptiontable,
    )


def _constant_facts(constant: object) -> object:
    if isinstance(constant, types.CodeType):
        return code_facts(constant)
    if isinstance(constant, frozenset):
        return ("frozenset", *sorted(repr(_constant_facts(item)) for item in constant))
    if isinstance(constant, tuple):
        return tuple(_constant_facts(item) for item in constant)
    return repr(constant)  # 1, 1.0 and True are equal but not the same constant


def code_references(code: types.CodeType) -> set[Reference]:
    """Return the global names that a code object may use, for functions without source."""
    names = {name for inner in [code, *_nested_codes(code)] for name in inner.co_names}
    imported = {
        Reference((name,), Import(module)) for module in names if "." in module for name in names - {module}
    }
    return {Reference((name,)) for name in names} | imported


def _nested_codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _nested_codes(constant)


def _by_name_and_line(nodes: Iterable[ast.AST]) -> dict[tuple[str, int], list[ast.AST]]:
    """Index definitions as their code objects are: by name and the line of the first decorator."""
    index: dict[tuple[str, int], list[ast.AST]] = defaultdict(list)
    for node in nodes:
        if isinstance(node, (*DEFINITIONS, ast.Lambda)):
            first: Any = next(iter(getattr(node, "decorator_list", [])), node)
            index[getattr(node, "name", "<lambda>"), first.lineno].append(node)
    return index


def _statements_below(node: ast.AST) -> Iterator[ast.AST]:
    # Far fewer than all nodes, and all definitions but lambdas are among them.
    for block in ("body", "orelse", "finalbody", "handlers", "cases"):
        statements = getattr(node, block, None)
        for statement in statements if isinstance(statements, list) else ():
            yield statement
            yield from _statements_below(statement)
