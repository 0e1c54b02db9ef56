"""What a function reaches: the functions, classes and constants of this project that its code names.

Names are resolved to the objects bound to them now, and each object is read where its own source stands. The
text of one object says what it does, and beside it stands what each of its names means, so that two imports
exchanged are seen as well as a changed body.
"""

import functools
import importlib
import importlib.util
import inspect
import re
import sys
import sysconfig
import types
from collections import ChainMap, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from stemma import hashing
from stemma.incremental.outline import Piece, evaluated
from stemma.incremental.source import ModuleSource, Namespace, code_facts, code_references, module_source
from stemma.incremental.syntax import Import, Reference

PROJECT = "stemma"
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))
_DEPTH = 8  # of containers inside containers
# Where the modules of Python itself lie, and those that are installed.
_LIBRARIES = frozenset(
    Path(path).resolve()
    for name, path in sysconfig.get_paths().items()
    if name in ("stdlib", "platstdlib", "purelib", "platlib")
)

_Reader = Callable[..., tuple[str, list[str]]]
"""Reads one object: its label and the lines that say what it is."""
_Key = tuple[Any, ...]
"""Which object, and how it is read."""


class Reach:
    """Follows live objects of the project and keeps, for each, its own text and what its names mean.

    `describe` names an object and notes its code; `finish` reads what was noted since, and what that names in turn.
    What was read is kept, so that of several objects described one after the other each piece of code is read once.
    """

    def __init__(self, packages: Iterable[str]) -> None:
        packages = set(packages)
        self._folders = {_folder(package) for package in packages - {PROJECT}} - {None}
        self._known = dict.fromkeys(packages, True)
        self._noted: list[_Key] = []
        self._readings: dict[_Key, tuple[str, str, list[_Key]]] = {}
        self._resolving: set[tuple[int, str]] = set()
        self._resolved: dict[tuple[int, tuple[str, ...]], tuple[str | None, list[_Key]]] = {}
        self._sources: dict[int, tuple[Namespace, ModuleSource | None]] = {}
        # The arguments keep objects alive: their ids stay theirs.
        self._readers: dict[_Key, tuple[_Reader, tuple[Any, ...]]] = {}

    def finish(self) -> dict[str, str]:
        """Return label → hash of content for everything reached; equal labels are hashed together."""
        contents: dict[str, set[str]] = defaultdict(set)
        pending, self._noted = self._noted, []
        done: set[_Key] = set()
        while pending:
            key = pending.pop()
            if key not in done:
                done.add(key)
                label, content, named = self._reading(key)
                contents[label].add(content)
                pending += named
        return {label: hashing.key(*sorted(contents[label])).hex() for label in sorted(contents)}

    def _reading(self, key: _Key) -> tuple[str, str, list[_Key]]:
        """Return an object's label and content, and the keys of what it names."""
        if key not in self._readings:
            read, arguments = self._readers[key]
            label, lines = read(*arguments)
            named, self._noted = self._noted, []
            self._readings[key] = label, "\n".join(lines), named
        return self._readings[key]

    def _note(self, read: _Reader, key: tuple[Any, ...], *arguments: Any) -> None:
        self._readers.setdefault((read.__name__, *key), (read, arguments))
        self._noted.append((read.__name__, *key))

    def _ours(self, module: Any) -> bool:
        """Tell whether a module, by its name, is of the project: of a root's package, or of one in the same folder."""
        if not isinstance(module, str):
            return False
        if module not in self._known:
            package = _top(module)
            if package not in self._known:
                self._known[package] = bool(self._folders) and _folder(package) in self._folders
            self._known[module] = self._known[package]
        return self._known[module]

    def _source(self, namespace: Namespace) -> ModuleSource | None:
        if id(namespace) not in self._sources:
            self._sources[id(namespace)] = (namespace, module_source(namespace))
        return self._sources[id(namespace)][1]

    # What a live object is

    def describe(self, value: Any, depth: int = _DEPTH) -> str:
        """Return text that stands for a value, the same in any process, and queue the code it holds."""
        if isinstance(value, _PLAIN) and type(value) in _PLAIN:
            return repr(value)
        if depth == 0:
            return _qualified(type(value))
        inner = functools.partial(self.describe, depth=depth - 1)
        if isinstance(value, types.ModuleType):
            return self._describe_module(value)
        if isinstance(value, type):
            return self._describe_class(value)
        if isinstance(value, types.FunctionType):
            return self._describe_function(value)
        if isinstance(value, types.MethodType):
            return f"{inner(value.__func__)} of {inner(value.__self__)}"
        if isinstance(value, functools.partial):
            return f"partial({inner(value.func)}, {inner(value.args)}, {inner(value.keywords)})"
        if isinstance(value, (staticmethod, classmethod)):
            return f"{type(value).__name__}({inner(value.__func__)})"
        if isinstance(value, property):
            return f"property({inner((value.fget, value.fset, value.fdel))})"
        if callable(getattr(value, "__wrapped__", None)):
            return f"{_qualified(type(value))}({inner(value.__wrapped__)})"
        if isinstance(value, Enum):
            return f"{inner(type(value))}.{value.name}"
        if isinstance(value, re.Pattern):
            return f"re.compile({value.pattern!r}, {value.flags})"
        return self._describe_data(value, inner)

    def describe_load(self, load: Callable[..., Any]) -> str:
        """Name the code that loads a model, without the values in it: what it loads has digests."""
        if isinstance(load, functools.partial):
            for argument in (*load.args, *load.keywords.values()):
                self._follow(argument)
        code = _code_of(load)
        if not isinstance(code, types.FunctionType) or not self._leads_home(code):
            return self.describe(code)
        self._note(self._read_function, (id(code), "load"), code, True)
        return f"{code.__globals__.get('__name__')}.{code.__code__.co_qualname}"

    def _describe_data(self, value: Any, inner: Callable[[Any], str]) -> str:
        kind = inner(type(value))
        if isinstance(value, (list, tuple)):
            return f"{kind}[{', '.join(map(inner, value))}]"
        if isinstance(value, (set, frozenset)):
            return f"{kind}{{{', '.join(sorted(map(inner, value)))}}}"
        if isinstance(value, Mapping):
            items = [f"{inner(name)}: {inner(item)}" for name, item in list(value.items())]
            return f"{kind}{{{', '.join(items)}}}"
        if is_dataclass(value):
            state = {field.name: getattr(value, field.name, None) for field in fields(value)}
            return f"{kind}({inner(state)})"
        if self._ours(type(value).__module__) and hasattr(value, "__dict__"):
            return f"{kind}({inner(vars(value))})"
        if isinstance(value, types.BuiltinFunctionType) and not isinstance(value.__self__, types.ModuleType):
            return f"{_qualified(value)} of {inner(value.__self__)}"
        if isinstance(value, (types.BuiltinFunctionType, types.MethodDescriptorType)):
            return _qualified(value)
        # A library's object counts by its class, and the state in it by the code of ours that builds it.
        return kind

    def _describe_module(self, module: types.ModuleType) -> str:
        if self._ours(module.__name__):
            self._note(self._read_module, (id(module),), module)
        return module.__name__

    def _describe_class(self, cls: type) -> str:
        if self._ours(cls.__module__):
            self._note(self._read_class, (id(cls),), cls)
        return _qualified(cls)

    def _describe_function(self, function: types.FunctionType) -> str:
        module = function.__globals__.get("__name__")
        label = f"{module}.{function.__code__.co_qualname}"
        wrapped = getattr(function, "__wrapped__", None)
        if self._ours(module) or (wrapped is None and _nameless(function)):
            self._note(self._read_function, (id(function),), function)
        else:
            # A library's wrapper around our functions: contextmanager, singledispatch with its registry.
            for held in (*_closure(function).values(), getattr(function, "registry", None)):
                self._follow(held)
        return f"{label}({self.describe(wrapped)})" if callable(wrapped) else label

    def _follow(self, value: Any, depth: int = _DEPTH) -> None:
        """Queue the functions and classes of the project in a value, whatever else it holds."""
        if depth == 0 or isinstance(value, types.ModuleType):
            return
        if isinstance(value, Mapping):
            value = [*value.keys(), *value.values()]
        if isinstance(value, (list, tuple, set, frozenset)):
            for item in list(value):
                self._follow(item, depth - 1)
        elif isinstance(value, (type, types.FunctionType, types.MethodType, functools.partial)):
            if self._leads_home(value):
                self.describe(value)
        elif callable(getattr(value, "__wrapped__", None)):
            self._follow(value.__wrapped__, depth - 1)
        elif self._ours(type(value).__module__):
            self.describe(type(value))

    def _leads_home(self, value: Any) -> bool:
        """Tell whether a class or function, unwrapped, is code of the project."""
        if isinstance(value, type):
            return self._ours(value.__module__)
        try:
            return self._ours(_home(value))
        except ValueError:  # a cycle of wrappers
            return False

    # What each object's own code says

    def _read_function(self, function: types.FunctionType, only_code: bool = False) -> tuple[str, list[str]]:
        namespace, code, closure = function.__globals__, function.__code__, _closure(function)
        if only_code:
            closure = {name: _code_of(cell) for name, cell in closure.items()}
        label = f"{namespace.get('__name__')}.{code.co_qualname}"
        source = self._source(namespace)
        pieces = source.function_pieces(code) if source else []
        if pieces:
            lines, references = _read_all(pieces)
        else:
            lines, references = [repr(code_facts(code))], code_references(code)
        if not only_code and (not pieces or "<" in code.co_qualname):
            # The defaults of a nested function are values of one call of the outer one.
            lines.append(self.describe((function.__defaults__, function.__kwdefaults__)))
        lines += [f"{name} = {self.describe(cell)}" for name, cell in sorted(closure.items())]
        if self._ours(namespace.get("__name__")):
            lines += self._meanings(namespace, references, closure)
        return label, lines

    def _read_class(self, cls: type) -> tuple[str, list[str]]:
        methods = {name: _plain_function(value) for name, value in vars(cls).items()}
        namespace = next(
            (
                method.__globals__
                for method in methods.values()
                if method is not None and method.__globals__.get("__name__") == cls.__module__
            ),
            vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {},
        )
        source = self._source(namespace)
        pieces = source.class_pieces(cls.__qualname__) if source else []
        bases = [self.describe(base) for base in cls.__mro__[1:]]
        lines = [f"bases: {', '.join(bases)}"]
        if pieces:
            closures = [_closure(method) for method in methods.values() if method is not None]
            texts, references = _read_all(pieces)
            lines += texts
            lines += self._meanings(namespace, references, ChainMap(*closures))
            lines += self._patched_attributes(cls, [each for piece in pieces for each in piece.attributes])
        for name, method in sorted(methods.items()):
            if method is None or _generated(method):
                continue
            named_so = method.__code__.co_qualname == f"{cls.__qualname__}.{name}"
            in_class = pieces and named_so and method.__globals__ is namespace
            if not (in_class and source and source.function_pieces(method.__code__)):
                lines.append(f"{name} -> {self.describe(vars(cls)[name])}")
        return _qualified(cls), lines

    def _read_constant(self, namespace: Namespace, name: str) -> tuple[str, list[str]]:
        source, live = self._source(namespace), namespace[name]
        label = f"{namespace.get('__name__')}.{name}"
        if source is None:
            return label, [self.describe(live)]
        statements = source.outline.statements(name)
        lines, references = _read_all(statements)
        lines += self._meanings(namespace, references - {Reference((name,))}, {})
        if isinstance(live, re.Pattern):
            lines.append(f"flags {live.flags}")
        literal = statements[0].literal if len(statements) == 1 else None
        patched = self._patched(literal, live) and name not in source.outline.rebound
        if patched or _is_code(live):
            lines.append(f"now {self.describe(live)}")
        # Registries filled by decorators, and tables patched in place.
        self._follow(live)
        return label, lines

    def _read_module(self, module: types.ModuleType) -> tuple[str, list[str]]:
        source = self._source(vars(module))
        if source is None:
            return module.__name__, sorted(name for name in vars(module) if not name.startswith("__"))
        lines, references = _read_all([source.outline.piece(0)])
        return module.__name__, lines + self._meanings(vars(module), references, {})

    def _patched(self, literal: str | None, live: Any) -> bool:
        """Tell whether a constant's live value is not the one that its right side spells out."""
        if literal is None:
            return False
        expected = evaluated(literal)
        if not expected and isinstance(expected, (dict, list, set)):
            return False  # begins empty: filled by running code, with entries that `_follow` looks at
        actual = live.pattern if isinstance(live, re.Pattern) else live
        return self.describe(actual) != self.describe(expected)

    def _patched_attributes(self, cls: type, attributes: Iterable[tuple[str, str]]) -> Iterator[str]:
        for name, literal in attributes:
            live = vars(cls).get(name)
            # Other types are descriptors (dataclass slots, enum members) that the class statement made.
            if live is not None and type(live) in _PLAIN and self._patched(literal, live):
                yield f"now {name} = {live!r}"

    # What a name means

    def _meanings(
        self, namespace: Namespace, references: Iterable[Reference], closure: Mapping[str, Any]
    ) -> list[str]:
        meanings = {str(reference): self._resolve(namespace, reference, closure) for reference in references}
        return [f"{name} -> {meaning}" for name, meaning in sorted(meanings.items()) if meaning is not None]

    def _resolve(self, namespace: Namespace, reference: Reference, closure: Mapping[str, Any]) -> str | None:
        """Return the label of what a dotted name stands for; None for builtins and unbound names."""
        if reference.imported is not None:
            return self._resolve_import(reference.imported, reference.path)
        name, *attributes = reference.path
        if name in closure:
            value = closure[name]
            if isinstance(value, types.ModuleType) and self._ours(value.__name__) and attributes:
                return self._resolve_name(vars(value), *attributes)
            return self.describe(value)
        return self._resolve_global(namespace, reference.path)

    def _resolve_global(self, namespace: Namespace, path: tuple[str, ...]) -> str | None:
        """Resolve a name of a module, once: many are named by several of its functions."""
        key = (id(namespace), path)
        if key not in self._resolved:
            before, self._noted = self._noted, []
            label = self._resolve_name(namespace, *path)
            self._resolved[key] = label, self._noted
            self._noted = before
        label, noted = self._resolved[key]
        self._noted += noted
        return label

    def _resolve_import(self, target: Import, attributes: tuple[str, ...] = ()) -> str | None:
        if not self._ours(target.module):
            return str(target)
        try:
            importlib.import_module(target.loads or target.module)
        except ImportError:
            return f"{target} (cannot be imported)"
        module = sys.modules[target.module]
        path = attributes if target.attribute is None else (target.attribute, *attributes)
        return self._resolve_name(vars(module), *path) if path else self.describe(module)

    def _resolve_name(self, namespace: Namespace, name: str, *attributes: str) -> str | None:
        if name not in namespace and not _import_submodule(namespace, name):
            return None
        value = namespace[name]
        if isinstance(value, types.ModuleType) and self._ours(value.__name__):
            return self._resolve_name(vars(value), *attributes) if attributes else self.describe(value)
        return self._resolve_binding(namespace, name)

    def _resolve_binding(self, namespace: Namespace, name: str) -> str | None:
        """Follow a global name through imports to where it is bound, then to its definition or statements."""
        value, source = namespace[name], self._source(namespace)
        statements = source.outline.statements(name) if source else []
        label = self._resolve_imported(namespace, name, value, source)
        if label is None and (not statements or self._is_its_definition(statements, value)):
            return self.describe(value)
        if statements:
            self._note(self._read_constant, (id(namespace), name), namespace, name)
        return label or f"{namespace.get('__name__')}.{name}"

    def _resolve_imported(
        self, namespace: Namespace, name: str, value: Any, source: ModuleSource | None
    ) -> str | None:
        """Return the label of what an import bound the name to; None where it has another value (now)."""
        if source is None or (id(namespace), name) in self._resolving:
            return None
        targets = source.outline.imports(name)
        if not targets and not source.outline.statements(name):
            targets = [Import(module, name) for module in source.outline.star_imports]
        target = next((target for target in targets if _bound_by(target, value)), None)
        if target is None:
            return None
        self._resolving.add((id(namespace), name))  # two modules may import a name from each other
        label = self._resolve_import(target)
        self._resolving.discard((id(namespace), name))
        return label

    def _is_its_definition(self, statements: list[Piece], value: Any) -> bool:
        """Tell whether following the value says all: it is our code, or was patched over a plain definition.

        What a library's decorator made of a definition says nothing; then the definition itself must speak.
        """
        decorated = [statement.decorated for statement in statements]
        if None in decorated:
            return False
        return not any(decorated) or (_is_code(value) and self._leads_home(value))


class Reaches:
    """What was read of code, by the packages that count as the project: for all recipes that are worked out together.

    Code that is exchanged meanwhile, as tests do, is not seen.
    """

    def __init__(self) -> None:
        self._known: dict[frozenset[str], Reach] = {}

    def of(self, roots: Iterable[Callable[..., Any]]) -> Reach:
        """Return what follows the code of these functions."""
        packages = frozenset({PROJECT, *map(_home, roots)})
        if packages not in self._known:
            self._known[packages] = Reach(packages)
        return self._known[packages]


def _read_all(pieces: list[Piece]) -> tuple[list[str], set[Reference]]:
    return [piece.text for piece in pieces], {name for piece in pieces for name in piece.names}


def _is_code(value: Any) -> bool:
    code = (type, types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)
    return isinstance(value, code) or callable(getattr(value, "__wrapped__", None))


def _code_of(value: Any) -> Any:
    """Return the code in a value without the values that it holds: its function, its class, or itself."""
    if isinstance(value, functools.partial):
        return _code_of(value.func)
    if isinstance(value, types.MethodType):
        return _code_of(value.__self__)
    return value if _is_code(value) or isinstance(value, types.ModuleType) else type(value)


def _nameless(function: types.FunctionType) -> bool:
    """Tell whether a function from elsewhere has no name to it (a lambda, a nested one), only its code."""
    value: Any = sys.modules.get(function.__module__)
    if _top(function.__module__ or "") in sys.stdlib_module_names:
        return False
    for name in function.__qualname__.split("."):
        value = getattr(value, name, None)
    return value is not function


def _import_submodule(namespace: Namespace, name: str) -> bool:
    if "__path__" not in namespace:
        return False
    try:
        importlib.import_module(f"{namespace['__name__']}.{name}")
    except ImportError:
        return False
    return name in namespace


def _bound_by(target: Import, value: Any) -> bool:
    """Tell whether an import statement, run now, would bind this very object."""
    module = sys.modules.get(target.module)
    if target.attribute is None:
        return module is value
    missing = object()
    found = getattr(module, target.attribute, missing)
    return found is value or sys.modules.get(str(target), missing) is value


def _closure(function: types.FunctionType) -> dict[str, Any]:
    cells = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            cells[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    cells.pop("__class__", None)  # the class that the method stands in, for super()
    return cells


def _plain_function(value: Any) -> types.FunctionType | None:
    """Return the function under a class attribute (method, static or class method, property), else None."""
    if isinstance(value, property):
        value = value.fget
    elif isinstance(value, functools.cached_property):
        value = value.func
    elif isinstance(value, (staticmethod, classmethod)):
        value = value.__func__
    return value if isinstance(value, types.FunctionType) else None


def _generated(method: types.FunctionType) -> bool:
    # dataclass, NamedTuple and the like make methods from the class body, which is in the recipe already.
    inner = inspect.unwrap(method)  # dataclass wraps its __repr__ once more
    return inner.__code__.co_filename.startswith("<") and method.__name__.startswith("__")


def _home(function: Any) -> str:
    """Return the top-level package of a callable's own code."""
    if isinstance(function, functools.partial):
        return _home(function.func)
    if isinstance(function, types.MethodType):
        return _home(function.__func__)
    inner = inspect.unwrap(function)
    if isinstance(inner, types.FunctionType):
        return _top(inner.__globals__["__name__"])
    return _top(getattr(inner, "__module__", None) or type(inner).__module__)


def _folder(package: str) -> Path | None:
    """Return the folder that a top-level package or module lies in; None for one that is installed or has no file."""
    try:
        spec = getattr(sys.modules.get(package), "__spec__", None) or importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    origin = getattr(spec, "origin", None)
    if spec is None or not origin or not Path(origin).is_file():
        return None
    folder = Path(origin).resolve().parents[1 if spec.submodule_search_locations is not None else 0]
    return None if any(map(folder.is_relative_to, _LIBRARIES)) else folder


def _top(module: str) -> str:
    return module.partition(".")[0]


def _qualified(value: Any) -> str:
    return f"{getattr(value, '__module__', None)}.{getattr(value, '__qualname__', type(value).__qualname__)}"
