"""What extraction finds in a source."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Extraction:
    """What a source says.

    Attributes:
        text: its main text, structure kept as Markdown where the format had any.
        title: its title, None when it names none.
        visible_characters: characters that a reader of the source sees, before boilerplate is removed.
    """

    text: str
    title: str | None
    visible_characters: int
