"""The recipe of a stage: changes with everything that the stage reaches, and with nothing else."""

import contextlib
import functools
import importlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pytest

from stemma.incremental import outline
from stemma.incremental.recipe import code_hash, explain, recipe
from stemma.incremental.stage import Stage

SCHEMA = pa.schema([("text", pa.string())])
PACKAGE = "imagined"


@pytest.fixture(autouse=True)
def kept(monkeypatch) -> dict[str, str]:
    """Outlines as the cache has them, by module: in every test, so that none is taken for that of other code."""
    kept: dict[str, str] = {}

    def load(module: str) -> outline.Data | None:
        return json.loads(kept[module]) if module in kept else None

    monkeypatch.setattr(outline, "_load", load)
    monkeypatch.setattr(outline, "_save", lambda module, data: kept.update({module: json.dumps(data)}))
    return kept


class Project:
    """A package on disk, imported afresh after each edit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, **modules: str) -> None:
        for name, text in {"__init__": "", **modules}.items():
            path = self.folder / PACKAGE / (name.replace("__in__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            if name != "__init__" or not path.exists() or text:
                path.write_text(textwrap.dedent(text), encoding="utf-8")

    def load(self, module: str = "main"):
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]
        importlib.invalidate_caches()
        return importlib.import_module(f"{PACKAGE}.{module}")

    def hash(self, **modules: str) -> str:
        self.write(**modules)
        return code_hash(self.load().run)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    # A .pyc is matched by whole seconds and size: an edit within the same second could load the old one.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield Project(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def stage(function, **changes) -> Stage:
    return Stage(
        **{"name": "s", "function": function, "parameters": {}, "inputs": SCHEMA, "outputs": SCHEMA} | changes
    )


def identity(table: pa.Table) -> pa.Table:
    return table


MAIN = """
    import re
    from imagined.a import helper
    from . import tables
    from .tables import WORDS as STOP

    LIMIT = 3
    PATTERN = re.compile(r"a+")

    def run(table, size=LIMIT):
        \"\"\"Docstring.\"\"\"
        return helper(table), tables.READERS["html"], STOP, PATTERN, Shape().area()

    class Base:
        def area(self):
            return 1

    class Shape(Base):
        sides = 4

    def unrelated():
        return "unrelated"
"""
A = """
    from imagined.b import deeper as renamed

    def helper(x):
        return [renamed(y) for y in x]
"""
B = """
    def deeper(x):
        from imagined.c import deepest
        return deepest(x)

    def unrelated(x):
        return 0
"""
C = """
    FACTOR = 2

    def deepest(x, by=1):
        # a comment
        return x * FACTOR * by
"""
TABLES = """
    def read_html(x):
        return x.strip()

    def read_pdf(x):
        return x

    READERS = {"html": read_html}
    READERS["pdf"] = read_pdf
    WORDS = frozenset({"the", "a"})
    OTHER = 9
"""
FILES = {"main": MAIN, "a": A, "b": B, "c": C, "tables": TABLES}

CHANGES = {
    "own body": ("main", "return helper(table), ", "return helper(table), 0, "),
    "constant": ("main", "LIMIT = 3", "LIMIT = 4"),
    "type of a constant": ("main", "LIMIT = 3", "LIMIT = 3.0"),
    "regex": ("main", 'r"a+"', 'r"a*"'),
    "regex flags": ("main", 'r"a+"', 'r"a+", re.I'),
    "default argument": ("c", "by=1", "by=2"),
    "helper three calls deep, imported locally": ("c", "x * FACTOR", "FACTOR * x"),
    "constant three calls deep": ("c", "FACTOR = 2", "FACTOR = 5"),
    "function in a table": ("tables", "x.strip()", "x.rstrip()"),
    "function added to a table by a second statement": ("tables", "return x\n", "return x + x\n"),
    "entry of a table": ("tables", '"html": read_html', '"html": read_html, "htm": read_html'),
    "second statement of a table": ("tables", 'READERS["pdf"]', 'READERS["PDF"]'),
    "augmented assignment": ("tables", "OTHER = 9", 'OTHER = 9\n    WORDS |= {"an"}'),
    "mutating call": ("tables", "OTHER = 9", 'OTHER = 9\n    READERS.pop("pdf")'),
    "set": ("tables", '{"the", "a"}', '{"the", "an"}'),
    "method of a base class": ("main", "return 1", "return 2"),
    "class attribute": ("main", "sides = 4", "sides = 5"),
    "which function a name imports": ("a", "import deeper as renamed", "import unrelated as renamed"),
}
NO_CHANGES = {
    "docstring": ("main", "Docstring.", "Another docstring."),
    "no docstring": ("main", '"""Docstring."""', ""),
    "comment": ("c", "# a comment", "# another\n\n        # comment"),
    "formatting": ("c", "x * FACTOR * by", "(\n            x\n            * FACTOR * by\n        )"),
    "quotes": ("tables", '"html"', "'html'"),
    "lines before": ("c", "FACTOR = 2", "\n\n\n    FACTOR = 0x2"),
    "function that is not reached": ("main", '"unrelated"', '"other"'),
    "function of a reached module that is not reached": ("b", "return 0", "return 1"),
    "constant that is not reached": ("tables", "OTHER = 9", "OTHER = 10"),
    "string statement": ("tables", "OTHER = 9", 'OTHER = 9\n    "What READERS means."'),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_code_that_is_reached_is_another_recipe(project, name):
    module, old, new = CHANGES[name]
    before = project.hash(**FILES)
    assert old in FILES[module]
    assert project.hash(**{module: FILES[module].replace(old, new)}) != before
    assert project.hash(**FILES) == before


@pytest.mark.parametrize("name", NO_CHANGES)
def test_comments_formatting_and_unreached_code_are_not_in_the_recipe(project, name):
    module, old, new = NO_CHANGES[name]
    before = project.hash(**FILES)
    assert old in FILES[module]
    assert project.hash(**{module: FILES[module].replace(old, new)}) == before


REACHES = dict(
    block.split("\n", 1)
    for block in """\
# nested function
def run(t):
    def inner(x):
        return target(x)
    return inner(t)

# lambda
def run(t):
    return map(lambda x: target(x), t)

# comprehension
def run(t):
    return [x for x in t if target(x)]

# comprehension whose target hides it elsewhere
def run(t):
    [run for target in t]
    return target(t)

# first iterable named as its target
def run(t):
    return [x for target in target(t) for x in target]

# generator as an argument
def run(t):
    return sum(target(x) for x in t)

# decorator
from functools import wraps
@target
def run(t):
    return t

# annotation
def run(t: target):
    return t.method()

# quoted annotation
def run(t: 'list[target]'):
    return t

# partial constant
import functools
part = functools.partial(target, 1)
def run(t):
    return part(t)

# lambda constant
part = lambda x: target(x)
def run(t):
    return part(t)

# alias
alias = target
def run(t):
    return alias(t)

# lru_cache
import functools
@functools.lru_cache
def f(x):
    return target(x)
def run(t):
    return f(t)

# contextmanager
import contextlib
@contextlib.contextmanager
def f():
    yield target(1)
def run(t):
    with f():
        return t

# wraps
import functools
def deco(f):
    @functools.wraps(f)
    def inner(*a):
        return f(*a)
    return inner
@deco
def f(x):
    return target(x)
def run(t):
    return f(t)

# body of a decorator's wrapper
import functools
def deco(f):
    @functools.wraps(f)
    def inner(*a):
        return target(*a)
    return inner
@deco
def f(x):
    return x
def run(t):
    return f(t)

# decorator without wraps
def deco(f):
    return lambda *a: f(*a)
@deco
def f(x):
    return target(x)
def run(t):
    return f(t)

# decorator that registers
TABLE = {}
def register(f):
    TABLE[f.__name__] = f
    return f
@register
def f(x):
    return target(x)
def run(t):
    return TABLE['f'](t)

# loop that fills a table
TABLE = {}
for n in (1, 2):
    TABLE[n] = target
def run(t):
    return TABLE[1](t)

# call that fills a table
TABLE = []
TABLE.append(target)
def run(t):
    return TABLE[0](t)

# condition around a definition
if True:
    def f(x):
        return target(x)
else:
    f = None
def run(t):
    return f(t)

# static method
class K:
    @staticmethod
    def m(x):
        return target(x)
def run(t):
    return K.m(t)

# property
class K:
    @property
    def m(self):
        return target(1)
def run(t):
    return K().m

# default factory of a dataclass
from dataclasses import dataclass, field
@dataclass
class K:
    x: int = field(default_factory=target)
def run(t):
    return K()

# enum member
import enum
class K(enum.Enum):
    A = target
def run(t):
    return K.A

# match
def run(t):
    match t:
        case target():
            return 1
        case other:
            return other

# cycle
def f(x):
    return g(x)
def g(x):
    return f(target(x))
def run(t):
    return f(t)

# singledispatch
import functools
@functools.singledispatch
def f(x):
    return x
@f.register
def _(x: int):
    return target(x)
def run(t):
    return f(t)

# global statement
def run(t):
    global target
    return target(t)

# bare module
import imagined.base
def run(t):
    return vars(imagined.base)

# try around a local import
def run(t):
    try:
        from imagined.base import target as f
    except ImportError:
        f = None
    return f(t)

# local import used in a nested function
def run(t):
    from . import base as b
    def inner():
        return b.target(t)
    return inner()

# local import of the dotted module
def run(t):
    import imagined.base
    return imagined.base.target(t)
""".removeprefix("# ").split("\n\n# ")
)


@pytest.mark.parametrize("name", REACHES)
def test_a_function_is_reached_through(project, name):
    main = f"from imagined.base import target\n{REACHES[name]}\n"
    base = "def target(x=None):\n    return {}\ndef other():\n    return 0\n"
    before = project.hash(main=main, base=base.format("x"))
    assert project.hash(main=main, base=base.format("[x]")) != before
    assert project.hash(main=main, base=base.format("x")) == before
    if name != "bare module":
        assert project.hash(main=main, base=base.format("x").replace("0", "1")) == before


def test_names_that_a_function_binds_itself_are_not_followed(project):
    main = """
        from imagined.base import target
        def run(target, *others, **more):
            other = [target for target in others]
            for unused in other:
                pass
            return target(other)
    """
    base = "def target(x):\n    return {}\n"
    assert project.hash(main=main, base=base.format(1)) == project.hash(main=main, base=base.format(2))


def test_star_imports_and_packages_are_followed(project):
    main = """
        from .inner import *
        import imagined.inner.leaf
        def run(t):
            return SIZE, imagined.inner.leaf.f(t)
    """
    files = {
        "main": main,
        "inner__in____init__": "from .sizes import SIZE\n",
        "inner__in__sizes": "SIZE = 1\n",
    }
    files["inner__in__leaf"] = "def f(x):\n    return 1\n"
    before = project.hash(**files)
    assert project.hash(**files | {"inner__in__sizes": "SIZE = 2\n"}) != before
    assert project.hash(**files | {"inner__in__leaf": "def f(x):\n    return 2\n"}) != before
    assert project.hash(**files) == before


def test_exchanged_imports_are_another_recipe(project):
    base = "def f(x):\n    return 1\ndef g(x):\n    return 2\n"
    main = "from .base import f as x, g as y\ndef run(t):\n    return x(t) - y(t)\n"
    before = project.hash(main=main, base=base)
    assert project.hash(main=main.replace("f as x, g as y", "g as x, f as y")) != before


def test_a_library_that_a_name_comes_from_is_in_the_recipe(project):
    main = "from os.path import join as j\ndef run(t):\n    return j(t)\n"
    assert project.hash(main=main) != project.hash(main=main.replace("os.path", "shlex"))


def test_reload_is_seen_within_the_clock_resolution(project):
    project.write(main="LIMIT = 1\ndef run(t):\n    return LIMIT\n")
    module = project.load()
    before, stat = code_hash(module.run), Path(module.__file__).stat()
    project.write(main="LIMIT = 2\ndef run(t):\n    return LIMIT\n")
    os.utime(module.__file__, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert code_hash(importlib.reload(module).run) != before


def test_an_edit_without_reload_keeps_the_recipe_of_the_code_that_runs(project):
    old = "LIMIT = 1\ndef run(t):\n    return helper(t), LIMIT\ndef helper(t):\n    return 1\n"
    new = old.replace("return 1", "return 2").replace("LIMIT = 1", "LIMIT = 7")
    project.write(main=old)
    module = project.load()
    before = code_hash(module.run)
    project.write(main=new)
    assert code_hash(module.run) == before
    assert code_hash(importlib.reload(module).run) not in {before}


def test_an_edit_before_the_first_recipe_is_not_taken_for_the_code_that_runs(project):
    old = "LIMIT = 1\ndef run(t):\n    return helper(t), LIMIT\ndef helper(t):\n    return 1\n"
    for new in (old.replace("return 1", "return 2"), old.replace("LIMIT = 1", "LIMIT = 7"), "def run(:"):
        project.write(main=old)
        module = project.load()
        project.write(main=new)
        running = code_hash(module.run)
        if new != "def run(:":
            assert code_hash(project.load().run) != running


def test_monkeypatched_attributes_count_as_patched(project, monkeypatch):
    project.write(
        main="""
            import re
            from imagined import base
            from imagined.base import helper as imported
            LIMIT = 3
            WORDS = frozenset({"a"})
            TABLE = {"a": 1}
            READERS = {"x": base.helper}
            PATTERN = re.compile("a")
            class K:
                size = 1
                def method(self):
                    return 1
            def run(t):
                return base.helper(t), imported(t), LIMIT, WORDS, TABLE, READERS, PATTERN, K().method()
        """,
        base="def helper(x):\n    return 1\ndef spare(x):\n    return 2\n",
    )
    module = project.load()
    base = sys.modules["imagined.base"]
    before = code_hash(module.run)
    patches = [
        (base, "helper", base.spare),
        (base, "helper", lambda x: 3),
        (base, "helper", lambda x: 4),
        (base, "helper", json.dumps),
        (base, "helper", 5),
        (module, "imported", base.spare),
        (module, "imported", lambda x: 5),
        (module, "LIMIT", 4),
        (module, "LIMIT", True),
        (module, "WORDS", frozenset({"b"})),
        (module, "TABLE", {"a": 2}),
        (module, "READERS", {"x": base.spare}),
        (module, "PATTERN", module.re.compile("b")),
        (module, "PATTERN", module.re.compile("a", module.re.I)),
        (module.K, "size", 2),
        (module.K, "method", lambda self: 2),
        (module.K, "method", base.spare),
    ]
    seen = {before}
    for owner, name, value in patches:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            patched = code_hash(module.run)
        assert patched not in seen, (owner, name, value)
        seen.add(patched)
        assert code_hash(module.run) == before


def test_caches_that_running_code_fills_are_not_in_the_recipe(project):
    project.write(
        main="""
            import functools
            CACHE = {}
            MODEL = None
            def run(t):
                global MODEL
                MODEL = "loaded"
                CACHE[t] = 1
                return helper(t)
            @functools.cache
            def helper(t):
                return t
        """
    )
    module = project.load()
    before = code_hash(module.run)
    module.run("x")
    assert code_hash(module.run) == before


def test_closures_partials_bound_methods_and_callable_objects_count_with_their_values():
    def made(size, pattern=("a",)):
        def inner(table, width=size * 2):
            return table, size, pattern, width

        return inner

    class Cleaner:
        def __init__(self, size):
            self.size = size

        def clean(self, table):
            return table

        def __call__(self, table):
            return table

    makers = [
        made,
        lambda size: functools.partial(made(1), size),
        lambda size: functools.partial(made(1), width=size),
        lambda size: Cleaner(size).clean,
        lambda size: Cleaner(size),
        lambda size: functools.partial(identity, size),
        lambda size: lambda table, n=size: table,
    ]
    hashes = [code_hash(make(size)) for make in makers for size in (1, 2, 1.0, "1")]
    assert len(set(hashes)) == len(hashes)
    assert [code_hash(make(size)) for make in makers for size in (1, 2, 1.0, "1")] == hashes


def test_functions_without_source_count_by_their_code():
    def defined(body):
        namespace = {"__name__": "__main__"}
        exec(
            f"LIMIT = 3\ndef helper(x):\n    return x + {body}\ndef run(t):\n    return helper(t), LIMIT",
            namespace,
        )
        return namespace

    before = code_hash(defined(1)["run"])
    assert code_hash(defined(1)["run"]) == before
    assert code_hash(defined(2)["run"]) != before
    namespace = defined(1)
    namespace["LIMIT"] = 4
    assert code_hash(namespace["run"]) != before


def test_functions_of_libraries_and_builtins_have_a_hash():
    assert (
        len({code_hash(len), code_hash(str.upper), code_hash("".join), code_hash(",".join), code_hash(int)})
        == 5
    )
    assert code_hash(contextlib.suppress) == code_hash(contextlib.suppress)


def test_every_part_of_a_stage_is_in_the_recipe():
    def load(**parameters):
        return 1

    def other_load(**parameters):
        return 2

    changes = [
        {},
        {"parameters": {"size": 1}},
        {"parameters": {"size": 1.0}},
        {"parameters": {"size": "1"}},
        {"parameters": {"size": [1, {"a": None}]}},
        {"libraries": ("pyarrow",)},
        {"libraries": ("no-such-distribution",)},
        {"digests": {"weights": "ab"}},
        {"digests": {"weights": "ac"}},
        {"version": 2},
        {"inputs": pa.schema([("text", pa.large_string())])},
        {"inputs": pa.schema([pa.field("text", pa.string(), nullable=False)])},
        {"outputs": pa.schema([("text", pa.list_(pa.int32()))])},
        {"load": load},
        {"load": other_load},
    ]
    recipes = [recipe(stage(identity, **change)) for change in changes]
    assert len(set(recipes)) == len(recipes)
    assert all(len(digits) == 32 and int(digits, 16) >= 0 for digits in recipes)


def test_a_loader_counts_by_its_code_and_not_by_the_folder_it_loads_from(project):
    main = """
        import functools
        from pathlib import Path
        class Model:
            def __init__(self, folder):
                self.folder = folder
            def load(self, **parameters):
                return self.folder
        def read(folder, **parameters):
            return folder, "v1"
        def closure(folder):
            def load(**parameters):
                return read(folder)
            return load
        def bound(folder):
            return Model(folder).load
        def part(folder):
            return functools.partial(read, folder)
        def default(folder):
            return lambda folder=folder, **parameters: read(folder)
        def run(table):
            return table
    """
    project.write(main=main)
    module = project.load()
    makers = [module.closure, module.bound, module.part, module.default]
    before = [recipe(stage(module.run, load=make("/one"))) for make in makers]
    assert [recipe(stage(module.run, load=make("/two"))) for make in makers] == before
    assert len({*before, recipe(stage(module.run))}) == 5
    project.write(main=main.replace("v1", "v2").replace("return self.folder", "return self"))
    module = project.load()
    makers = [module.closure, module.bound, module.part, module.default]
    after = [recipe(stage(module.run, load=make("/one"))) for make in makers]
    assert not set(before) & set(after)


def test_name_batch_size_and_the_order_of_parameters_are_not_in_the_recipe():
    one = stage(
        identity, parameters={"a": 1, "b": [2]}, libraries=("numpy", "pyarrow"), digests={"x": "1", "y": "2"}
    )
    other = stage(
        identity,
        name="other",
        batch_rows=3,
        parameters={"b": (2,), "a": 1},
        libraries=("pyarrow", "numpy"),
        digests={"y": "2", "x": "1"},
    )
    assert recipe(one) == recipe(other)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, identity])
def test_parameters_that_json_cannot_hold_are_refused(value):
    with pytest.raises(TypeError, match="'s'"):
        recipe(stage(identity, parameters={"bad": value}))


def test_a_new_library_version_is_another_recipe(monkeypatch):
    from stemma.incremental import recipe as module

    before = recipe(stage(identity, libraries=("pyarrow",)))
    monkeypatch.setattr(module, "_library_version", lambda name: "999")
    assert recipe(stage(identity, libraries=("pyarrow",))) != before


def test_explain_names_what_changed(project):
    project.write(**FILES)
    before = explain(stage(project.load().run, libraries=("pyarrow", "no-such-distribution")))
    project.write(c=C.replace("FACTOR = 2", "FACTOR = 3"))
    after = explain(stage(project.load().run, libraries=("pyarrow", "no-such-distribution")))
    changed = {name for name in after["reached"] if after["reached"][name] != before["reached"][name]}
    assert changed == {"imagined.c.FACTOR"}
    assert before["reached"].keys() >= {
        "imagined.main.run",
        "imagined.main.LIMIT",
        "imagined.main.Base",
        "imagined.main.Shape",
        "imagined.a.helper",
        "imagined.b.deeper",
        "imagined.c.deepest",
        "imagined.tables.READERS",
        "imagined.tables.WORDS",
        "imagined.tables.read_html",
    }
    assert before["libraries"] == {"no-such-distribution": "absent", "pyarrow": pa.__version__}
    assert before["recipe"] == json.loads(json.dumps(before))["recipe"] != after["recipe"]


def test_methods_that_dataclass_generates_are_not_listed(project):
    project.write(
        main="""
            from dataclasses import dataclass
            @dataclass(frozen=True, slots=True)
            class Options:
                size: int = 1
            def run(table):
                return Options(2)
        """
    )
    assert set(explain(stage(project.load().run))["reached"]) == {
        "imagined.main.run",
        "imagined.main.Options",
    }


def test_the_recipe_is_the_same_in_every_process_folder_and_order_of_sets(tmp_path):
    script = "import sys; sys.path[:0] = sys.argv[1:]\nfrom imagined.main import run\n"
    script += "from stemma.incremental.recipe import code_hash; print(code_hash(run))"
    found = set()
    for seed, folder in enumerate(["one", "two/with space", "two/with space"]):
        project = Project(tmp_path / folder)
        project.write(**FILES)
        environ = os.environ | {"PYTHONHASHSEED": str(seed), "PYTHONDONTWRITEBYTECODE": str(seed % 2)}
        command = [sys.executable, "-c", script, str(project.folder), str(Path(__file__).parents[1])]
        found.add(
            subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout.strip()
        )
    assert len(found) == 1
    assert len(found.pop()) == 32


def test_recipes_do_not_depend_on_what_else_was_hashed_before(project):
    project.write(**FILES)
    module = project.load()
    alone = code_hash(module.run)
    code_hash(module.unrelated)
    code_hash(sys.modules["imagined.a"].helper)
    assert code_hash(module.run) == alone


def test_a_kept_outline_says_what_the_source_says_and_spares_reading_it(project, kept, monkeypatch):
    project.write(**FILES)
    afresh = explain(stage(project.load().run))
    assert {name for name in kept if name.startswith(PACKAGE)} >= {f"{PACKAGE}.main", f"{PACKAGE}.a"}
    parsed = []
    monkeypatch.setattr(outline, "_outlined", lambda *arguments: parsed.append(arguments))
    assert explain(stage(project.load().run)) == afresh
    assert parsed == []


def test_a_kept_outline_of_another_source_or_python_is_made_anew(project, kept, monkeypatch):
    project.write(**FILES)
    before = code_hash(project.load().run)
    for name, data in list(kept.items()):
        kept[name] = data.replace('"key": "', '"key": "not ')
    made = len(kept)
    kept["imagined.main"] = "{}"
    assert code_hash(project.load().run) == before
    assert len(kept) == made
    assert '"key": "not ' not in kept["imagined.a"]


BESIDE = "def polished(text):\n    return text.strip()\n"


def test_a_module_beside_the_functions_own_counts_and_one_elsewhere_does_not(project, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()

    def code_of(beside: str, elsewhere: str) -> str:
        (tmp_path / "beside.py").write_text(beside)
        (tmp_path / "elsewhere" / "library.py").write_text(elsewhere)
        for name in ("beside", "library"):
            sys.modules.pop(name, None)
        return project.hash(
            main="""
            from beside import polished
            import library
            def run(table):
                return polished(library.polished(table))
            """
        )

    before = code_of(BESIDE, BESIDE)
    assert code_of(BESIDE, BESIDE) == before
    assert code_of(BESIDE, BESIDE.replace("strip", "lower")) == before
    assert code_of(BESIDE.replace("strip", "lower"), BESIDE) != before
    for name in ("beside", "library"):
        del sys.modules[name]
