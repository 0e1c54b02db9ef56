"""Titles and front matter of Markdown, reStructuredText and plain text, found without a parser.

Front matter is read with a regular expression and never with a YAML loader: alias bombs and object tags stay
the plain text that they are.
"""

import json
import re
from io import StringIO

_FRONT_MATTER = re.compile(r"\ufeff?---[ \t]*\r?\n(?P<block>(?:.*\r?\n)*?)(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)")
_FRONT_MATTER_KEY = re.compile(r"(?:[\w-]+[ \t]*:|!!)")
_FRONT_MATTER_TITLE = re.compile(
    r"^title[ \t]*:[ \t]*(?P<title>\S.*?)[ \t\r]*$", re.MULTILINE | re.IGNORECASE
)

_FENCE = re.compile(r" {0,3}(```|~~~)")
_ATX_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(?P<title>.*)")
_CLOSING_HASHES = re.compile(r"(?:^|(?<=[ \t]))#+$")
_SETEXT_UNDERLINE = re.compile(r" {0,3}(?:={2,}|-{2,})\s*$")
_RST_UNDERLINE = re.compile(r"([=\-`:.'\"~^_*+#])\1{2,}\s*$")
# A sentence or a list item above a line of dashes is no heading.
_TITLE_CHARACTERS = 200


def split_front_matter(content: str) -> tuple[str | None, str]:
    """Split Markdown into the title that its YAML front matter names (or None) and the text below it."""
    match = _FRONT_MATTER.match(content)
    if match is None or not _names_a_key(match["block"]):
        return None, content
    title = _FRONT_MATTER_TITLE.search(match["block"])
    return (_unquote(title["title"]) if title else None), content[match.end() :]


def markdown_title(content: str) -> str | None:
    """Return the first heading of a Markdown text (`# …`, or underlined), skipping fenced code."""
    fence, above = None, ""
    for line in StringIO(content):
        mark = _FENCE.match(line)
        if mark:
            fence, above = _next_fence(fence, mark[1]), ""
        elif fence is None:
            heading = _ATX_HEADING.match(line)
            if heading and (title := _CLOSING_HASHES.sub("", heading["title"].strip()).strip()):
                return title
            if _SETEXT_UNDERLINE.match(line) and _may_be_title(above):
                return above.strip()
            above = line
    return None


def underlined_title(content: str, *, only_at_start: bool = False) -> str | None:
    """Return the first line that is underlined at least to its own length, as reStructuredText's titles are.

    Args:
        content: the text.
        only_at_start: accept only a heading that is the first thing in the text.
    """
    above = ""
    for line in StringIO(content):
        is_rule = _RST_UNDERLINE.match(line) is not None
        if is_rule and _may_be_title(above) and len(line.rstrip()) >= len(above.strip()):
            return above.strip()
        if only_at_start and above.strip():
            return None
        above = "" if is_rule else line
    return None


def _names_a_key(block: str) -> bool:
    """Tell front matter from a text between two thematic breaks by its first line."""
    lines = (line.strip() for line in block.splitlines())
    first = next((line for line in lines if line and not line.startswith("#")), "")
    return _FRONT_MATTER_KEY.match(first) is not None


def _unquote(value: str) -> str | None:
    """Read a YAML scalar: plain, 'single' or "double" quoted."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        try:
            return str(json.loads(value))
        except ValueError:
            return value[1:-1]
    if len(value) > 1 and value[0] == value[-1] == "'":
        return value[1:-1].replace("''", "'")
    return value.strip("\"'") or None


def _next_fence(fence: str | None, mark: str) -> str | None:
    """Return the fence that is open after a line which begins with `mark`."""
    if fence is None:
        return mark
    return None if mark == fence else fence


def _may_be_title(line: str) -> bool:
    stripped = line.strip()
    return 0 < len(stripped) <= _TITLE_CHARACTERS and any(character.isalnum() for character in stripped)
