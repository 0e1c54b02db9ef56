"""The recipe of a stage: a hash of everything that decides what it computes.

A changed function body, helper, constant, parameter, library version, weight or schema is another recipe; a
comment, a docstring, formatting, or code that the stage does not reach is not. Nothing that differs between
machines or processes goes in: no paths, no line numbers, no set order, no run ids.

What a function reaches is found by resolving the names in its syntax tree to the objects that are bound to
them now (a monkeypatched helper counts as patched), and following those of this project: the package `stemma`,
the top-level package or module of the stage's own function, and those beside it in the same folder. Libraries count
by their declared versions.

Not seen, so raise `Stage.version` by hand: names looked up at run time (`getattr(module, name)`, `importlib`,
`globals()`), classes that a function receives as arguments without an annotation and never names, state that
running code writes into a module, and files that code reads.
"""

import functools
import importlib.metadata
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from stemma import hashing
from stemma.incremental.reach import Reaches
from stemma.incremental.stage import Stage


def recipe(stage: Stage, reaches: Reaches | None = None) -> str:
    """Return the stage's recipe: 32 hex digits, the same in every process and on every machine.

    It covers the code that `stage.function` and `stage.load` reach, values bound to the function (closures,
    partial arguments; not those of `load`, whose yield has digests), the parameters, the versions of the
    declared libraries, the digests, the manual version and both schemas; not the name nor the batch size,
    which must not change results. Functions without source (REPL, `exec`, rewritten by a debugger or pytest)
    count by their compiled code, whose digits depend on the Python version. `reaches` has what was read of code for
    other recipes; without it all is read anew.

    Raises:
        TypeError: a parameter cannot be written as JSON.
    """
    return _hash_facts(_facts(stage, reaches or Reaches()))


def explain(stage: Stage) -> dict[str, Any]:
    """Return what goes into the stage's recipe, as JSON-able facts: compare two to see why a recipe changed.

    `reached` maps each function, class and constant, by qualified name, to the hash of its own code.
    """
    facts = _facts(stage, Reaches())
    return {"recipe": _hash_facts(facts), **facts}


def code_hash(function: Callable[..., Any], reaches: Reaches | None = None) -> str:
    """Return 32 hex digits over a function's code and all code of this project that it reaches; see `recipe`."""
    return _hash_facts(_code_facts(reaches or Reaches(), function))


def _hash_facts(facts: Mapping[str, Any]) -> str:
    return hashing.key(json.dumps(facts, sort_keys=True)).hex()


def _facts(stage: Stage, reaches: Reaches) -> dict[str, Any]:
    return {
        **_code_facts(reaches, stage.function, stage.load),
        "parameters": _json_able(stage),
        "libraries": {name: _library_version(name) for name in sorted(stage.libraries)},
        "digests": dict(sorted(stage.digests.items())),
        "version": stage.version,
        "inputs": _schema_facts(stage.inputs),
        "outputs": _schema_facts(stage.outputs),
    }


def _code_facts(
    reaches: Reaches, function: Callable[..., Any], load: Callable[..., Any] | None = None
) -> dict[str, Any]:
    reach = reaches.of([function] if load is None else [function, load])
    labels = {
        "function": reach.describe(function),
        "load": None if load is None else reach.describe_load(load),
    }
    return {**labels, "reached": reach.finish()}


def _json_able(stage: Stage) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(stage.parameters), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(f"stage {stage.name!r}: its parameters cannot be written as JSON: {error}") from error


@functools.cache
def _library_version(name: str) -> str:
    try:
        distribution = importlib.metadata.distribution(name)
        # To read all that it says of itself, as `importlib.metadata.version` does, takes a millisecond.
        stated = re.search(r"^Version: *(\S+)", distribution.read_text("METADATA") or "", re.MULTILINE)
        return stated[1] if stated else distribution.version
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _schema_facts(schema: pa.Schema) -> list[list[Any]]:
    return [[field.name, str(field.type), field.nullable] for field in schema]
