"""What extraction finds in a source."""

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a stretch of the extracted text stands in its source; it reaches to where the next one begins.

    Attributes:
        char_start: first character of the stretch in the extracted text.
        source_char: for text formats, the character of the raw content that it begins at; from there on the
            two run side by side, character by character.
        place: for formats without such characters, where it stands in words: "page 3", "slide 2",
            "sheet Prices", or the path of an HTML element, "/html/body/main/p[2]".
    """

    char_start: int
    source_char: int | None = None
    place: str | None = None


@dataclass(frozen=True)
class Extraction:
    """What a source says.

    Attributes:
        text: its main text, structure kept as Markdown where the format had any.
        title: its title, None when it names none.
        visible_characters: characters that a reader of the source sees, before boilerplate is removed.
        author: who wrote it, as the source's own metadata say.
        published: the day it was published, as the source's own metadata say.
        language: the language that the source declares, as a lower-case language tag ("pt-br").
        origins: where the text comes from, in the order of char_start; empty where that is not known.
    """

    text: str
    title: str | None
    visible_characters: int
    author: str | None = None
    published: date | None = None
    language: str | None = None
    origins: tuple[Origin, ...] = ()
