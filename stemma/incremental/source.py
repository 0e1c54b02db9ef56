"""The source that a loaded module really runs."""

import os
import types
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import Any

from stemma.incremental.outline import Outline, Piece, outline
from stemma.incremental.syntax import Import, Reference

Namespace = dict[str, Any]
"""The globals of a module."""


class ModuleSource:
    """The source of one module: its outline, and which piece of it a code object was compiled from."""

    def __init__(self, outline: Outline, compiled: types.CodeType) -> None:
        self.outline = outline
        self._codes: dict[str, list[types.CodeType]] = defaultdict(list)
        for code in _nested_codes(compiled):
            self._codes[code.co_qualname].append(code)
        self._found: dict[int, tuple[types.CodeType, list[Piece]]] = {}

    def function_pieces(self, code: types.CodeType) -> list[Piece]:
        """Return the definitions that compile to exactly `code`; none where this source is not the code's."""
        if id(code) not in self._found:
            candidates = self._codes.get(code.co_qualname, [])
            same = [candidate for candidate in candidates if _does_the_same(candidate, code)]
            # With the code, so that its id stays its own.
            self._found[id(code)] = (code, [self.outline.piece(number) for number in self._numbers(same)])
        return self._found[id(code)][1]

    def class_pieces(self, qualname: str) -> list[Piece]:
        """Return the definitions of the class with this qualified name: several where it is conditional."""
        numbers = self._numbers(self._codes.get(qualname, []))
        return [self.outline.piece(number) for number in numbers if self.outline.is_class(number)]

    def _numbers(self, codes: Iterable[types.CodeType]) -> list[int]:
        found = (self.outline.definitions(code.co_name, code.co_firstlineno) for code in codes)
        return list(dict.fromkeys(number for numbers in found for number in numbers))

    def describes(self, namespace: Namespace) -> bool:
        """Tell whether each function at the top level of the module was compiled from this source."""
        return all(
            self.function_pieces(value.__code__)
            for value in list(namespace.values())
            if isinstance(value, types.FunctionType) and value.__globals__ is namespace
        )


_SOURCES: dict[str, tuple[ModuleSpec | tuple[int, int] | None, tuple[int, int], ModuleSource | None]] = {}


def module_source(namespace: Namespace) -> ModuleSource | None:
    """Return the source that a module was loaded from, or None where there is none (REPL, `exec`, extension).

    Importing or reloading a module gives it a new `__spec__`, so the spec tells one load from the next even
    within the clock's resolution. A file that was edited but not reloaded keeps the source that is running,
    where that was read before the edit; otherwise `function_pieces` finds nothing and the code object speaks.
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
        return _module_source(source, name, package, compiled if _stat(file) == stat else None)
    except OSError:
        loader = namespace.get("__loader__")
        text = loader.get_source(name) if loader is not None and hasattr(loader, "get_source") else None
        return None if text is None else _module_source(text, name, package)
    except (SyntaxError, ValueError):  # edited since it was loaded, and not Python any more
        return None


def _module_source(
    source: bytes | str, name: str, package: str, compiled: types.CodeType | None = None
) -> ModuleSource:
    if compiled is None:
        compiled = compile(source, "<recipe>", "exec", dont_inherit=True)
    return ModuleSource(outline(source, name, package), compiled)


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


def _does_the_same(one: types.CodeType, other: types.CodeType) -> bool:
    # Code that is alike to the line is told in a twentieth of the time; mostly it is.
    return one == other or code_facts(one) == code_facts(other)


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
