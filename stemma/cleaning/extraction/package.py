"""Documents that are ZIP archives of XML (Office, EPUB), checked byte for byte before a parser sees them.

Nothing is written to disk, so that names of members are only names; a duplicate name means its last member.
"""

import io
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from stemma.cleaning.extraction.limits import FREE_BYTES, Limits

_DIRECTORY_ENTRY = b"PK\x01\x02"
_OLE = b"\xd0\xcf\x11\xe0"
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_XML_STARTS = (b"<", b"\xff\xfe", b"\xfe\xff", b"\0<")
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    KeyError,
    UnicodeError,
    IndexError,
)
_CHUNK = 256 * 1024


class Package:
    """The members of a document.

    Args:
        data: the document.
        kind: what it is called in errors, such as "DOCX".
        limits: `max_members`, `max_expansion`, `max_expanded_bytes` and `max_depth` count.
        max_xml_bytes: limit of its XML; None: no other than for all of it.

    Raises:
        ValueError: it is no ZIP archive, damaged, encrypted, or beyond a limit.
    """

    def __init__(self, data: bytes, kind: str, limits: Limits, *, max_xml_bytes: int | None = None) -> None:
        self.kind = kind
        self._limits = limits
        self._left = max(FREE_BYTES, len(data) * limits.max_expansion)
        self._left = min(self._left, limits.max_expanded_bytes)
        self._max_xml = limits.max_expanded_bytes if max_xml_bytes is None else max_xml_bytes
        self._xml_left = self._max_xml
        self._archive = self._open(data)
        self._members = {member.filename: member for member in self._archive.infolist()}
        self._check_members(len(data))

    def _open(self, data: bytes) -> zipfile.ZipFile:
        if data.startswith(_OLE):
            raise ValueError(f"{self.kind} is encrypted with a password, or an old Office document")
        # The directory is counted before it is read: an entry of it takes memory.
        if (count := data.count(_DIRECTORY_ENTRY)) > self._limits.max_members:
            raise ValueError(f"{self.kind} has {count} members, more than max_members")
        try:
            return zipfile.ZipFile(io.BytesIO(data))
        except (*_BROKEN, ValueError) as error:
            raise ValueError(f"{self.kind} cannot be read: {error}") from error

    def _check_members(self, packed: int) -> None:
        if any(member.flag_bits & _ENCRYPTED for member in self._members.values()):
            raise ValueError(f"{self.kind} is encrypted")
        # zipfile unpacks other methods without a limit on what comes out; no format of these has them.
        if any(member.compress_type not in _METHODS for member in self._members.values()):
            raise ValueError(
                f"{self.kind} cannot be read: it is compressed by a method of ZIP other than deflate"
            )
        expanded = sum(member.file_size for member in self._archive.infolist())
        if expanded > self._left:
            raise ValueError(
                f"{self.kind} is too large: {packed} bytes expand to {expanded}, more than {self._left}"
            )

    def read(self, name: str) -> bytes | None:
        """Return a member's bytes, None where there is none of this name."""
        member = self._members.get(name)
        if member is None:
            return None
        # What a member's header says of its size may be a lie: chunks of a known size are all that is asked for.
        parts = []
        try:
            with self._archive.open(member) as file:
                while part := file.read(_CHUNK):
                    parts.append(part)
                    self._left -= len(part)
                    if self._left < 0:
                        raise ValueError(f"{self.kind} is too large: {name} expands beyond the limits")
        except _BROKEN as error:
            raise ValueError(f"{self.kind} cannot be read: {name}: {error}") from error
        return b"".join(parts)

    def read_xml(self, name: str) -> bytes | None:
        """Return a member that is XML, checked: no entities, no deeper nesting than `max_depth`."""
        data = self.read(name)
        if data is not None:
            self._xml_left -= len(data)
            if self._xml_left < 0:
                raise ValueError(f"{self.kind} has more than {self._max_xml} bytes of XML")
            _check_xml(data, f"{self.kind} cannot be read: {name}", self._limits.max_depth)
        return data

    def checked(self, rewrite: Callable[[bytes], bytes] | None = None) -> io.BytesIO:
        """Return the document as an archive of its checked XML; pictures and all else are emptied.

        The libraries that take the archive read whole members, whatever size they have. `rewrite` may change a
        member before it is put there.
        """
        output = io.BytesIO()
        with zipfile.ZipFile(output, "w", zipfile.ZIP_STORED) as archive:
            for name in self._members:
                data = self.read_xml(name) if self._is_xml(name) else b""
                archive.writestr(zipfile.ZipInfo(name), rewrite(data) if rewrite and data else data or b"")
        output.seek(0)
        return output

    def _is_xml(self, name: str) -> bool:
        """Tell the XML of the document itself from pictures, fonts and embedded files."""
        folders = name.lower().split("/")
        if not {"media", "embeddings", "fonts", "customxml"}.isdisjoint(folders[:-1]):
            return False
        try:
            with self._archive.open(self._members[name]) as file:
                head = file.read(256)
        except _BROKEN as error:
            raise ValueError(f"{self.kind} cannot be read: {name}: {error}") from error
        is_drawing = folders[-1].endswith(".vml")
        return not is_drawing and head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(_XML_STARTS)


class _Depth:
    """A target of the XML parser that counts how deep elements are nested."""

    def __init__(self, max_depth: int) -> None:
        self._max_depth = max_depth
        self._depth = 0

    def start(self, tag: str, attributes: Any) -> None:
        self._depth += 1
        if self._depth > self._max_depth:
            raise ValueError(f"XML nested deeper than max_depth={self._max_depth}")

    def end(self, tag: str) -> None:
        self._depth -= 1

    def close(self) -> None:
        return None


def _check_xml(data: bytes, what: str, max_depth: int) -> None:
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import DefusedXMLParser

    parser = DefusedXMLParser(target=_Depth(max_depth), forbid_dtd=False, forbid_entities=True)
    try:
        for start in range(0, len(data), _CHUNK):
            parser.feed(data[start : start + _CHUNK])
        parser.close()
    except DefusedXmlException as error:
        raise ValueError(f"{what}: it declares entities, an attack by expansion") from error
    except (ParseError, ValueError, LookupError) as error:
        raise ValueError(f"{what}: {error}") from error
