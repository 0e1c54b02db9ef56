"""Text and title of a Texinfo manual, headings as Markdown."""

import re

from stemma.cleaning.extraction import Extraction, Origin

_HEADINGS = {
    **dict.fromkeys(
        ("top", "chapter", "unnumbered", "appendix", "chapheading", "majorheading", "centerchap"), 1
    ),
    **dict.fromkeys(("section", "unnumberedsec", "appendixsec", "heading"), 2),
    **dict.fromkeys(("subsection", "unnumberedsubsec", "appendixsubsec", "subheading"), 3),
    **dict.fromkeys(("subsubsection", "unnumberedsubsubsec", "appendixsubsubsec", "subsubheading"), 4),
}
# Environments that hold nothing of the running text: menus, other output formats, definitions.
_DROPPED = frozenset(
    {"menu", "detailmenu", "direntry", "ignore", "titlepage", "macro", "rmacro"}
    | {"tex", "html", "xml", "docbook", "iftex", "ifhtml", "ifxml", "ifdocbook"}
)
_CODE = frozenset(
    {"example", "smallexample", "lisp", "smalllisp", "verbatim"}
    | {"display", "smalldisplay", "format", "smallformat"}
)
# Of all other commands that fill a line, those whose argument is text.
_TEXT_LINES = frozenset(
    {"noindent", "indent", "center", "exdent"}
    | {"deffn", "defun", "defmac", "defvar", "deftypefn", "deftypefun"}
)

_LINE_COMMAND = re.compile(r"@(?P<name>[a-zA-Z]+)(?![a-zA-Z{])[ \t]*(?P<argument>.*)")
_BARE_ITEM = re.compile(r"^-\n+(?=[^\n])", re.MULTILINE)
_SYMBOLS = {
    "bullet": "•", "minus": "-", "dots": "…", "enddots": "…", "result": "⇒", "expansion": "↦", "print": "⊣",
    "error": "error→", "equiv": "≡", "point": "⋆", "arrow": "→", "tie": " ", "comma": ",", "TeX": "TeX",
    "LaTeX": "LaTeX", "copyright": "©", "registeredsymbol": "®", "euro": "€", "pounds": "£",
    "textdegree": "°", "aa": "å", "AA": "Å", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ",
    "o": "ø", "O": "Ø", "ss": "ß", "l": "ł", "L": "Ł",
    "quotedblleft": "“", "quotedblright": "”", "quoteleft": "‘", "quoteright": "’",
}  # fmt: skip
_SYMBOL = re.compile(r"@(" + "|".join(_SYMBOLS) + r")\{\}")
# Braces nest: the innermost commands go first, one level a pass.
_INLINE = re.compile(r"@(?P<name>[a-zA-Z]+)\{(?P<argument>[^{}@]*)\}")
_MAX_NESTING = 20
# While commands are expanded, escaped characters are kept out of the way as private-use characters.
_ESCAPED = re.compile(r"@([@{}])")
_HIDDEN = {ord("@"): "\ue000", ord("{"): "\ue001", ord("}"): "\ue002"}
_SHOWN = {ord(hidden): chr(shown) for shown, hidden in _HIDDEN.items()}
_SPACING = re.compile(r"@[ \t*:.!?/-]")
# So is, before each line, the place where it begins in the source: commands may span lines and drop some.
_PLACE = re.compile("\ue003([0-9]+)\ue004")
_NO_PLACES = {0xE003: None, 0xE004: None}


def extract_texinfo(content: str) -> Extraction:
    """Turn Texinfo into text: directives dropped, `@section` to `##`, `@code{x}` to `x`, `@item` to `- `.

    Origins are exact where a line begins; inside of a line what commands print shifts what follows.
    """
    reader = _Reader()
    begin = 0
    for line in content.splitlines(keepends=True):
        reader.read(line.splitlines()[0].translate(_NO_PLACES), begin)
        begin += len(line)
    # An item's text may begin on the line below the command.
    text, origins = _take_places(_BARE_ITEM.sub("- ", _expand("\n".join(reader.lines))))
    return Extraction(text, _expand(reader.title) or None, len(text), origins=origins)


def _take_places(text: str) -> tuple[str, tuple[Origin, ...]]:
    """Take the places of lines out of a text; those that follow from the one before are left out."""
    parts: list[str] = []
    origins: list[Origin] = []
    characters = end = shift = 0
    for match in _PLACE.finditer(text):
        parts.append(text[end : match.start()])
        characters += len(parts[-1])
        end = match.end()
        if not origins or int(match[1]) - characters != shift:
            shift = int(match[1]) - characters
            origins.append(Origin(characters, source_char=int(match[1])))
    return "".join([*parts, text[end:]]), tuple(origins)


class _Reader:
    """Obeys the commands that fill a line; those inside of text may span lines and are left as they are."""

    def __init__(self) -> None:
        self.title = ""
        self.lines: list[str] = []
        self._environment = ""
        self._begin = 0

    def read(self, line: str, begin: int) -> None:
        """Take a line, which begins at this character of the source."""
        self._begin = begin
        command = _LINE_COMMAND.match(line)
        name, argument = (command["name"], command["argument"].strip()) if command else ("", "")
        if self._environment:
            self._read_inside(line, ends=name == "end" and argument == self._environment)
        elif name in _DROPPED or name in _CODE:
            self._environment = name
            self.lines += ["", self._placed("```")] if name in _CODE else []
        elif name:
            self._obey(name, argument)
        elif not line.startswith("\\input"):
            self.lines.append(self._placed(line))

    def _placed(self, line: str) -> str:
        return f"\ue003{self._begin}\ue004{line}" if line.strip() else line

    def _read_inside(self, line: str, *, ends: bool) -> None:
        is_code = self._environment in _CODE
        if ends:
            self.lines += ["```", ""] if is_code else []
            self._environment = ""
        elif is_code and not line.startswith(("@group", "@end group")):
            shown = line.translate(_HIDDEN) if self._environment == "verbatim" else line
            self.lines.append(self._placed(shown))

    def _obey(self, name: str, argument: str) -> None:
        if name in ("settitle", "title"):
            self.title = self.title or argument
        elif name in _HEADINGS:
            self.lines += ["", self._placed("#" * _HEADINGS[name] + " " + argument), ""]
        elif name in ("item", "itemx"):
            self.lines.append(self._placed(f"- {argument}") if argument else "-")
        elif name in _TEXT_LINES:
            self.lines.append(self._placed(argument))


def _expand(text: str) -> str:
    """Replace the commands inside of a text by what they print."""
    text = _ESCAPED.sub(lambda match: match[1].translate(_HIDDEN), text)
    text = _SYMBOL.sub(lambda match: _SYMBOLS[match[1]], text)
    for _ in range(_MAX_NESTING):
        text, replaced = _INLINE.subn(_print_command, text)
        if not replaced:
            break
    return _SPACING.sub(" ", text).translate(_SHOWN)


def _print_command(match: re.Match[str]) -> str:
    """Print a reference as what it names, a link as its text, a footnote in brackets, all else as it is."""
    name, arguments = match["name"], [part.strip() for part in match["argument"].split(",")]
    if name in ("anchor", "cindex", "image", "caption"):
        return ""
    if name in ("ref", "xref", "pxref", "inforef"):
        prefix = {"xref": "See ", "pxref": "see "}.get(name, "")
        return prefix + next((part for part in reversed(arguments[:3]) if part), "")
    if name in ("uref", "url", "email"):
        return next((part for part in reversed(arguments[:2]) if part), "")
    if name == "footnote":
        return f" ({match['argument'].strip()})"
    return match["argument"]
