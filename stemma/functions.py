"""Functions of the user's own, named in the configuration as `module:function`."""

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stemma.errors import UsageError

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_function(name: str) -> bool:
    """Tell whether a name has the form `module:function`."""
    return _FUNCTION.fullmatch(name) is not None


def let_import(directory: Path) -> None:
    """Let modules be found in a folder, after all other places: the configuration names code of its owner's."""
    if str(directory) not in sys.path:
        sys.path.append(str(directory))


def load_function(name: str) -> Callable[..., Any]:
    """Import a function by its name. Raises UsageError where there is none."""
    module_name, _, names = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for each in names.split("."):
            found = getattr(found, each)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{name!r}: {error}") from error
    if not callable(found):
        raise UsageError(f"{name!r} is no function")
    return found
