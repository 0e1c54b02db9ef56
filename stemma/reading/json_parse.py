"""Parsing one JSON value from untrusted bytes: depth, numbers and encoding are guarded."""

import json
import math
import re
from typing import Any

from stemma.reading.records import Unreadable

# A string (escapes and all, to the end where it is not closed), or one bracket outside of strings.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[{}\[\]]', re.S)
_OPEN = b"{["


def parse_object(data: bytes, max_depth: int) -> dict[str, Any]:
    """Parse one JSON object. NaN, infinities and numbers beyond a double become null.

    Raises:
        Unreadable: "not UTF-8", "too deep", "invalid JSON", or "not an object".
    """
    if data.count(b"{") + data.count(b"[") > max_depth:
        _check_depth(data, max_depth)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable("not UTF-8", f"byte {error.start} is not UTF-8") from error
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise Unreadable("invalid JSON", f"{error.msg} at character {error.pos}") from error
    except (ValueError, RecursionError) as error:
        raise Unreadable("invalid JSON", str(error)) from error
    if not isinstance(value, dict):
        raise Unreadable("not an object", f"the value is a {type(value).__name__}, not an object with fields")
    return value


def _check_depth(data: bytes, max_depth: int) -> None:
    depth = 0
    for match in _TOKEN.finditer(data):
        first = data[match.start()]
        if first in _OPEN:
            depth += 1
            if depth > max_depth:
                raise Unreadable("too deep", f"values are nested more than {max_depth} deep")
        elif first != 0x22:
            depth -= 1


def _no_number(_: str) -> None:
    return None


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


_DECODER = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite)
