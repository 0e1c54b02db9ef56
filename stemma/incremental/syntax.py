"""What a piece of code says and which names it uses, from its syntax tree.

Comments, docstrings and formatting are gone, and so are line numbers and file names, so that equal code has
equal text on every machine.
"""

import ast
import importlib.util
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto
from typing import Any, NamedTuple

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_CONTAINERS = {"frozenset": frozenset, "set": set, "tuple": tuple, "list": list, "dict": dict}


class Import(NamedTuple):
    """What an import statement binds a name to: a module, or an attribute of one."""

    module: str
    attribute: str | None = None
    loads: str | None = None  # `import a.b` binds `a`, but it is a.b that must be loaded

    def __str__(self) -> str:
        return self.module if self.attribute is None else f"{self.module}.{self.attribute}"


class Reference(NamedTuple):
    """A dotted name that code uses and does not bind itself.

    `path` starts at a global or closure name, or below `imported` where an import in the function binds it.
    """

    path: tuple[str, ...]
    imported: Import | None = None

    def __str__(self) -> str:
        return ".".join((f"<{self.imported}>", *self.path) if self.imported else self.path)


class Reading(NamedTuple):
    """What a piece of code says, and the names that it uses from outside itself, annotations included."""

    text: str
    references: frozenset[Reference]


def read(node: ast.AST, package: str) -> Reading:
    """Return what a node says; relative imports in it start from `package`."""
    reader = _Reader(package)
    reader.write(node)
    return reader.reading()


def literal_value(node: ast.expr) -> object:
    """Return the value that an expression spells out; raises ValueError where it takes running code to know.

    Literals, a container built from one literal (`frozenset({...})`), and for `re.compile("…")` its pattern.
    """
    if isinstance(node, ast.Call) and node.args:
        called = ast.unparse(node.func)
        if called == "re.compile":
            return literal_value(node.args[0])
        if called in _CONTAINERS and len(node.args) == 1 and not node.keywords:
            return _CONTAINERS[called](literal_value(node.args[0]))
    try:
        return ast.literal_eval(node)
    except (TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(str(error)) from None


def assigned_expression(statement: ast.AST) -> ast.expr | None:
    """Return the right side of a plain assignment to names, else None."""
    if isinstance(statement, ast.Assign) and all(
        isinstance(target, ast.Name) for target in statement.targets
    ):
        return statement.value
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return statement.value
    return None


def _scope(*roots: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below `roots` in the same scope: a function or class itself, not what is in it."""
    pending = list(roots)
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, _COMPREHENSIONS):
            pending.extend(inner for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr))
        elif not isinstance(node, (*DEFINITIONS, ast.Lambda)):
            pending.extend(ast.iter_child_nodes(node))


def touched_names(statement: ast.stmt, package: str) -> tuple[set[str], list[tuple[str, Import]], list[str]]:
    """Return the names that a module-level statement binds or whose objects it may change, and its imports.

    An object may be changed by a store into it, and by a call made for its effect.
    """
    names: set[str] = set()
    imports: list[tuple[str, Import]] = []
    stars: list[str] = []
    if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        # The right side, a large table perhaps, binds nothing.
        roots: list[ast.AST] = [
            *getattr(statement, "targets", []),
            *filter(None, [getattr(statement, "target", None)]),
        ]
    else:
        roots = [statement]
    for node in _scope(*roots):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            imports.extend(_imported_names(node, package))
            if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
                stars.append(_absolute(node, package))
        elif isinstance(node, ast.Expr) or _is_store_into(node):
            names.update(inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name))
        else:
            names.update(_names_bound_by(node))
    return names | {name for name, _ in imports}, imports, stars


def _is_store_into(node: ast.AST) -> bool:
    return isinstance(node, (ast.Subscript, ast.Attribute)) and not isinstance(node.ctx, ast.Load)


def _names_bound_by(node: ast.AST) -> tuple[str, ...]:
    if isinstance(node, ast.Name):
        return () if isinstance(node.ctx, ast.Load) else (node.id,)
    if isinstance(node, (*DEFINITIONS, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
        return (node.name,) if node.name else ()
    if isinstance(node, ast.MatchMapping):
        return (node.rest,) if node.rest else ()
    return ()


def _imported_names(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, Import]]:
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            if alias.name != "*":
                yield alias.asname or alias.name, Import(_absolute(node, package), alias.name)
        elif alias.asname:
            yield alias.asname, Import(alias.name)
        else:
            top = alias.name.partition(".")[0]
            yield top, Import(top, loads=alias.name)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    relative = "." * node.level + (node.module or "")
    try:
        return importlib.util.resolve_name(relative, package)
    except ImportError:  # beyond the top-level package: the import itself would fail as well
        return relative


class _Kind(Enum):
    OPEN = auto()  # a class body or the outermost scope: its names are not seen from the functions in it
    FUNCTION = auto()
    COMPREHENSION = auto()


class _Scope:
    """The names of one scope while it is read."""

    def __init__(self, kind: _Kind, parent: "_Scope | None" = None) -> None:
        self.kind = kind
        self.parent = parent
        self.bound: set[str] = set()
        self.declared: set[str] = set()  # global or nonlocal
        self.imports: dict[str, list[Import]] = defaultdict(list)
        self.used: set[tuple[str, ...]] = set()


class _Reader:
    """Writes a syntax tree out and collects the dotted names that are free in it, in one pass.

    It takes a third of the time of `ast.unparse` and an `ast.NodeVisitor`: most of a cold recipe.
    """

    def __init__(self, package: str) -> None:
        self._package = package
        self._out: list[str] = []
        self._scope = _Scope(_Kind.OPEN)
        self._references: set[Reference] = set()

    def reading(self) -> Reading:
        free = {Reference(path) for path in self._scope.used}
        return Reading(" ".join(self._out), frozenset(self._references | free))

    def write(self, node: ast.AST) -> None:
        special = _SPECIAL.get(node.__class__)
        if special is not None:
            special(self, node)
        else:
            self._write_node(node)

    def _write_node(self, node: ast.AST) -> None:
        out = self._out
        out.append("(" + node.__class__.__name__)
        for name in node._fields:
            value = getattr(node, name, None)
            if value.__class__ is list:
                self._write_list(name, value)
            elif isinstance(value, ast.AST):
                if not isinstance(value, ast.expr_context):  # the place of an expression says as much
                    out.append(name)
                    self.write(value)
            elif value is not None:
                out.append(f"{name}={value!r}")
        out.append(")")

    def _write_list(self, name: str, values: Iterable[Any]) -> None:
        self._out.append(name + "[")
        for value in values:
            if isinstance(value, ast.AST):
                self.write(value)
            else:
                self._out.append("-" if value is None else repr(value))
        self._out.append("]")

    def _write_name(self, node: ast.Name) -> None:
        self._out.append(node.id)
        if isinstance(node.ctx, ast.Load):
            self._scope.used.add((node.id,))
            return
        self._scope.bound.add(node.id)
        if node.id in self._scope.declared:
            self._scope.used.add((node.id,))

    def _write_attribute(self, node: ast.Attribute) -> None:
        attributes: list[str] = []
        root: Any = node
        while isinstance(root, ast.Attribute):
            attributes.append(root.attr)
            root = root.value
        path = tuple(reversed(attributes))
        if isinstance(root, ast.Name):
            self._out.append(".".join((root.id, *path)))
            self._scope.used.add((root.id, *path))
        else:
            self.write(root)
            self._out.append("." + ".".join(path))

    def _write_constant(self, node: ast.Constant) -> None:
        self._out.append(repr(node.value))

    def _write_expression_statement(self, node: ast.Expr) -> None:
        # A statement that is only a string documents something: a function, or the attribute before it.
        if not (isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)):
            self._write_node(node)

    def _write_pass(self, node: ast.Pass) -> None:
        """Write nothing: a body of `pass` is one of a docstring alone."""

    def _write_binder(self, node: ast.AST) -> None:
        self._write_node(node)
        self._scope.bound.update(_names_bound_by(node))

    def _write_import(self, node: ast.Import | ast.ImportFrom) -> None:
        self._write_node(node)
        for name, target in _imported_names(node, self._package):
            self._scope.imports[name].append(target)

    def _write_declaration(self, node: ast.Global | ast.Nonlocal) -> None:
        self._write_node(node)
        self._scope.declared.update(node.names)

    def _write_named_expression(self, node: ast.NamedExpr) -> None:
        self._write_node(node)
        scope = self._scope
        while scope.kind is _Kind.COMPREHENSION and scope.parent is not None:
            scope = scope.parent
        scope.bound.add(node.target.id)

    def _write_annotated_assignment(self, node: ast.AnnAssign) -> None:
        self._out.append("(AnnAssign")
        self._write_annotation(node.annotation)
        self.write(node.target)
        if node.value is not None:
            self.write(node.value)
        self._out.append(")")

    def _write_annotation(self, annotation: ast.expr | None) -> None:
        # Annotations are followed: a method of an argument is reached through the argument's class.
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            try:
                self._write_annotation(ast.parse(annotation.value, mode="eval").body)
            except SyntaxError:
                self._out.append(repr(annotation.value))
            return
        if annotation is not None:
            self._out.append(":")
            self.write(annotation)

    def _write_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        self._out.append(f"({node.__class__.__name__} {getattr(node, 'name', '')}")
        self._write_list("decorators", getattr(node, "decorator_list", ()))
        self._write_list("types", getattr(node, "type_params", ()))
        arguments = self._write_arguments(node.args)
        self._write_annotation(getattr(node, "returns", None))
        self._scope.bound.update(_names_bound_by(node))
        self._open(_Kind.FUNCTION, arguments)
        self._write_list("body", [node.body] if isinstance(node, ast.Lambda) else node.body)
        self._close()
        self._out.append(")")

    def _write_arguments(self, arguments: ast.arguments) -> list[str]:
        names = []
        for kind in ("posonlyargs", "args", "vararg", "kwonlyargs", "kwarg"):
            group = getattr(arguments, kind)
            self._out.append(kind)
            for argument in group if isinstance(group, list) else filter(None, [group]):
                names.append(argument.arg)
                self._out.append(argument.arg)
                self._write_annotation(argument.annotation)
        self._write_list("defaults", arguments.defaults)
        self._write_list("kw_defaults", arguments.kw_defaults)
        return names

    def _write_class(self, node: ast.ClassDef) -> None:
        self._scope.bound.add(node.name)
        self._open(_Kind.OPEN)
        self._write_node(node)
        self._close()

    def _write_comprehension(self, node: Any) -> None:
        self._out.append("(" + node.__class__.__name__)
        # The first iterable is evaluated outside, where the targets hide nothing.
        self.write(node.generators[0].iter)
        self._open(_Kind.COMPREHENSION)
        for position, generator in enumerate(node.generators):
            self._out.append(f"for {generator.is_async}")
            self.write(generator.target)
            if position > 0:
                self.write(generator.iter)
            self._write_list("ifs", generator.ifs)
        for field in ("key", "value", "elt"):
            if hasattr(node, field):
                self.write(getattr(node, field))
        self._close()
        self._out.append(")")

    def _open(self, kind: _Kind, bound: Iterable[str] = ()) -> None:
        self._scope = _Scope(kind, self._scope)
        self._scope.bound.update(bound)

    def _close(self) -> None:
        scope = self._scope
        assert scope.parent is not None
        self._scope = scope.parent
        for path in scope.used:
            name = path[0]
            if scope.kind is _Kind.OPEN or name in scope.declared:
                self._scope.used.add(path)
            elif name in scope.imports:
                self._references.update(Reference(path[1:], target) for target in scope.imports[name])
            elif name not in scope.bound:
                self._scope.used.add(path)


_SPECIAL: dict[type, Callable[[_Reader, Any], None]] = {
    ast.Name: _Reader._write_name,
    ast.Attribute: _Reader._write_attribute,
    ast.Constant: _Reader._write_constant,
    ast.Expr: _Reader._write_expression_statement,
    ast.Pass: _Reader._write_pass,
    ast.ExceptHandler: _Reader._write_binder,
    ast.MatchAs: _Reader._write_binder,
    ast.MatchStar: _Reader._write_binder,
    ast.MatchMapping: _Reader._write_binder,
    ast.Import: _Reader._write_import,
    ast.ImportFrom: _Reader._write_import,
    ast.Global: _Reader._write_declaration,
    ast.Nonlocal: _Reader._write_declaration,
    ast.NamedExpr: _Reader._write_named_expression,
    ast.AnnAssign: _Reader._write_annotated_assignment,
    ast.FunctionDef: _Reader._write_function,
    ast.AsyncFunctionDef: _Reader._write_function,
    ast.Lambda: _Reader._write_function,
    ast.ClassDef: _Reader._write_class,
    **dict.fromkeys(_COMPREHENSIONS, _Reader._write_comprehension),
}
